// Points on a canvas: 100,000 of them, drawn pixel by pixel, to move, zoom and select.

/** Pixels of the screen within which a point is under the pointer. */
const REACH = 10;
/** Number of points in view up to which their pictures are drawn, if they do not lie too close. */
const PICTURES = 80;
/** Number of pictures that are asked for at the same time. */
const AT_ONCE = 4;
/** Side of a picture, in pixels of the screen. */
const SIDE = 56;
const ZOOM = 1.25;
/** Smallest and largest number of pixels for a unit of the map. */
const SCALES = [0.01, 1e6];

export class Chart {
  /** Positions, `[x, y]` each. */
  points = [];
  /** Color of each point, as 0xAABBGGRR. */
  colors = new Uint32Array();
  /** Whether each point is drawn, and is selected. */
  visible = new Uint8Array();
  selected = new Uint8Array();
  /** Whether a drag selects. */
  lassoing = false;
  #view = { x: 0, y: 0, scale: 1 };
  #lasso = null;
  /** Pointers that are down, with their places: one moves the view or draws, two zoom. */
  #down = new Map();
  #began = null;
  #hovering = null;
  #pixels = null;
  #pictures = new Map();
  #asked = 0;
  #pending = false;
  #showsPictures = false;
  /** Whether the view is that of all points. */
  #isWhole = true;

