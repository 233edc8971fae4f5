// The matches of two photographs: both next to each other, with lines between places that correspond.

import { ask, formOf } from "./api.js";
import { seenPart, shape } from "./draw.js";
import { offer, saveAnswer, stem } from "./download.js";
import { guarded, working } from "./messages.js";

const $ = (id) => document.getElementById(id);

/** Height of photographs next to each other, width of those below each other, and the space between them. */
const [SIDE, GAP] = [600, 12];
/** Cells of the first photograph, across and down, of which each has at most one line. */
const CELLS = 8;
/** A phone has the photographs below each other. */
const NARROW = matchMedia("(max-width: 620px)");

/** The color of a place: the hue changes from left to right, the lightness from top to bottom. */
function colorOf([x, y], { width, height }) {
  return `hsl(${((x / width) * 290).toFixed(0)} 95% ${(38 + (27 * y) / height).toFixed(0)}%)`;
}

/** Distance of a point to the line between two others. */
function distance([x, y], [fromX, fromY], [toX, toY]) {
  const [dx, dy] = [toX - fromX, toY - fromY];
  const share = Math.min(Math.max(((x - fromX) * dx + (y - fromY) * dy) / (dx * dx + dy * dy || 1), 0), 1);
  return Math.hypot(x - fromX - share * dx, y - fromY - share * dy);
}

/** Where the parts of two photographs, `[left, top, width, height]` each, are drawn. */
function layOut(parts) {
  const isNarrow = NARROW.matches;
  const places = parts.map(([left, top, width, height]) => {
    const scale = SIDE / (isNarrow ? width : height);
    return { left, top, scale, width: width * scale, height: height * scale, x: 0, y: 0 };
  });
  const [first, second] = places;
  if (isNarrow) second.y = first.height + GAP;
  else second.x = first.width + GAP;
  const [width, height] = [second.x + second.width, second.y + second.height];
  // A unit is about a pixel of the screen.
  return { places, width, height, unit: width / (isNarrow ? 340 : 1100) };
}

export class Matches {
  /** What is shown: the answer, its photographs, and the matches with their points in the drawing. */
  #shown = null;
  #chosen = -1;
  /** Number of the latest request; answers to earlier ones are dropped. */
  #latest = 0;

