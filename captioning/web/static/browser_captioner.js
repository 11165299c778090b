"use strict";
// Caption photos in the browser with the files of `captioning-export format=onnx` and onnxruntime-web, and answer the
// page as the demo's server would. Nothing leaves the browser.

const BEST = 3; // captions of beam search on the page

class BrowserCaptioner {
  /** Load the files of one captioner. */
  static async load(ort, address) {
    const about = await (await fetched(`${address}/captioner.json`)).json();
    const sessions = {};
    for (const part of ["encoder", "begin", "step"]) {
      const content = await (await fetched(`${address}/${part}.onnx`)).arrayBuffer();
      sessions[part] = await ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
    }
    return Object.assign(new BrowserCaptioner(), { ort, about, sessions });
  }

  /** Return the features of a photo. */
  async encode(image) {
    const inputs = {};
    for (const input of this.about.images) {
      const [width, height] = sidesOf(input);
      inputs[input.name] = new this.ort.Tensor("uint8", encoderInput(image, input), [1, 3, height, width]);
    }
    return (await this.sessions.encoder.run(inputs)).features;
  }

  /** Return the best captions by beam search, best first: {ids, logProb, score, weights, places}; one beam is greedy. */
  async search(features, beams, best = 1) {
    const { decoding, tokens: special, state: parts, memory: shared, vocabulary } = this.about;
    const { length_normalization: exponent, max_length: longest } = decoding, words = vocabulary.length;
    const divided = (logProb, length) => Math.fround(logProb / Math.fround(length ** exponent));
    const begun = await this.sessions.begin.run({ features });
    const inputs = Object.fromEntries([...parts, ...shared].map(({ name }) => [name, begun[name]]));
    const never = [special.pad, special.start, special.unknown], unfinished = this.unfinished();
    let rows = [{ ids: [], weights: [], places: [], logProb: 0 }], tokens = [special.start], room = beams, length = 0;
    const finished = [];
    while (length < longest) {
      length++;
      inputs.token = new this.ort.Tensor("int64", BigInt64Array.from(tokens, BigInt), [1, tokens.length]);
      const step = await this.sessions.step.run(inputs), scores = step.log_probs.data;
      rows.forEach((row, at) => {
        for (const word of never) scores[at * words + word] = -Infinity;
        if (unfinished.has(tokens[at])) scores[at * words + special.end] = -Infinity;
        if (length === longest) for (const word of unfinished) scores[at * words + word] = -Infinity;
        for (let word = 0; word < words; word++) scores[at * words + word] = Math.fround(row.logProb + scores[at * words + word]);
      });
      const found = largest(scores, room).map((at) => {
        const parent = Math.floor(at / words), row = rows[parent], word = at % words;
        const places = step.places ? [...row.places, Number(step.places.data[parent])] : [];
        const weights = step.weights ? [...row.weights, part(step.weights, parent, rows.length)] : [];
        return { ids: [...row.ids, word], weights, places, parent, word, logProb: scores[at] };
      });
      const ended = found.filter(({ word }) => word === special.end);
      finished.push(...ended.map((each) => ({ ...each, score: divided(each.logProb, length) })));
      finished.sort((one, other) => other.score - one.score);
      room -= ended.length;
      rows = found.filter(({ word }) => word !== special.end);
      if (!rows.length) break;
      tokens = rows.map(({ word }) => word);
      const hope = divided(Math.max(...rows.map(({ logProb }) => logProb)), longest);
      if (finished.length >= best && hope <= finished[best - 1].score) break;
      for (const { name, next, axes } of parts) {
        inputs[name] = this.selected(step[next], axes.indexOf("beams"), rows.map(({ parent }) => parent));
      }
    }
    const cut = rows.map((row) => ({ ...row, score: divided(row.logProb, length) }));
    const results = finished.length ? finished : cut.sort((one, other) => other.score - one.score);
    return results.slice(0, best);
  }

  /** Return the ids of pieces that the next piece continues. */
  unfinished() {
    const { text: { continued }, vocabulary } = this.about;
    return new Set(continued ? vocabulary.flatMap((word, id) => (word.endsWith(continued) ? [id] : [])) : []);
  }

  /** Select rows of a tensor along an axis. */
  selected(tensor, axis, rows) {
    const count = tensor.dims[axis], inner = product(tensor.dims.slice(axis + 1)), outer = product(tensor.dims.slice(0, axis));
    const data = new tensor.data.constructor(outer * rows.length * inner);
    for (let at = 0; at < outer; at++) {
      rows.forEach((row, index) => {
        const first = (at * count + row) * inner;
        data.set(tensor.data.subarray(first, first + inner), (at * rows.length + index) * inner);
      });
    }
    return new this.ort.Tensor(tensor.type, data, [...tensor.dims.slice(0, axis), rows.length, ...tensor.dims.slice(axis + 1)]);
  }

