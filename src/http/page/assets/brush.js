// A brush that paints classes over a photograph, one value for each pixel.

import { COLORS, pointAt, shape } from "./draw.js";
import { say } from "./messages.js";

/** Values of pixels that are left out of the training, and of those that no brush has touched. */
export const [IGNORED, UNPAINTED] = [255, 254];
/** Strokes that can be undone. */
const UNDONE = 30;
/** Largest radius, as a share of the photograph's longer side. */
const LARGEST = 0.15;
/** Side of the squares that pixels left out are drawn with. */
const SQUARE = 6;

/** The color of a class as red, green and blue; the background is black. */
function bytesOf(label) {
  if (label === 0) return [0, 0, 0];
  const value = parseInt(COLORS[(label - 1) % COLORS.length].slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** A mask that is being painted. */
export class Painting {
  /** What was there before each stroke: `{left, top, width, height, labels}`. */
  strokes = [];

  constructor(width, height) {
    Object.assign(this, { width, height, labels: new Uint8Array(width * height).fill(UNPAINTED) });
  }

  get isPainted() {
    return this.labels.some((label) => label !== UNPAINTED);
  }

  /** The classes of the pixels; `rest` is that of pixels that are not painted. */
  mask(rest) {
    return this.labels.map((label) => (label === UNPAINTED ? rest : label));
  }

  /** Copies a part of the labels. */
  #crop(labels, { left, top, width, height }) {
    const part = new Uint8Array(width * height);
    for (let row = 0; row < height; row++) {
      const from = (top + row) * this.width + left;
      part.set(labels.subarray(from, from + width), row * width);
    }
    return part;
  }

  /** Remembers a stroke that changed a part of the labels `before`. */
  remember(before, part) {
    this.strokes.push({ ...part, labels: this.#crop(before, part) });
    if (this.strokes.length > UNDONE) this.strokes.shift();
  }

  /** Takes back the last stroke; returns the part that changed, or null. */
  undo() {
    const stroke = this.strokes.pop();
    if (!stroke) return null;
    const { left, top, width, height, labels } = stroke;
    for (let row = 0; row < height; row++) {
      this.labels.set(labels.subarray(row * width, (row + 1) * width), (top + row) * this.width + left);
    }
    return stroke;
  }

  /** Gives `label` to the pixels within `radius` of a line. Returns the part that may have changed, or null. */
  line([fromX, fromY], [toX, toY], radius, label) {
    const left = Math.max(Math.floor(Math.min(fromX, toX) - radius), 0);
    const top = Math.max(Math.floor(Math.min(fromY, toY) - radius), 0);
    const right = Math.min(Math.ceil(Math.max(fromX, toX) + radius), this.width);
    const bottom = Math.min(Math.ceil(Math.max(fromY, toY) + radius), this.height);
    if (right <= left || bottom <= top) return null;
    const [dx, dy] = [toX - fromX, toY - fromY];
    const length = dx * dx + dy * dy || 1;
    for (let row = top; row < bottom; row++) {
      for (let column = left; column < right; column++) {
        const [x, y] = [column + 0.5 - fromX, row + 0.5 - fromY];
        const share = Math.min(Math.max((x * dx + y * dy) / length, 0), 1);
        const [awayX, awayY] = [x - share * dx, y - share * dy];
        if (awayX * awayX + awayY * awayY <= radius * radius) this.labels[row * this.width + column] = label;
      }
    }
    return { left, top, width: right - left, height: bottom - top };
  }
}

/** The smallest part that has both. */
function union(one, other) {
  if (!one || !other) return one ?? other;
  const [left, top] = [Math.min(one.left, other.left), Math.min(one.top, other.top)];
  const width = Math.max(one.left + one.width, other.left + other.width) - left;
  return { left, top, width, height: Math.max(one.top + one.height, other.top + other.height) - top };
}

export class Brush {
  label = 1;
  painting = null;
  /** Radius in pixels of the photograph. */
  radius = 10;
  /** The stroke that is being painted: `{before, part, last}`. */
  #stroke = null;
  #cursor = [0, 0];

  /** `canvas` lies over the photograph. `changed` is called after a stroke, `resized` after the radius changed. */
  constructor(canvas, { changed, resized }) {
    Object.assign(this, { canvas, changed, resized });
    this.circles = ["#000", "#fff"].map((stroke, index) => shape("circle", { fill: "none", stroke, "stroke-width": 3 - 1.5 * index }));
    this.ring = shape("svg", { "aria-hidden": "true" }, ...this.circles);
    canvas.after(this.ring);
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, () => this.#end());
    canvas.addEventListener("pointerleave", () => this.#showRing(false));
    canvas.addEventListener("blur", () => this.#showRing(false));
    canvas.addEventListener("keydown", (event) => this.#step(event));
  }

  /** Paints on `painting` from now on. */
  open(painting) {
    this.#stroke = null;
    const { width, height } = painting;
    this.painting = painting;
    this.#cursor = [width / 2, height / 2];
    Object.assign(this.canvas, { width, height });
    this.ring.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.largest = Math.max(width, height) * LARGEST;
    this.resize(this.largest / 5);
    this.#showRing(false);
    this.#draw({ left: 0, top: 0, width, height });
  }

  resize(radius) {
    this.radius = Math.min(Math.max(radius, 1), this.largest);
    for (const circle of this.circles) circle.setAttribute("r", this.radius);
    this.resized();
  }

  undo() {
    const part = this.painting.undo();
    if (!part) return;
    this.#draw(part);
    this.changed();
  }

  /** Takes all paint away, which can be undone. */
  clear() {
    const { width, height, labels } = this.painting;
    const part = { left: 0, top: 0, width, height };
    this.painting.remember(labels, part);
    labels.fill(UNPAINTED);
    this.#draw(part);
    this.changed();
  }

  #begin(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.#stroke = { before: this.painting.labels.slice(), part: null, last: null };
    this.#to(pointAt(this.canvas, event));
  }

  #move(event) {
    if (!event.isPrimary) return;
    this.#moveRing(pointAt(this.canvas, event));
    if (!this.#stroke) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length > 0 ? events : [event]) this.#to(pointAt(this.canvas, each));
  }

  /** Continues the stroke to a point. */
  #to(point) {
    const part = this.painting.line(this.#stroke.last ?? point, point, this.radius, this.label);
    this.#stroke.last = point;
    this.#stroke.part = union(this.#stroke.part, part);
    if (part) this.#draw(part);
  }

  #end() {
    if (!this.#stroke) return;
    const { before, part } = this.#stroke;
    this.#stroke = null;
    if (!part) return;
    this.painting.remember(before, part);
    this.changed();
  }

  /** Moves the brush by the arrow keys, and paints with Space or Enter; with Shift an arrow key paints on its way. */
  #step(event) {
    const move = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    const paints = event.key === " " || event.key === "Enter";
    if (!move && !paints) return;
    event.preventDefault();
    const sides = [this.painting.width, this.painting.height];
    const from = this.#cursor;
    if (move) this.#moveRing(from.map((place, axis) => Math.min(Math.max(place + move[axis] * this.radius, 0), sides[axis])));
    else this.#showRing(true);
    if (paints || event.shiftKey) {
      this.#stroke = { before: this.painting.labels.slice(), part: null, last: from };
      this.#to(this.#cursor);
      this.#end();
    }
    say(`${this.#cursor.map(Math.round).join(", ")}${paints || event.shiftKey ? ": painted." : ""}`);
  }

  #moveRing(point) {
    this.#cursor = point;
    for (const circle of this.circles) {
      circle.setAttribute("cx", point[0]);
      circle.setAttribute("cy", point[1]);
    }
    this.#showRing(true);
  }

  #showRing(isShown) {
    this.ring.classList.toggle("away", !isShown);
  }

  #draw({ left, top, width, height }) {
    const pixels = new ImageData(width, height);
    const words = new Uint32Array(pixels.data.buffer);
    const { labels, width: row } = this.painting;
    const shades = [[90, 90, 90, 255], [220, 220, 220, 255]].map(word);
    const table = Uint32Array.from({ length: UNPAINTED }, (_, label) => word([...bytesOf(label), 255]));
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const label = labels[(top + y) * row + left + x];
        const square = (Math.floor((left + x) / SQUARE) + Math.floor((top + y) / SQUARE)) % 2;
        words[y * width + x] = label === UNPAINTED ? 0 : label === IGNORED ? shades[square] : table[label];
      }
    }
    this.canvas.getContext("2d").putImageData(pixels, left, top);
  }
}

/** Four bytes as the word that pixels are written with. */
function word(bytes) {
  return new Uint32Array(Uint8Array.from(bytes).buffer)[0];
}
