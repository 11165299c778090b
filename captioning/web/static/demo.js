"use strict";
// The page of the demo. Everything from outside is inserted as text, never as markup.

const [SMALLEST, LARGEST] = [448, 720]; // pixels of a canvas's longer side
const TITLES = { greedy: "Greedy", beam: "Beam search", sample: "Samples" };
const KINDS = { soft: "soft attention", hard: "hard attention", no: "no attention" };
const ATTENTION = "attention"; // the map that comes with the captions
const state = { about: null, source: null, cards: [], pinned: null, request: null };
const find = (id) => document.getElementById(id);

// ---- attention in the image's own geometry --------------------------------------------------------------------------

/** Keys' cubic kernel with a = -1/2, as in the figures. */
function cubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/** Return the pixels below the limit whose centers are between start and end, as [first, after the last]. */
function span(start, end, limit) {
  return [start, end].map((edge) => Math.min(Math.max(Math.ceil(edge - 0.5), 0), limit));
}

/** Return for each pixel of a span the cells that it is computed from, with weights: four (mirrored at the border), or one. */
function taps([first, last], start, end, cells, smooth) {
  const mirrored = (cell) => {
    while (cell < 0 || cell >= cells) cell = cell < 0 ? -cell - 1 : 2 * cells - 1 - cell;
    return cell;
  };
  const found = [];
  for (let pixel = first; pixel < last; pixel++) {
    const at = ((pixel + 0.5 - start) / (end - start)) * cells;
    const nearest = Math.floor(at - 0.5);
    const around = smooth ? [nearest - 1, nearest, nearest + 1, nearest + 2] : [Math.floor(at)];
    found.push(around.map((cell) => [mirrored(cell), smooth ? cubic(at - cell - 0.5) : 1]));
  }
  return found;
}

/**
 * Compute attention for an image of width × height pixels, in row-major order: bicubic between the centers of the cells,
 * or the cells as they are; 0 outside the box [left, top, right, bottom], which the grid divides evenly.
 */
function attentionOver(weights, [rows, columns], [left, top, right, bottom], [width, height], smooth = true) {
  const across = span(left, right, width), down = span(top, bottom, height);
  const drawn = new Float32Array(width * height);
  const byColumn = taps(across, left, right, columns, smooth), byRow = taps(down, top, bottom, rows, smooth);
  const wide = Array.from({ length: rows }, (_, row) =>
    byColumn.map((cells) => cells.reduce((sum, [cell, weight]) => sum + weight * weights[row * columns + cell], 0)));
  byRow.forEach((cells, y) => {
    const at = (down[0] + y) * width + across[0];
    for (let x = 0; x < byColumn.length; x++) {
      let sum = 0;
      for (const [cell, weight] of cells) sum += weight * wide[cell][x];
      drawn[at + x] = Math.max(0, sum);
    }
  });
  return drawn;
}

const grayOf = (pixels, at) => Math.round(0.299 * pixels[at] + 0.587 * pixels[at + 1] + 0.114 * pixels[at + 2]);

/** Return the brightness 0…1 of each gray level; as in the figures, the contrast of an image with little contrast is raised. */
function contrasted(pixels) {
  const counts = new Uint32Array(256);
  for (let at = 0; at < pixels.length; at += 4) counts[grayOf(pixels, at)]++;
  const lighter = (level) => Math.pow(level / 255, 0.8);
  const quantile = (share) => {
    let level = 0;
    for (let below = counts[0]; below < (share * pixels.length) / 4; below += counts[level]) level++;
    return lighter(level);
  };
  const [low, high] = [quantile(0.01), quantile(0.99)], middle = (low + high) / 2;
  const gain = Math.min(2, Math.max(1, 0.5 / Math.max(high - low, 0.25)));
  return Float32Array.from(counts, (_, level) => Math.min(1, Math.max(0, middle + (lighter(level) - middle) * gain)));
}