  /** Return a found caption as the page shows it: words, what stands before each, and the maps of the words. */
  shown({ ids, weights, places, logProb }) {
    const { tokens: special, vocabulary, text, attention } = this.about, unfinished = this.unfinished();
    const groups = [];
    ids.filter((id) => id !== special.end).forEach((id, index) => {
      if (index && unfinished.has(ids[index - 1])) groups.at(-1).push(index);
      else groups.push([index]);
    });
    const bare = (id) => (text.continued && vocabulary[id].endsWith(text.continued) ? vocabulary[id].slice(0, -text.continued.length) : vocabulary[id]);
    const written = groups.map((group) => group.map((index) => bare(ids[index])).join(""));
    const words = written.map((word) => text.replaced[word] ?? word);
    const unspaced = new Set(text.unspaced), isUnspaced = (word) => [...word].some((sign) => unspaced.has(sign));
    const gaps = written.map((word, at) => (!at || (isUnspaced(written[at - 1]) && isUnspaced(word)) ? "" : text.space));
    const maps = weights.length && groups.map((group) => mean(group.map((index) => weights[index])).slice(0, weights[0].length - attention.tags));
    const chosen = places.length ? groups.map((group) => Math.min(places[group[0]], maps[0].length)) : null;
    return { words, gaps, log_prob: logProb, weights: maps || null, grid: attention.grid, places: chosen, tags: words.map(() => "") };
  }

  /** Caption a photo: the answer of the demo's server about one model. */
  async answer(name, image, beams) {
    const features = await this.encode(image), searches = {};
    searches.greedy = (await this.search(features, 1)).map((each) => this.shown(each));
    searches.beam = (await this.search(features, beams, Math.min(BEST, beams))).map((each) => this.shown(each));
    const box = seenBox(image.width, image.height, this.about.images[0]);
    return { name, attention: this.about.attention.kind, box, searches, tags: null };
  }
}

const product = (sizes) => sizes.reduce((total, size) => total * size, 1);
const mean = (rows) => rows[0].map((_, at) => rows.reduce((sum, row) => sum + row[at], 0) / rows.length);

/** Return one row of a tensor [1, rows, length]. */
function part(tensor, row, rows) {
  const length = tensor.data.length / rows;
  return Array.from(tensor.data.subarray(row * length, (row + 1) * length));
}

/** Return the indices of the largest finite numbers, largest first; of equal ones, the first. */
function largest(numbers, count) {
  const found = [];
  for (let at = 0; at < numbers.length; at++) {
    if (numbers[at] === -Infinity || (found.length === count && numbers[at] <= numbers[found.at(-1)])) continue;
    let place = found.length;
    while (place && numbers[found[place - 1]] < numbers[at]) place--;
    found.splice(place, 0, at);
    if (found.length > count) found.pop();
  }
  return found;
}

async function fetched(address) {
  const response = await fetch(address);
  if (!response.ok) throw told(`${address} is missing on this host: copy the complete folder`);
  return response;
}

/** Return an error whose text is for the reader of the page. */
const told = (text) => Object.assign(new Error(text), { told: true });

/** What `demo.js` asks instead of a server. */
const inBrowser = {
  lost: "The photo could not be captioned in this browser.",
  captioners: null,
  about: async () => (inBrowser.page = await (await fetched("about.json")).json()),
  example: (number) => `examples/${number}.jpg`,
  async load() {
    let ort;
    try {
      ort = await import(new URL("ort/ort.wasm.min.mjs", document.baseURI));
    } catch {
      throw told("the folder ort/ has no onnxruntime-web: see README.txt");
    }
    ort.env.wasm.wasmPaths = new URL("ort/", document.baseURI).href;
    ort.env.wasm.numThreads = 1; // more would need headers that most static hosts do not send
    const found = [];
    for (const { name, folder } of inBrowser.page.models) found.push([name, await BrowserCaptioner.load(ort, folder)]);
    return found;
  },
  async captions(query, file, signal) {
    if (query.has("example")) file = await (await fetched(inBrowser.example(query.get("example")))).blob();
    let image;
    try {
      image = await photoPixels(file);
    } catch {
      throw told("this browser cannot open the file as an image: choose another file");
    }
    if (image.width * image.height > inBrowser.page.limits.pixels) throw told("the image is too large: shrink it");
    inBrowser.captioners ??= inBrowser.load();
    inBrowser.captioners.catch(() => (inBrowser.captioners = null)); // so that the next photo tries again
    const models = [];
    for (const [name, captioner] of await inBrowser.captioners) {
      signal.throwIfAborted();
      models.push(await captioner.answer(name, image, Number(query.get("beam_size"))));
    }
    return { width: image.width, height: image.height, picture: URL.createObjectURL(file), models };
  },
};
window.backend = inBrowser; // before demo.js runs
