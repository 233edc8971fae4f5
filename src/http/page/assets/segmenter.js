// Segmenters: trained on painted photographs, and the classes of the photograph's pixels.

import { Problem, askAbout, element } from "./api.js";
import { Brush, IGNORED, Painting } from "./brush.js";
import { commandLine, program } from "./commands.js";
import { offer, save, saveAnswer, stem } from "./download.js";
import { COLORS, paintWhole, pathOf, shape } from "./draw.js";
import { percent, say, working } from "./messages.js";
import { greyPng } from "./png.js";
import { patiently } from "./queue.js";
import { Trained } from "./trained.js";

const $ = (id) => document.getElementById(id);
/** The highest class that the page paints: its key is a digit. */
const CLASSES = 9;

const colorOf = (label) => (label === 0 ? "#000" : COLORS[(label - 1) % COLORS.length]);
const nameOf = (label) => (label === 0 ? "Background" : label === IGNORED ? "Not labeled" : `Class ${label}`);
const count = (number) => (number === 1 ? "1 photograph" : `${number} photographs`);

function describe({ images, classes, accuracy, model, size }) {
  return `Classes ${classes.join(", ")} from ${count(images)}${accuracy === null ? "" : `, ${percent(accuracy)} of the patches right in cross-validation`}, by ${model} at ${size} px.`;
}