  /** `picture` returns a promise of the picture of a point; `hovered` gets the point under the pointer, or -1, and `changed` is called after a selection. */
  constructor(canvas, { picture, hovered, changed }) {
    Object.assign(this, { canvas, picture, hovered, changed });
    new ResizeObserver(() => this.#resize()).observe(canvas);
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.hovered(-1);
      // Lines and pages of a wheel, and the many small steps of a trackpad.
      const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
      this.zoom(Math.exp(-Math.max(-300, Math.min(300, pixels)) / 400), this.#at(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#end(event));
    canvas.addEventListener("pointercancel", ({ pointerId }) => {
      this.#down.delete(pointerId);
      this.#lasso = null;
      this.draw();
    });
    canvas.addEventListener("pointerleave", () => this.#hover(null));
    canvas.addEventListener("keydown", (event) => this.#press(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Shows other points, all of them or in the same view as before. */
  show(points, colors, keepsView = false) {
    Object.assign(this, { points, colors });
    this.visible = new Uint8Array(points.length).fill(1);
    this.selected = new Uint8Array(points.length);
    for (const picture of this.#pictures.values()) picture?.close();
    // Those that are asked for belong to the points before.
    this.#pictures = new Map();
    this.#asked = 0;
    this.hovered(-1);
    if (keepsView) this.draw();
    else this.fit();
  }

  /** Moves the view to all visible points. */
  fit() {
    const [low, high] = bounds(this.points.filter((_, index) => this.visible[index]));
    const { width, height } = this.canvas;
    // There may be none.
    const middle = (axis) => (low[axis] <= high[axis] ? (low[axis] + high[axis]) / 2 : 0);
    const size = (axis) => Math.max(high[axis] - low[axis], 1e-3);
    this.#view = { x: middle(0), y: middle(1), scale: Math.min(0.92 * width / size(0), 0.92 * height / size(1)) };
    this.#isWhole = true;
    this.draw();
  }

  /** Zooms around a place of the canvas. */
  zoom(factor, [x, y] = [this.canvas.width / 2, this.canvas.height / 2]) {
    const { width, height } = this.canvas;
    const view = this.#view;
    factor = Math.max(SCALES[0], Math.min(SCALES[1], view.scale * factor)) / view.scale;
    view.x += (x - width / 2) / view.scale * (1 - 1 / factor);
    view.y += (y - height / 2) / view.scale * (1 - 1 / factor);
    view.scale *= factor;
    this.#isWhole = false;
    this.draw();
  }

  /** Moves the view by pixels of the canvas. */
  pan(x, y) {
    this.#view.x -= x / this.#view.scale;
    this.#view.y -= y / this.#view.scale;
    this.#isWhole = false;
    this.draw();
  }

  /** Draws at the next frame. */
  draw() {
    if (this.#pending) return;
    this.#pending = true;
    requestAnimationFrame(() => {
      this.#pending = false;
      if (this.canvas.width > 0 && this.canvas.height > 0) this.#draw();
    });
  }

  /** The place of a point on the canvas. */
  place(index) {
    const { x, y, scale } = this.#view;
    return [(this.points[index][0] - x) * scale + this.canvas.width / 2, (this.points[index][1] - y) * scale + this.canvas.height / 2];
  }

  #draw() {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    if (this.#pixels?.width !== width || this.#pixels?.height !== height) this.#pixels = context.createImageData(width, height);
    const pixels = new Uint32Array(this.#pixels.data.buffer);
    pixels.fill(0);
    const { x, y, scale } = this.#view;
    // Few points are large, and points grow when the view comes near.
    const count = this.visible.reduce((sum, one) => sum + one, 0) || 1;
    const share = Math.sqrt((0.05 * width * height) / count) / 2 + Math.log2(Math.max(1, scale / 60));
    const radius = Math.max(1, Math.min(5, Math.round(share)) * Math.round(devicePixelRatio));
    const seen = [];
    const anySelected = this.selected.includes(1);
    for (const chosen of anySelected ? [0, 1] : [0]) {
      for (let index = 0; index < this.points.length; index++) {
        if (!this.visible[index] || (anySelected && this.selected[index] !== chosen)) continue;
        const [left, top] = [Math.round((this.points[index][0] - x) * scale + width / 2), Math.round((this.points[index][1] - y) * scale + height / 2)];
        const size = radius + chosen;
        if (left < size || top < size || left >= width - size || top >= height - size) continue;
        if (seen.length <= PICTURES) seen.push(index);
        const color = anySelected && !chosen ? faded(this.colors[index]) : this.colors[index];
        for (let row = -size; row <= size; row++) {
          const half = size < 3 ? size : Math.floor(Math.sqrt((size + 0.5) ** 2 - row * row));
          const middle = (top + row) * width + left;
          pixels.fill(color, middle - half, middle + half + 1);
        }
      }
    }
    context.putImageData(this.#pixels, 0, 0);
    this.#showsPictures = seen.length <= PICTURES && this.#areApart(seen);
    if (this.#showsPictures) this.#drawPictures(context, seen);
    if (this.#lasso) this.#drawLasso(context);
  }

  /** Whether the pictures of points would not hide each other. */
  #areApart(seen) {
    const [low, high] = bounds(seen.map((index) => this.place(index)));
    const side = SIDE * devicePixelRatio;
    return seen.length < 2 || (high[0] - low[0]) * (high[1] - low[1]) > 0.6 * side * side * seen.length;
  }

  #drawPictures(context, seen) {
    const side = SIDE * devicePixelRatio;
    for (const index of seen) {
      if (!this.#pictures.has(index)) this.#askFor(index);
      const picture = this.#pictures.get(index);
      if (!picture) continue;
      const [left, top] = this.place(index);
      const shrink = side / Math.max(picture.width, picture.height);
      const [width, height] = [picture.width * shrink, picture.height * shrink];
      context.drawImage(picture, left - width / 2, top - height / 2, width, height);
      context.lineWidth = (this.selected[index] ? 3 : 1.5) * devicePixelRatio;
      context.strokeStyle = css(this.colors[index]);
      context.strokeRect(left - width / 2, top - height / 2, width, height);
    }
  }

  /** Asks for the picture of a point, and draws again when it is there; a few at a time. */
  #askFor(index) {
    if (this.#asked >= AT_ONCE) return;
    const pictures = this.#pictures;
    // The oldest are dropped.
    if (pictures.size > 10 * PICTURES) {
      const [oldest, picture] = pictures.entries().next().value;
      picture?.close();
      pictures.delete(oldest);
    }
    pictures.set(index, null);
    this.#asked += 1;
    this.picture(index).catch(() => null).then((picture) => {
      if (pictures !== this.#pictures) return picture?.close();
      this.#asked -= 1;
      pictures.set(index, picture);
      this.draw();
    });
  }

  #drawLasso(context) {
    context.beginPath();
    for (const [x, y] of this.#lasso) context.lineTo(x, y);
    context.closePath();
    context.lineWidth = 2 * devicePixelRatio;
    context.strokeStyle = "#1f5fd6";
    context.fillStyle = "#1f5fd622";
    context.fill();
    context.stroke();
  }

  /** Selects the visible points for which `inside` holds. */
  select(inside) {
    for (let index = 0; index < this.points.length; index++) this.selected[index] = Number(Boolean(this.visible[index] && inside(index)));
    this.draw();
    this.changed();
  }

  /** The point under a place of the canvas, or -1. */
  nearest([x, y]) {
    const { x: left, y: top, scale } = this.#view;
    const [wantedX, wantedY] = [(x - this.canvas.width / 2) / scale + left, (y - this.canvas.height / 2) / scale + top];
    const reach = (this.#showsPictures ? SIDE / 2 : REACH) * devicePixelRatio / scale;
    let [found, best] = [-1, reach * reach];
    for (let index = 0; index < this.points.length; index++) {
      const point = this.points[index];
      const square = (point[0] - wantedX) ** 2 + (point[1] - wantedY) ** 2;
      if (square < best && this.visible[index]) [found, best] = [index, square];
    }
    return found;
  }

  #at(event) {
    return [event.offsetX * devicePixelRatio, event.offsetY * devicePixelRatio];
  }

  #begin(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.#at(event);
    this.#down.set(event.pointerId, at);
    this.#hover(null);
    this.#began = this.#down.size === 1 ? at : null;
    this.#lasso = this.#began && (this.lassoing || event.shiftKey) ? [at] : null;
  }

  #move(event) {
    const at = this.#at(event);
    const before = this.#down.get(event.pointerId);
    if (!before) {
      this.#hover(at);
      return;
    }
    this.#down.set(event.pointerId, at);
    if (this.#down.size === 2) {
      const [other] = [...this.#down].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      this.pan((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
      this.zoom(Math.max(distance(at, other), 1) / Math.max(distance(before, other), 1), [(at[0] + other[0]) / 2, (at[1] + other[1]) / 2]);
    } else if (this.#lasso) {
      // Corners that are close say nothing more.
      if (distance(at, this.#lasso.at(-1)) > 3 * devicePixelRatio) this.#lasso.push(at);
      this.draw();
    } else {
      this.pan(at[0] - before[0], at[1] - before[1]);
    }
  }

  #end(event) {
    if (!this.#down.delete(event.pointerId)) return;
    const [at, began, lasso] = [this.#at(event), this.#began, this.#lasso];
    this.#began = this.#lasso = null;
    if (!began) return;
    if (lasso && lasso.length > 2) {
      const [low, high] = bounds(lasso);
      this.select((index) => {
        const [x, y] = this.place(index);
        return x >= low[0] && x <= high[0] && y >= low[1] && y <= high[1] && isInside([x, y], lasso);
      });
    } else if (distance(at, began) < 4 * devicePixelRatio) {
      const hit = this.nearest(at);
      if (hit >= 0) this.select((index) => index === hit);
    }
    this.draw();
  }

  /** Looks for the point under the pointer, once in a frame. */
  #hover(at) {
    const waits = this.#hovering !== null;
    this.#hovering = { at };
    if (!waits) requestAnimationFrame(() => {
      const { at } = this.#hovering;
      this.#hovering = null;
      this.hovered(at && this.#down.size === 0 ? this.nearest(at) : -1);
    });
  }

  #press(event) {
    const step = 60 * devicePixelRatio;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) this.pan(...moves[event.key]);
    else if (event.key === "+") this.zoom(ZOOM);
    else if (event.key === "-") this.zoom(1 / ZOOM);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }

  #resize() {
    const { clientWidth, clientHeight } = this.canvas;
    Object.assign(this.canvas, { width: Math.round(clientWidth * devicePixelRatio), height: Math.round(clientHeight * devicePixelRatio) });
    if (this.#isWhole) this.fit();
    else this.draw();
  }
}

function distance([x, y], [left, top]) {
  return Math.hypot(x - left, y - top);
}

/** The lowest and the highest values of places. */
function bounds(places) {
  const [low, high] = [[Infinity, Infinity], [-Infinity, -Infinity]];
  for (const place of places) for (const axis of [0, 1]) {
    low[axis] = Math.min(low[axis], place[axis]);
    high[axis] = Math.max(high[axis], place[axis]);
  }
  return [low, high];
}

/** Whether a place is within a polygon: a ray from it crosses an odd number of sides. */
export function isInside([x, y], polygon) {
  let inside = false;
  for (let index = 0, before = polygon.length - 1; index < polygon.length; before = index++) {
    const [[left, top], [right, bottom]] = [polygon[index], polygon[before]];
    if ((top > y) !== (bottom > y) && x < (right - left) * (y - top) / (bottom - top) + left) inside = !inside;
  }
  return inside;
}

/** A color of CSS as a number. */
export function packed(color) {
  const context = packed.context ??= new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  return new Uint32Array(context.getImageData(0, 0, 1, 1).data.buffer)[0];
}

/** A packed color as one of CSS. */
export function css(color) {
  return `rgb(${color & 255} ${(color >> 8) & 255} ${(color >> 16) & 255})`;
}

function faded(color) {
  return (color & 0xffffff) | 0x38000000;
}
