"use strict";
// Resize photos as the package does with Pillow, to the last bit: the encoder must see the same pixels. A browser's own
// drawImage uses other kernels, which change captions.

const BITS = 22; // of a weight after the point, so that a sum of 8-bit values fits into 32 bits
const SUPPORTS = { bilinear: 1, bicubic: 2, lanczos: 3 }; // half widths of the kernels

/** Return the value of a kernel at x. */
function kernelAt(name, x) {
  x = Math.abs(x);
  if (x >= SUPPORTS[name]) return 0;
  if (name === "bilinear") return 1 - x;
  if (name === "bicubic") return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : (((x - 5) * x + 8) * x - 4) * -0.5;
  const sinc = (t) => (t === 0 ? 1 : Math.sin(t * Math.PI) / (t * Math.PI));
  return sinc(x) * sinc(x / 3);
}

/** Return for each wanted pixel its first source pixel and the integer weights of the pixels from there on. */
function kernelWeights(size, start, end, wanted, name) {
  const scale = Math.fround(end - start) / wanted, wide = Math.max(scale, 1), support = SUPPORTS[name] * wide;
  return Array.from({ length: wanted }, (_, pixel) => {
    const center = start + (pixel + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const last = Math.min(size, Math.trunc(center + support + 0.5));
    const weights = [];
    for (let at = first; at < last; at++) weights.push(kernelAt(name, (at - center + 0.5) * (1 / wide)));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return [first, weights.map((weight) => {
      const scaled = (sum ? weight / sum : weight) * 2 ** BITS;
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    })];
  });
}

const clipped = (sum) => Math.min(255, Math.max(0, Math.floor(sum / 2 ** BITS)));

/** Return an image with another width, of a region from left to right; an image is {width, height, data}, 3 bytes per pixel. */
function resizedAcross(image, width, left, right, name) {
  if (left === 0 && right === image.width && width === image.width) return image;
  const { height } = image, data = new Uint8Array(3 * width * height);
  const weighted = kernelWeights(image.width, left, right, width, name);
  for (let y = 0; y < height; y++) {
    weighted.forEach(([first, weights], x) => {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 2 ** (BITS - 1), from = 3 * (y * image.width + first) + channel;
        for (let at = 0; at < weights.length; at++, from += 3) sum += weights[at] * image.data[from];
        data[3 * (y * width + x) + channel] = clipped(sum);
      }
    });
  }
  return { width, height, data };
}

/** Return an image with another height, of a region from top to bottom. */
function resizedDown(image, height, top, bottom, name) {
  if (top === 0 && bottom === image.height && height === image.height) return image;
  const { width } = image, row = 3 * width, data = new Uint8Array(row * height);
  kernelWeights(image.height, top, bottom, height, name).forEach(([first, weights], y) => {
    for (let x = 0; x < row; x++) {
      let sum = 2 ** (BITS - 1);
      for (let at = 0; at < weights.length; at++) sum += weights[at] * image.data[(first + at) * row + x];
      data[y * row + x] = clipped(sum);
    }
  });
  return { width, height, data };
}

/**
 * Resize a region of an image with antialiasing, as Pillow's `Image.resize(size, method, box)`: first across, then down;
 * Pillow 13 shrinks a tall image first down, then across.
 */
function resized(image, [width, height], box, name) {
  const [left, top, right, bottom] = box.map(Math.fround);
  if (image.height - height > Math.max(0, 2 * (image.width - width))) {
    return resizedAcross(resizedDown(image, height, top, bottom, name), width, left, right, name);
  }
  return resizedDown(resizedAcross(image, width, left, right, name), height, top, bottom, name);
}

// ---- the transforms of captioner.json -------------------------------------------------------------------------------

/** Round as Python does: halves to the even number. */
function rounded(x) {
  const below = Math.floor(x);
  return x - below === 0.5 ? below + (below % 2) : Math.round(x);
}

const sidesOf = ({ size }) => (typeof size === "number" ? [size, size] : [size[1], size[0]]); // width, height

/** Return for fit=pad the size of the photo within the encoder's input, and its corner. */
function padded(width, height, input) {
  const [across, down] = sidesOf(input), scale = Math.min(across / width, down / height);
  const inner = [width, height].map((side) => Math.max(1, rounded(side * scale)));
  return [inner, [across, down].map((side, axis) => Math.floor((side - inner[axis]) / 2))];
}

/** Return the region of a photo that the encoder sees: [left, top, right, bottom]. */
function seenBox(width, height, input) {
  const [across, down] = sidesOf(input);
  if (input.fit === "squash") return [0, 0, width, height];
  if (input.fit === "crop") {
    const short = Math.min(across, down), covered = Math.min((width * short) / across, (height * short) / down);
    const x = (across * covered) / input.resize, y = (down * covered) / input.resize;
    return [(width - x) / 2, (height - y) / 2, (width + x) / 2, (height + y) / 2];
  }
  const [inner, [left, top]] = padded(width, height, input), x = width / inner[0], y = height / inner[1];
  return [-left * x, -top * y, (across - left) * x, (down - top) * y];
}

/** Return the encoder's input for an image: bytes, channel by channel, 3 × height × width. */
function encoderInput(image, input) {
  const [width, height] = sidesOf(input), planes = new Uint8Array(3 * width * height);
  let seen, corner = [0, 0];
  if (input.fit === "pad") {
    const [inner, at] = padded(image.width, image.height, input);
    seen = resized(image, inner, [0, 0, image.width, image.height], input.interpolation);
    corner = at;
    planes.fill(127);
  } else seen = resized(image, [width, height], seenBox(image.width, image.height, input), input.interpolation);
  for (let y = 0; y < seen.height; y++) {
    for (let x = 0; x < seen.width; x++) {
      const column = input.mirror ? width - 1 - (corner[0] + x) : corner[0] + x;
      for (let channel = 0; channel < 3; channel++) {
        planes[(channel * height + corner[1] + y) * width + column] = seen.data[3 * (y * seen.width + x) + channel];
      }
    }
  }
  return planes;
}

/** Decode a photo: upright, over white, without the monitor's colors. */
async function photoPixels(blob) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(blob, options);
  const { width, height } = bitmap;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const pencil = canvas.getContext("2d", { willReadFrequently: true });
  pencil.fillStyle = "#fff";
  pencil.fillRect(0, 0, width, height);
  pencil.drawImage(bitmap, 0, 0);
  bitmap.close();
  const four = pencil.getImageData(0, 0, width, height).data, data = new Uint8Array(3 * width * height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let channel = 0; channel < 3; channel++) data[3 * pixel + channel] = four[4 * pixel + channel];
  }
  return { width, height, data };
}