/** Outlines of the classes over the photograph; the background is darkened. */
function drawing({ width, height, classes }) {
  const regions = classes.filter(({ mask }) => mask).map(({ class: label, mask }) => shape("path", {
    d: pathOf(mask.polygons), fill: colorOf(label), "fill-opacity": 0.45, "fill-rule": "evenodd",
    ...(label > 0 && { stroke: colorOf(label), "stroke-width": 2 }),
  }));
  return shape("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, ...regions);
}

function swatch(label) {
  const color = element("i", { className: label === IGNORED ? "ignored" : "" });
  if (label !== IGNORED) color.style.background = colorOf(label);
  return color;
}

export class Segmenter {
  /** The paintings by the files of their photographs: `{photo, painting}`. */
  #paintings = new Map();
  #classes = 2;
  #segmenting = new AbortController();

  /** `page`: the workspace. `open` opens a photograph. */
  constructor(page, { open }) {
    Object.assign(this, { page, open });
    this.brush = new Brush($("paint"), { changed: () => this.#listPainted(), resized: () => this.#showRadius() });
    this.trained = new Trained({ id: "segmenter", route: "segmenters", key: "segmenter", describe, changed: () => this.#changed() });
    $("segmenter").addEventListener("click", () => (this.isOpen ? this.close() : this.#open()));
    $("segmenter-close").addEventListener("click", () => {
      this.close();
      $("segmenter").focus();
    });
    $("add-class").addEventListener("click", () => {
      this.#classes++;
      this.#offerBrushes();
      this.#choose(this.#classes);
    });
    $("brush-size").addEventListener("input", ({ target }) => this.brush.resize((Number(target.value) / 100) ** 2 * this.brush.largest));
    $("paint-undo").addEventListener("click", () => this.brush.undo());
    $("paint-clear").addEventListener("click", () => this.brush.clear());
    $("segmenter-card").addEventListener("keydown", (event) => this.#press(event));
    $("segmenter-name").addEventListener("input", () => page.showCommands());
    $("segmenter-make").addEventListener("submit", (event) => {
      event.preventDefault();
      this.trained.guarded(() => this.#learn());
    });
    this.#offerBrushes();
    this.#choose(1);
  }

  get isOpen() {
    return !$("segmenter-card").hidden;
  }

  #setOpen(isOpen) {
    $("segmenter").setAttribute("aria-pressed", String(isOpen));
    $("segmenter-card").hidden = !isOpen;
  }

  #open() {
    this.#setOpen(true);
    $("segmenter-card").scrollIntoView({ block: "start", behavior: "smooth" });
    this.use(this.page.photo);
    this.trained.guarded(async () => {
      const chosen = await this.trained.list();
      $("segmenter-parts").hidden = false;
      await this.trained.choose(chosen);
    });
  }

  close() {
    this.#segmenting.abort();
    this.trained.close();
    this.#setOpen(false);
    $("segmenter-parts").hidden = true;
    this.page.showCommands();
  }

  /** Makes `photo` the one to paint on. */
  use(photo) {
    if (!this.isOpen) return;
    const { picture, file, name, source } = photo;
    for (const [other, { painting }] of this.#paintings) if (painting.strokes.length === 0 && !painting.isPainted) this.#paintings.delete(other);
    const { width, height } = picture;
    const known = this.#paintings.get(file);
    const painting = known?.painting ?? new Painting(width, height);
    Object.assign($("paint-photo"), { width, height }).getContext("2d").drawImage(picture, 0, 0);
    this.#paintings.set(file, { photo: { file: source, name }, painting });
    $("paint").setAttribute("aria-label", `Paint over ${name}`);
    this.brush.open(painting);
    this.#listPainted();
  }

  get #painted() {
    return [...this.#paintings].filter(([, { painting }]) => painting.isPainted);
  }

  #offerBrushes() {
    const labels = [...Array(this.#classes + 1).keys(), IGNORED];
    $("brushes").replaceChildren($("brushes").firstElementChild, ...labels.map((value) => {
      const input = element("input", { type: "radio", name: "brush", value, className: "visually-hidden" });
      input.addEventListener("change", () => (this.brush.label = value));
      return element("label", { className: "brush" }, input, element("span", {}, swatch(value), nameOf(value)));
    }));
    $("add-class").hidden = this.#classes === CLASSES;
  }

  /** Chooses what the brush paints. */
  #choose(label) {
    this.brush.label = label;
    $("brushes").querySelector(`[value="${label}"]`).checked = true;
  }

  #press(event) {
    if (event.target.matches("input:not([type=radio], [type=checkbox], [type=range]), select, dialog *")) return;
    const { key, ctrlKey, metaKey, altKey } = event;
    if (altKey) return;
    if (key.toLowerCase() === "z" && (ctrlKey || metaKey)) this.brush.undo();
    else if (ctrlKey || metaKey) return;
    else if (key === "[" || key === "]") this.brush.resize(this.brush.radius * (key === "[" ? 1 / 1.25 : 1.25));
    else if (key.toLowerCase() === "x") this.#choose(IGNORED);
    else if (/^\d$/.test(key) && Number(key) <= this.#classes) this.#choose(Number(key));
    else return;
    event.preventDefault();
    say(`The brush paints ${nameOf(this.brush.label)}, ${Math.round(this.brush.radius * 2)} pixels wide.`);
  }

  #showRadius() {
    const { radius, largest } = this.brush;
    $("brush-size").value = Math.sqrt(radius / largest) * 100;
    $("brush-width").textContent = `${Math.round(radius * 2)} px`;
  }

  #listPainted() {
    const painted = this.#painted;
    $("paint-undo").disabled = this.brush.painting.strokes.length === 0;
    $("paint-clear").disabled = !this.brush.painting.isPainted;
    $("segmenter-submit").disabled = painted.length === 0;
    $("painted-count").textContent = painted.length === 0 ? "Nothing is painted yet." : `${painted.length} painted`;
    $("painted").replaceChildren(...painted.map(([file, entry]) => {
      const { name } = entry.photo;
      const show = element("button", { type: "button", className: "name", "aria-label": `Open ${name}` }, name);
      show.addEventListener("click", () => this.open(file));
      const mask = element("button", { type: "button", "aria-label": `Save the mask of ${name}` }, "Save mask");
      mask.addEventListener("click", () => this.trained.guarded(async () => save(await this.#mask(entry), `${stem(entry.photo)}-mask.png`)));
      const remove = element("button", { type: "button", className: "danger", "aria-label": `Remove the mask of ${name}` }, "Remove");
      remove.addEventListener("click", () => this.#remove(file));
      return element("li", {}, show, mask, remove);
    }));
    this.page.showCommands();
  }

  #remove(file) {
    const { painting } = this.#paintings.get(file);
    if (painting === this.brush.painting) {
      this.brush.clear();
    } else {
      this.#paintings.delete(file);
      this.#listPainted();
    }
  }

  #mask({ painting }) {
    return greyPng(painting.width, painting.height, painting.mask($("unpainted").checked ? 0 : IGNORED));
  }

  async #learn() {
    const name = $("segmenter-name").value.trim();
    const body = new FormData();
    const classes = new Set();
    for (const [, entry] of this.#painted) {
      const { photo, painting } = entry;
      body.append("image", photo.file, photo.name);
      body.append("mask", await this.#mask(entry), `${stem(photo)}-mask.png`);
      for (const label of painting.mask($("unpainted").checked ? 0 : IGNORED)) if (label !== IGNORED) classes.add(label);
    }
    if (classes.size < 2) throw new Problem("All labelled pixels are of one class. Paint another class, too.");
    await this.trained.train(name, { method: "PUT", query: this.page.path("").slice("/v1/".length), bodies: [body] });
    say(`The segmenter “${name}” is ready.`);
  }

  #changed() {
    if (this.trained.name) $("segmenter-name").value = this.trained.name;
    this.page.showCommands();
    this.trained.guarded(() => this.show());
  }

  get #path() {
    return `/v1/segment?segmenter=${encodeURIComponent(this.trained.name)}`;
  }

  /** Segments the open photograph with the chosen segmenter. */
  async show() {
    this.#segmenting.abort();
    this.#segmenting = new AbortController();
    const { signal } = this.#segmenting;
    const { photo, timings, patchSize } = this.page;
    $("segmenter-result").hidden = !this.trained.stored;
    $("segmenter-stage").querySelector("svg")?.remove();
    for (const id of ["segmenter-legend", "segmenter-downloads"]) $(id).replaceChildren();
    if (!this.isOpen || !photo || !this.trained.stored) return;
    const path = this.#path;
    const { data, timing } = await working($("segmenter-stage"), () => patiently(() => askAbout(path, photo.file, { signal }), signal));
    signal.throwIfAborted();
    timings.show("Segments", timing);
    paintWhole($("segmenter-photo"), photo.picture, data, patchSize);
    $("segmenter-photo").setAttribute("aria-label", `${photo.name} with its classes`);
    $("segmenter-stage").append(drawing(data));
    $("segmenter-legend").replaceChildren(...data.classes.map(({ class: label, share }) =>
      element("li", {}, swatch(label), element("b", {}, nameOf(label)), percent(share))));
    const file = (type, end, query = "") => saveAnswer(path + query, [photo], type, `${stem(photo)}-${end}`, signal);
    offer($("segmenter-downloads"), [
      ["PNG", () => file("image/png", "segments.png", "&output=overlay")],
      ["mask PNG", () => file("image/png", "segments-mask.png", "&output=mask")],
      ["JSON", () => file("application/json", "segments.json")],
      ["npy", () => file("application/x-npy", "segments.npy")],
    ], (work) => this.trained.guarded(work));
  }

  /** The command lines and programs of what is shown. */
  commands() {
    const { photo, model, size } = this.page;
    if ($("segmenter-parts").hidden || !photo) return [];
    const name = $("segmenter-name").value.trim() || "leaves";
    const images = this.#painted.map(([, { photo: { name: image } }]) => image);
    const masks = images.map((image) => `${stem({ name: image })}-mask.png`);
    const files = images.flatMap((image, index) => [["image", image], ["mask", masks[index]]]);
    const options = { size, ...(model && { model }), wait: true };
    const trained = images.length > 0
      ? [["Segmenter", commandLine(`segmenters/${encodeURIComponent(name)}`, { method: "PUT", options, files }), program("train_segmenter", [name, images, masks], "answer")]]
      : [];
    const end = " -H 'Accept: application/json'";
    return [...trained, ["Segments of the photograph", commandLine("segment", { options: { segmenter: name }, files: [["image", photo.name]], end }), program("segment", [name, photo.name])]];
  }
}
