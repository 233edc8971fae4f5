// Draws patch maps on canvases, and shapes over them.

/** Longer side of a photograph that is drawn whole, in pixels. */
const SHARPEST = 1600;

// Viridis at seventeen even steps; colors in between are interpolated.
const VIRIDIS = [
  [68, 1, 84], [72, 20, 103], [71, 39, 119], [64, 56, 130], [57, 73, 138], [49, 89, 141], [42, 104, 142], [36, 119, 142], [31, 134, 141],
  [31, 149, 138], [41, 163, 132], [65, 177, 121], [98, 190, 105], [134, 201, 86], [173, 209, 65], [216, 215, 44], [253, 231, 37],
];

/** The colors of the server's pictures, of the first object or class first. */
export const COLORS = ["#e63232", "#28a0fa", "#fabe1e", "#3cbe50", "#aa50e6", "#fa821e", "#1ec8c8", "#f05aaa", "#966e3c", "#a0c828"];

function viridis(value) {
  const place = Math.min(Math.max(value, 0), 1) * (VIRIDIS.length - 1);
  const below = Math.min(Math.floor(place), VIRIDIS.length - 2);
  return VIRIDIS[below].map((from, channel) => from + (VIRIDIS[below + 1][channel] - from) * (place - below));
}

/** Returns a canvas with one pixel per patch; `color` returns the three bytes of patch `index`, or four with its opacity. */
function patches([height, width], color) {
  const small = new OffscreenCanvas(width, height);
  const pixels = new ImageData(width, height);
  for (let index = 0; index < width * height; index++) {
    const [red, green, blue, alpha = 255] = color(index);
    pixels.data.set([red, green, blue, alpha], index * 4);
  }
  small.getContext("2d").putImageData(pixels, 0, 0);
  return small;
}

/** Values of patches, scaled from their own range, or from `range`, in the colors of viridis. With `fades` the lower a value, the more transparent it is. */
export function heat(grid, values, range, fades = false) {
  const [low, high] = range ?? rangeOf(values);
  const width = high > low ? high - low : 1;
  return patches(grid, (index) => {
    const value = (values[index] - low) / width;
    return fades ? [...viridis(value), 255 * Math.min(1, value * 1.25)] : viridis(value);
  });
}

/** Three values in 0 to 1 for each patch as red, green and blue. */
export function colors(grid, rows) {
  const [, width] = grid;
  return patches(grid, (index) => rows[Math.floor(index / width)][index % width].map((value) => value * 255));
}

export function rangeOf(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

/** Keeps the patches that carry the share `mass` of a map and sets the others to 0, like the server's `threshold`. */
export function keepMass(values, mass) {
  const total = values.reduce((sum, value) => sum + value, 0);
  const order = values.map((_, index) => index).sort((a, b) => values[a] - values[b]);
  const kept = [...values];
  let sum = 0;
  for (const index of order) {
    sum += values[index] / total;
    if (sum <= 1 - mass) kept[index] = 0;
  }
  return kept;
}

/**
 * Returns the part of a picture that the model saw: with `resize=fit` the shorter side becomes `size`, then each side is cropped
 * in the middle to whole patches.
 */
export function seenPart(picture, [rows, columns], size, patchSize) {
  const scale = size / Math.min(picture.width, picture.height);
  const [width, height] = [(columns * patchSize) / scale, (rows * patchSize) / scale];
  return [(picture.width - width) / 2, (picture.height - height) / 2, width, height];
}

/**
 * Draws a whole photograph, at most `SHARPEST` pixels wide and high. `answer` states its size, and what the model saw: that is all
 * that a picture drawn by the server has.
 */
export function paintWhole(canvas, picture, answer, patchSize) {
  const { width, height, grid, size } = answer;
  const scale = Math.min(1, SHARPEST / Math.max(width, height));
  Object.assign(canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
  const isWhole = picture.width === width && picture.height === height;
  const place = isWhole ? [0, 0, width, height] : seenPart(answer, grid, size, patchSize);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, ...place.map((side) => side * scale));
}

/** Draws a picture as the model saw it, with a map over it and a frame around a patch. */
export function paint(canvas, { picture, grid, size, patchSize, map, opacity = 1, frame }) {
  const [rows, columns] = grid;
  const [width, height] = [columns * patchSize, rows * patchSize];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.clearRect(0, 0, width, height);
  if (picture) context.drawImage(picture, ...seenPart(picture, grid, size, patchSize), 0, 0, width, height);
  if (map) {
    context.globalAlpha = opacity;
    context.drawImage(map, 0, 0, width, height);
    context.globalAlpha = 1;
  }
  if (frame) {
    const [row, column] = frame;
    for (const [color, line] of [["rgb(0 0 0 / 80%)", 5], ["#fff", 2.5]]) {
      Object.assign(context, { strokeStyle: color, lineWidth: line });
      context.strokeRect(column * patchSize, row * patchSize, patchSize, patchSize);
    }
  }
}

/** The point of a canvas under a pointer, in its pixels. */
export function pointAt(canvas, { clientX, clientY }) {
  // The picture keeps its aspect ratio inside the element.
  const box = canvas.getBoundingClientRect();
  const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
  const left = box.left + (box.width - canvas.width * scale) / 2;
  const top = box.top + (box.height - canvas.height * scale) / 2;
  return [(clientX - left) / scale, (clientY - top) / scale];
}

/** The patch under a pointer, as row and column; null next to the picture. */
export function patchAt(canvas, [rows, columns], event) {
  const [x, y] = pointAt(canvas, event);
  const [row, column] = [(y / canvas.height) * rows, (x / canvas.width) * columns];
  const isInside = row >= 0 && row < rows && column >= 0 && column < columns;
  return isInside ? [Math.floor(row), Math.floor(column)] : null;
}

/** Outlines as the path of an SVG. */
export function pathOf(polygons) {
  return polygons.map((points) => `M${points.map((point) => point.join(" ")).join("L")}Z`).join("");
}

/** An SVG element with attributes and children. */
export function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