/** Change pixels: gray and dimmed where strength is 0, colored towards 1, hatched outside the box. */
function light(pixels, strength, box, [width, height], palette) {
  const across = span(box[0], box[2], width), down = span(box[1], box[3], height);
  const lighter = contrasted(pixels);
  const opacities = Float32Array.from({ length: palette.length }, (_, at) => 0.92 * Math.pow(at / (palette.length - 1), 0.7));
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const first = 4 * at;
      const gray = lighter[grayOf(pixels, first)];
      if (x < across[0] || x >= across[1] || y < down[0] || y >= down[1]) {
        const fromLine = Math.abs((x + y) % 24 - 12) / Math.SQRT2;
        const line = Math.min(1, Math.max(0, 1.5 - fromLine));
        pixels.fill(255 * (0.66 + 0.16 * gray - 0.16 * line), first, first + 3);
        continue;
      }
      const part = Math.round(Math.min(1, strength[at]) * (palette.length - 1));
      const opacity = opacities[part], color = palette[part], dim = 255 * (0.05 + 0.34 * gray) * (1 - opacity);
      const shade = (0.62 + 0.38 * gray) * opacity;
      for (let channel = 0; channel < 3; channel++) pixels[first + channel] = dim + color[channel] * shade;
    }
  }
}

// ---- one checkpoint's card ------------------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function makeCard(model, answer, picture) {
  const longer = Math.max(answer.width, answer.height);
  const scale = Math.min(Math.max(longer, SMALLEST), LARGEST) / longer;
  const size = [answer.width, answer.height].map((length) => Math.max(1, Math.round(scale * length)));
  const canvas = make("canvas", { width: size[0], height: size[1] });
  canvas.setAttribute("role", "img");
  const [across, down] = [size[0] / answer.width, size[1] / answer.height];
  const box = model.box.map((edge, index) => edge * (index % 2 ? down : across));
  const bar = make("canvas", { width: 192, height: 10 });
  const most = make("span"), note = make("figcaption");
  const legend = make("div", { className: "scale" }, "0", bar, most);
  const card = { source: state.source, model, size, box, canvas, bar, most, note, legend, picture, lines: [], map: ATTENTION };
  const captions = make("div");
  for (const [search, found] of Object.entries(model.searches)) {
    const kind = captions.childElementCount ? "" : "log-probability"; // label the numbers once
    const heading = make("h3", {}, TITLES[search], make("span", { className: "soft", textContent: kind }));
    captions.append(heading, ...found.map((made) => makeLine(card, search, made)));
  }
  const header = make("header", {}, make("h2", { textContent: model.name }),
    make("span", { className: "soft", textContent: KINDS[model.attention] }));
  if (model.maps.includes(ATTENTION) && model.maps.length > 1) header.append(makeMaps(card));
  if (model.tags) captions.prepend(makeTags(model.tags));
  const left = make("div", { className: "seen" }, make("figure", {}, canvas, legend, note));
  card.element = make("section", { className: "model" }, header, left, captions);
  showPicture(card);
  return card;
}

/** Return the field that chooses the map of a word; the server computes other maps than attention on request. */
function makeMaps(card) {
  const options = card.model.maps.map((name) => make("option", { value: name, textContent: name.replaceAll("_", " ") }));
  const field = make("select", {}, ...options);
  field.addEventListener("change", () => changeMap(card, field.value));
  return make("label", { className: "soft maps", title: "Which map of a word to show" }, "Map ", field);
}

/** Compute a map of all captions of a card, unless it is known, and show it. */
async function changeMap(card, name) {
  card.wanted = name;
  const lines = card.lines.filter((line) => line.made.weights && line.made.words.length);
  if (lines.some((line) => !line.maps[name])) {
    const texts = lines.map(({ made }) => made.words.map((word, index) => made.gaps[index] + word).join(""));
    const query = new URLSearchParams({ model: card.model.name, map: name });
    if (card.source.example !== undefined) query.set("example", card.source.example);
    say("Computing maps …", "busy");
    try {
      const body = new Blob([`${JSON.stringify(texts)}\n`, ...(card.source.file ? [card.source.file] : [])]);
      const headers = { "Content-Type": "application/octet-stream" };
      const response = await fetch(`api/maps?${query}`, { method: "POST", body, headers });
      const answer = await response.json();
      if (!response.ok) return say(sentence(answer.error), "error");
      const read = lines.every((line, at) => answer.weights[at].length === line.made.words.length);
      if (!read) return say("These captions cannot be split into the same words again.", "error");
      lines.forEach((line, at) => (line.maps[name] = answer.weights[at]));
    } catch {
      return say("The demo did not answer. Check that it is still running.", "error");
    }
    if (!state.cards.includes(card)) return;
    say("");
  }
  if (card.wanted !== name) return; // another one was chosen meanwhile
  card.map = name;
  showPinned();
}