  /** `page`: the workspace. */
  constructor(page) {
    this.page = page;
    $("matches").addEventListener("click", () => (this.options ? this.close() : this.#open()));
    for (const id of ["matches-tokens", "matches-geometry"]) $(id).addEventListener("change", () => this.#open());
    for (const type of ["pointermove", "pointerdown"]) $("matches-stage").addEventListener(type, (event) => this.#point(event));
    // A finger leaves with each tap.
    $("matches-stage").addEventListener("pointerleave", ({ pointerType }) => pointerType === "mouse" && this.#choose(-1));
    $("matches-stage").addEventListener("blur", () => this.#choose(-1));
    $("matches-stage").addEventListener("keydown", (event) => this.#step(event));
    NARROW.addEventListener("change", () => this.#draw());
    const save = (type, end) => {
      const { photo, second } = page;
      return saveAnswer(this.#path(), [photo, second], type, `${stem(photo)}-${stem(second)}-matches.${end}`);
    };
    this.files = [
      ["PNG", () => save("image/png", "png")],
      ["JSON", () => save("application/json", "json")],
      ["npy", () => save("application/x-npy", "npy")],
    ];
  }

  /** The options of the matches that are shown, or null. */
  get options() {
    return $("matches-card").hidden ? null : { tokens: $("matches-tokens").value, geometry: $("matches-geometry").value };
  }

  close() {
    this.#latest++;
    this.#shown = null;
    this.#setOpen(false);
    $("matches-downloads").replaceChildren();
  }

  #setOpen(isOpen) {
    $("matches").setAttribute("aria-pressed", String(isOpen));
    $("matches-card").hidden = !isOpen;
    this.page.showCommands();
  }

  #path() {
    return this.page.path("match", `&${new URLSearchParams(this.options)}`);
  }

  async #open() {
    const number = ++this.#latest;
    const { photo, second, signal } = this.page;
    const isNew = !this.options;
    this.#setOpen(true);
    $("matches-summary").textContent = "";
    if (isNew) {
      this.#shown = { photos: [photo, second], matches: [], images: [photo, second].map(({ picture: { width, height } }) => ({ width, height })) };
      this.#draw();
      $("matches-card").scrollIntoView({ block: "nearest", behavior: "smooth" });
    }
    await guarded(async () => {
      try {
        const { data, timing } = await working($("matches-stage"), () => ask(this.#path(), { method: "POST", body: formOf([photo, second]), signal }));
        if (number !== this.#latest) return;
        this.page.timings.show("Matches", timing);
        this.#shown = { photos: [photo, second], ...data };
        this.#draw();
        $("matches-summary").textContent = this.#sentence(data);
        offer($("matches-downloads"), this.files, guarded);
      } catch (error) {
        if (number === this.#latest) this.close();
        throw error;
      }
    });
  }

  #sentence({ matches, inliers, transform }) {
    if (matches.length === 0) return "No places of the two photographs match.";
    const count = matches.length === 1 ? "1 match" : `${matches.length} matches`;
    if (!inliers) return `${count}.`;
    if (!transform) return `${count}, but no transform that enough of them agree with.`;
    return `${count}, ${inliers.length} of them inliers.${inliers.length < matches.length ? " The others are gray." : ""}`;
  }

  /** Draws the photographs and all matches. */
  #draw() {
    if (!this.#shown) return;
    const { photos, images, matches } = this.#shown;
    const { size, patchSize } = this.page;
    const { places, width, height, unit } = layOut(photos.map(({ grid }, index) => seenPart(images[index], grid, size, patchSize)));
    const canvas = Object.assign($("matches-photos"), { width, height });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    for (const [index, { picture, grid }] of photos.entries()) {
      const place = places[index];
      context.drawImage(picture, ...seenPart(picture, grid, size, patchSize), place.x, place.y, place.width, place.height);
    }
    const at = ([x, y], { left, top, scale, ...place }) => [place.x + (x - left) * scale, place.y + (y - top) * scale];
    const taken = new Set();
    this.#shown.unit = unit;
    this.#shown.lines = matches.map(({ a, b, inlier }) => {
      const isOutlier = inlier === false;
      const cell = [a[0] / images[0].width, a[1] / images[0].height].map((share) => Math.floor(share * CELLS)).join();
      const hasLine = !isOutlier && !taken.has(cell);
      if (hasLine) taken.add(cell);
      return { from: at(a, places[0]), to: at(b, places[1]), color: isOutlier ? "#6e6e6e" : colorOf(a, images[0]), isOutlier, hasLine };
    });
    const { lines } = this.#shown;
    // Many dots are smaller, so that the photographs are seen between them.
    const radius = lines.length > 400 ? 1.7 : 2.7;
    const all = shape("g", {},
      ...lines.filter(({ isOutlier }) => isOutlier).flatMap((line) => this.#dots(line, 2, 0.5)),
      ...lines.filter(({ isOutlier }) => !isOutlier).flatMap((line) => this.#dots(line, radius, radius / 3)),
      ...lines.filter(({ hasLine }) => hasLine).flatMap((line) => [...this.#line(line, 1.8), ...this.#dots(line, 3.2)]));
    $("matches-stage").querySelector("svg")?.remove();
    $("matches-stage").append(shape("svg", { viewBox: `0 0 ${canvas.width} ${canvas.height}`, "aria-hidden": "true" }, all, shape("g")));
    $("matches-stage").setAttribute("aria-label", `${matches.length} matches of ${photos.map(({ name }) => name).join(" and ")}`);
    this.#choose(-1);
  }

  /** A line with a white edge. */
  #line({ from: [x1, y1], to: [x2, y2], color }, width) {
    const { unit } = this.#shown;
    const edges = [["#fff", width + 1.4], [color, width]];
    return edges.map(([stroke, pixels]) => shape("line", { x1, y1, x2, y2, stroke, "stroke-width": pixels * unit, "stroke-opacity": 0.8 }));
  }

  /** A dot with a white edge in each photograph. */
  #dots({ from, to, color }, radius, edge = 1) {
    const { unit } = this.#shown;
    return [from, to].map(([cx, cy]) => shape("circle", { cx, cy, r: radius * unit, fill: color, stroke: "#fff", "stroke-width": edge * unit }));
  }

  /** Shows one match before the others, or all alike with -1. */
  #choose(index) {
    this.#chosen = index;
    const [all, one] = $("matches-stage").querySelector("svg")?.children ?? [];
    const line = this.#shown?.lines?.[index];
    all?.classList.toggle("dimmed", Boolean(line));
    one?.replaceChildren(...(line ? [...this.#line(line, 3), ...this.#dots(line, 5)] : []));
    $("matches-hover").textContent = line ? this.#words(this.#shown.matches[index]) : "";
  }

  #words({ a, b, score, inlier }) {
    const point = (place) => place.map(Math.round).join(", ");
    return `Cosine ${score.toFixed(2)}: (${point(a)}) and (${point(b)})${inlier === false ? ", an outlier" : ""}`;
  }

  /** Chooses the match under the pointer: the nearest dot, or else the nearest line. */
  #point({ clientX, clientY }) {
    const svg = $("matches-stage").querySelector("svg");
    if (!svg || !this.#shown.lines) return;
    const { x, y } = new DOMPoint(clientX, clientY).matrixTransform(svg.getScreenCTM().inverse());
    const { lines, unit } = this.#shown;
    const nearest = (far, measure) => lines.reduce((best, line, index) => {
      const away = measure(line);
      return away < best.away ? { away, index } : best;
    }, { away: far * unit, index: -1 }).index;
    const dot = nearest(10, ({ from, to }) => Math.min(Math.hypot(x - from[0], y - from[1]), Math.hypot(x - to[0], y - to[1])));
    const index = dot >= 0 ? dot : nearest(5, ({ from, to, hasLine }) => (hasLine ? distance([x, y], from, to) : Infinity));
    if (index !== this.#chosen) this.#choose(index);
  }

  #step(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") this.#choose(-1);
    const count = this.#shown?.matches.length;
    if (!step || !count) return;
    event.preventDefault();
    this.#choose(this.#chosen < 0 && step < 0 ? count - 1 : (this.#chosen + step + count) % count);
  }
}