/** Return a line with the tags that guided the captions. */
function makeTags(tags) {
  const listed = tags.map((tag) => `${tag.noun} ${percent(tag.confidence)}`).join(", ") || "none";
  return make("p", { className: "tags soft", textContent: `Tags that guided the captions: ${listed}` });
}

function makeCredit(credit) {
  const link = (href, textContent) => make("a", { href, textContent, target: "_blank", rel: "noopener noreferrer" });
  return make("figcaption", {}, link(credit.license_url, credit.license), " · ", link(credit.source, "source"));
}

function makeLine(card, search, made) {
  const line = { card, search, made, words: [], maps: { [ATTENTION]: made.weights } };
  const text = make("p", { className: "caption" });
  made.words.forEach((word, index) => {
    const button = make("button", { type: "button", className: "word", textContent: word, disabled: !made.weights });
    button.addEventListener("pointerenter", () => show(line, index));
    button.addEventListener("pointerleave", showPinned);
    button.addEventListener("focus", () => show(line, index));
    button.addEventListener("blur", showPinned);
    button.addEventListener("click", () => pin(line, index));
    button.addEventListener("keydown", (event) => step(event, line, index));
    line.words.push(button);
    text.append(made.gaps[index], button);
  });
  if (!made.words.length) text.append(make("span", { className: "soft", textContent: "(empty caption)" }));
  card.lines.push(line);
  const chance = make("span", { className: "soft", textContent: made.log_prob.toFixed(1).replace("-", "−"), title: "log-probability" });
  return make("div", { className: "line" }, text, chance);
}

// ---- showing a word -------------------------------------------------------------------------------------------------

function showPicture(card) {
  const [width, height] = card.size;
  card.canvas.getContext("2d").drawImage(card.picture, 0, 0, width, height);
  card.canvas.setAttribute("aria-label", "The photo");
  card.legend.style.visibility = "hidden";
  const attends = card.lines.some((line) => line.made.weights);
  card.note.textContent = attends ? "Point at a word to see where the model looked."
    : "This model has no attention: it uses one vector for the complete image.";
}

function showWord(line, index) {
  const { card, made } = line, { canvas, size, box } = card;
  const map = line.maps[card.map], weights = map[index], grid = made.grid; // grid: [rows, columns]
  const most = Math.max(...map.flat()) || 1; // the same scale for all words of a caption
  const smooth = !find("cells").checked;
  const strength = attentionOver(weights, grid, box, size, smooth).map((value) => value / most);
  const pencil = canvas.getContext("2d", { willReadFrequently: true });
  pencil.drawImage(card.picture, 0, 0, ...size);
  const pixels = pencil.getImageData(0, 0, ...size);
  light(pixels.data, strength, box, size, state.about.palette);
  pencil.putImageData(pixels, 0, 0);
  const place = made.places && card.map === ATTENTION ? made.places[index] : null;
  if (place !== null && place < weights.length) mark(pencil, place, grid, box);
  card.note.textContent = card.map === ATTENTION ? describe(made, index, place)
    : `“${made.words[index]}”: ${percent(Math.max(...weights))} of the map “${card.map.replaceAll("_", " ")}” at the brightest location.`;
  canvas.setAttribute("aria-label", card.note.textContent);
  card.most.textContent = percent(most);
  card.legend.style.visibility = "visible";
}

function mark(pencil, place, [rows, columns], [left, top, right, bottom]) {
  const width = (right - left) / columns, height = (bottom - top) / rows;
  const corner = [left + (place % columns) * width, top + Math.floor(place / columns) * height];
  for (const [color, line] of [["#000", 5], ["#fff", 2.5]]) {
    Object.assign(pencil, { strokeStyle: color, lineWidth: line });
    pencil.strokeRect(...corner, width, height);
  }
}

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

function describe(made, index, place) {
  const weights = made.weights[index], sum = weights.reduce((total, weight) => total + weight, 0);
  const even = `Uniform attention would have ${percent(1 / weights.length)} at each of ${weights.length} locations`;
  const away = sum < 0.995 ? `, ${percent(1 - sum)} not on the image` : "";
  const word = [`“${made.words[index]}”`, made.tags[index]].filter(Boolean).join(" "); // "dog" ← tag dog 0.41
  if (place === weights.length) return `${word}: the model did not look at the image (${percent(1 - sum)} of its attention).`;
  if (place !== null) return `${word}: the model looked at the marked location (${percent(weights[place])} of its attention${away}). ${even}.`;
  return `${word}: ${percent(Math.max(...weights))} of the attention at the brightest location${away}. ${even}.`;
}

/** Find the same occurrence of the same word in the same kind of caption of another checkpoint; null if there is none. */
function counterpart(line, index, card) {
  if (card === line.card) return [line, index];
  const word = line.made.words[index];
  const before = line.made.words.slice(0, index).filter((other) => other === word).length;
  const other = card.lines.find((candidate) => candidate.search === line.search && candidate.made.weights);
  const positions = other ? other.made.words.flatMap((text, at) => (text === word ? [at] : [])) : [];
  return before < positions.length ? [other, positions[before]] : null;
}

function show(line, index) {
  if (!line.made.weights) return;
  for (const card of state.cards) {
    const found = counterpart(line, index, card);
    if (found) showWord(...found);
    else showPicture(card);
    for (const each of card.lines) {
      each.words.forEach((button, at) =>
        button.classList.toggle("shown", Boolean(found) && each === found[0] && at === found[1]));
    }
  }
}

function showPinned() {
  const focused = state.cards.flatMap((card) => card.lines).find((line) => line.words.includes(document.activeElement));
  if (state.pinned) return show(...state.pinned);
  if (focused && document.activeElement.matches(":focus-visible")) {
    return show(focused, focused.words.indexOf(document.activeElement));
  }
  for (const card of state.cards) {
    showPicture(card);
    for (const line of card.lines) line.words.forEach((button) => button.classList.remove("shown"));
  }
}

function pin(line, index) {
  const same = state.pinned && state.pinned[0] === line && state.pinned[1] === index;
  state.pinned = same ? null : [line, index];
  for (const card of state.cards) {
    for (const each of card.lines) {
      each.words.forEach((button, at) => button.setAttribute("aria-pressed", !same && each === line && at === index));
    }
  }
  show(line, index);
}

function step(event, line, index) {
  const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: line.words.length - 1 }[event.key];
  if (event.key === "Escape" && state.pinned) pin(...state.pinned);
  if (to === undefined || !line.words[to]) return;
  event.preventDefault();
  line.words[to].focus();
}

// ---- asking for captions --------------------------------------------------------------------------------------------

/** The demo's server. A page without one has its own `backend` (browser_captioner.js). */
const server = {
  lost: "The demo did not answer. Check that it is still running.",
  about: async () => (await fetch("api/about")).json(),
  example: (number) => `api/examples/${number}`,
  async captions(query, body, signal) {
    const headers = { "Content-Type": "application/octet-stream" };
    const response = await fetch(`api/captions?${query}`, { method: "POST", body, headers, signal });
    const answer = await response.json();
    if (!response.ok) throw Object.assign(new Error(answer.error), { told: true });
    return answer;
  },
};
const backend = window.backend ?? server;

function say(text, kind = "") {
  Object.assign(find("message"), { textContent: text, className: kind });
}

async function ask(source) {
  const fault = source.file && refuse(source.file);
  if (fault) return say(fault, "error");
  if (state.request) state.request.abort();
  const request = (state.request = new AbortController());
  state.source = source;
  for (const button of find("examples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.number === String(source.example)));
  }
  const valueOf = (field) => (field.type === "checkbox" ? Number(field.checked) : field.value);
  const query = new URLSearchParams(Object.keys(state.about.wishes).map((key) => [key, valueOf(find(key))]));
  if (source.example !== undefined) query.set("example", source.example);
  say("Captioning …", "busy");
  try {
    const answer = await backend.captions(query, source.file, request.signal);
    const picture = new Image();
    picture.src = answer.picture;
    await picture.decode();
    if (state.request === request) fill(answer, picture);
  } catch (error) {
    if (error.name !== "AbortError") say(error.told ? sentence(error.message) : backend.lost, "error");
  }
}

function refuse(file) {
  const most = state.about.limits.bytes;
  if (file.size > most) return `“${file.name}” has ${(file.size / 1e6).toFixed(1)} MB. The limit is ${most / 1e6} MB.`;
  if (file.type && !file.type.startsWith("image/")) return `“${file.name}” is not an image (${file.type}).`;
  return "";
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function fill(answer, picture) {
  state.pinned = null;
  state.cards = answer.models.map((model) => makeCard(model, answer, picture));
  find("models").replaceChildren(...state.cards.map((card) => card.element));
  find("models").classList.toggle("single", state.cards.length === 1);
  for (const card of state.cards) {
    const pencil = card.bar.getContext("2d");
    const ramp = pencil.createImageData(card.bar.width, 1);
    ramp.data.fill(160); // over medium gray
    const steps = Float32Array.from({ length: ramp.width }, (_, at) => at / (ramp.width - 1));
    light(ramp.data, steps, [0, 0, ramp.width, 1], [ramp.width, 1], state.about.palette);
    for (let at = 3; at < ramp.data.length; at += 4) ramp.data[at] = 255;
    for (let row = 0; row < card.bar.height; row++) pencil.putImageData(ramp, 0, row);
  }
  say("");
}

function listen() {
  const drop = find("drop"), file = find("file");
  file.addEventListener("change", () => {
    if (file.files[0]) ask({ file: file.files[0] });
    file.value = ""; // so that the same file can be chosen again
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => { // everywhere: otherwise a photo dropped next to the field would replace the page
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind !== "drop") return;
      if (event.dataTransfer.files[0]) ask({ file: event.dataTransfer.files[0] });
      else say("This is not a file. Drop a photo from your computer.", "error");
    });
  }
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files[0]) ask({ file: event.clipboardData.files[0] });
  });
  find("again").addEventListener("click", () => state.source && ask(state.source));
  find("tags").addEventListener("change", () => state.source && ask(state.source));
  find("cells").addEventListener("change", showPinned);
}

async function begin() {
  try {
    state.about = await backend.about();
  } catch (error) {
    return say(error.told ? sentence(error.message) : backend.lost, "error");
  }
  for (const [key, { least, most, value }] of Object.entries(state.about.wishes)) {
    const field = find(key);
    Object.assign(field, field.type === "checkbox" ? { checked: value === 1 } : { min: least, max: most, value });
  }
  for (const key of ["samples", "temperature"]) find(key).closest("label").hidden = !(key in state.about.wishes);
  find("guided").hidden = !state.about.models.some((model) => model.guided);
  const { bytes, pixels } = state.about.limits;
  find("limits").textContent = `up to ${bytes / 1e6} MB and ${pixels / 1e6} million pixels`;
  for (let number = 0; number < state.about.examples; number++) {
    const image = make("img", { src: backend.example(number), alt: `Example ${number + 1}`, loading: "lazy" });
    const button = make("button", { type: "button" }, image);
    button.dataset.number = number;
    button.addEventListener("click", () => ask({ example: number }));
    const credit = state.about.credits[number];
    find("examples").append(make("figure", {}, button, ...(credit ? [makeCredit(credit)] : [])));
  }
  listen();
  if (state.about.examples) ask({ example: 0 });
}

begin();
