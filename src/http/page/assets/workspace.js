// One photograph and all its features, and a second one to compare with.

import { ask, askAbout, element, fetchWithKey, formOf, problemOf } from "./api.js";
import { colors, heat, keepMass, paint, patchAt, rangeOf } from "./draw.js";
import { offer, saveAnswer, saveCanvas, saveMask, stem } from "./download.js";
import { guarded, say, working } from "./messages.js";
import { showCommands } from "./commands.js";
import { Matches } from "./matches.js";
import { Objects } from "./objects.js";
import { Timings } from "./timings.js";

const $ = (id) => document.getElementById(id);

/** Shares and cosines as people read them. */
const short = (value) => (Math.abs(value) >= 0.01 || value === 0 ? value.toFixed(2) : value.toExponential(1));

export class Workspace {
  /** Name of the model in requests; empty in a server of one model. */
  model = "";
  /** Size of maps and side of a patch, in pixels. */
  size = 518;
  patchSize = 14;
  /** The open photograph: `{file, name, picture, source, grid}`, with the file that the picture is from as `source`. */
  photo = null;
  second = null;
  /** The overlay: `{head}`, `{patch, isOnSecond, maps}`, `{objects}` with the way to find them, or null. */
  #overlay = null;
  /** Attention of each head, and its statistics. */
  #heads = [];
  /** The patch that the keyboard is at: `{patch, isOnSecond}`. */
  #cursor = null;
  timings = new Timings($("timing"));
  /** Ends the requests about the photograph before. */
  #running = new AbortController();
  /** Numbers of the latest photograph and of the latest request for parts; answers to earlier ones are dropped. */
  #latest = 0;
  #latestSecond = 0;
  #latestParts = 0;

  /**
   * `before` and `after` do what else a page shows of a photograph, at once and when its maps are there. `commands` returns the
   * command lines and programs of other tools.
   */
  constructor({ before, after, commands }) {
    Object.assign(this, { before, after, commands, objects: new Objects(this), matches: new Matches(this) });
    for (const [id, isOnSecond] of [["photo", false], ["second", true]]) {
      const canvas = $(id);
      const grid = () => (isOnSecond ? this.second : this.photo).grid;
      canvas.addEventListener("click", (event) => {
        const patch = patchAt(canvas, grid(), event);
        if (patch) this.compare(patch, isOnSecond);
      });
      canvas.addEventListener("keydown", (event) => this.#move(event, isOnSecond));
      canvas.addEventListener("pointermove", (event) => this.#hover(patchAt(canvas, grid(), event), isOnSecond));
      canvas.addEventListener("pointerleave", () => ($("hover").textContent = ""));
      canvas.addEventListener("blur", () => {
        this.#cursor = null;
        this.repaint();
      });
    }
    for (const id of ["opacity", "mass", "fade"]) $(id).addEventListener("input", () => this.repaint());
    $("clear").addEventListener("click", () => this.layOver(null));
    $("second-remove").addEventListener("click", () => this.#removeSecond());
    for (const id of ["foreground", "joint"]) $(id).addEventListener("change", () => guarded(() => this.#showParts()));
    $("language").addEventListener("change", () => this.showCommands());
    this.#offerDownloads();
  }

  get signal() {
    return this.#running.signal;
  }

  /** The path of a request about maps, with the size and the model of this page. */
  path(route, options = "", size = this.size) {
    return `/v1/${route}?size=${size}${options}${this.model && `&model=${encodeURIComponent(this.model)}`}`;
  }

  /** Opens a photograph. The last of several counts, and one that cannot be read leaves the one before. */
  async open(file) {
    const number = ++this.#latest;
    const { picture, source } = await this.#pictureOf(file);
    if (number !== this.#latest) return;
    this.#running.abort();
    this.#running = new AbortController();
    const { signal } = this;
    this.photo?.picture.close();
    this.photo = { file, name: file.name || "pasted.png", picture, source, grid: this.gridOf(picture) };
    [this.#overlay, this.#heads, this.#cursor] = [null, [], null];
    document.body.classList.add("busy-results");
    $("results").hidden = false;
    $("heads").replaceChildren();
    for (const id of ["explained", "head-stats", "added"]) $(id).textContent = "";
    this.timings.clear();
    this.matches.close();
    this.layOver(null);
    const { photo } = this;
    say(`Analyzing ${photo.name}.`);
    paint($("pca"), { picture, grid: photo.grid, size: this.size, patchSize: this.patchSize });
    this.before(photo);
    try {
      // One after the other, so that each is as fast as the machine allows. The server runs the model once for all maps.
      await this.#showParts();
      await this.#showHeads(photo, signal);
      await this.after(photo, signal);
      say(`${photo.name}: the maps are ready.`);
    } catch (error) {
      if (!signal.aborted) say(`${photo.name} cannot be analyzed.`);
      throw error;
    }
  }

  /** Opens the second photograph. */
  async openSecond(file) {
    const number = ++this.#latestSecond;
    const { picture } = await this.#pictureOf(file);
    if (number !== this.#latestSecond) return;
    if (this.#overlay?.isOnSecond) this.layOver(null);
    this.matches.close();
    this.second?.picture.close();
    this.second = { file, name: file.name || "pasted.png", picture, grid: this.gridOf(picture) };
    $("second").hidden = $("second-controls").hidden = $("joint-control").hidden = false;
    $("second-choice").hidden = true;
    $("second-stage").classList.remove("empty");
    $("second").setAttribute("aria-label", `The second photograph ${this.second.name}. Choose a patch.`);
    $("second-hint").textContent = "Click a patch in either photograph.";
    const { patch, isOnSecond } = this.#overlay ?? {};
    if (patch && !isOnSecond) await this.compare(patch, false);
    else this.layOver(this.#overlay);
    if ($("joint").checked) await this.#showParts();
  }

  #removeSecond() {
    this.matches.close();
    this.second?.picture.close();
    this.second = null;
    $("second").hidden = $("second-controls").hidden = $("joint-control").hidden = true;
    $("second-choice").hidden = false;
    $("second-stage").classList.add("empty");
    $("second-hint").textContent = "Compare patches across two photographs.";
    if (this.#overlay?.isOnSecond) this.layOver(null);
    if (this.#overlay?.maps) this.#overlay.maps.length = Math.min(this.#overlay.maps.length, 1);
    this.layOver(this.#overlay);
    if ($("joint").checked) guarded(() => this.#showParts());
  }

  /** The picture of a file. What the browser cannot read, the server may: it gives the picture as the model saw it. */
  async #pictureOf(file) {
    try {
      return { picture: await createImageBitmap(file), source: file };
    } catch {
      const response = await fetchWithKey(this.path("pca", "&overlay=0"), {
        method: "POST", body: file, headers: { Accept: "image/png", "Content-Type": "application/octet-stream" },
      });
      if (!response.ok) throw await problemOf(response);
      const source = await response.blob();
      return { picture: await createImageBitmap(source), source };
    }
  }

  /** Rows and columns of patches that `resize=fit` makes; the server's answers replace it. */
  gridOf({ width, height }) {
    const scale = this.size / Math.min(width, height);
    return [height, width].map((side) => Math.max(1, Math.floor(Math.round(side * scale) / this.patchSize)));
  }

  async #showParts() {
    const { signal, second, photo } = this;
    const number = ++this.#latestParts;
    const isJoint = Boolean(second && $("joint").checked);
    const photos = isJoint ? [photo, second] : [photo];
    const path = this.path("pca", `&foreground=${$("foreground").checked ? "auto" : "none"}`);
    const { data, timing } = await working($("pca").parentElement, () => ask(path, { method: "POST", body: formOf(photos), signal }));
    if (number !== this.#latestParts) return;
    $("pca-second-stage").hidden = !isJoint;
    for (const [index, { grid, map }] of data.data.entries()) {
      photos[index].grid = grid;
      paint($(index === 0 ? "pca" : "pca-second"), { grid, patchSize: this.patchSize, map: colors(grid, map) });
    }
    const shares = data.explained.map((share) => `${Math.round(share * 100)} %`).join(", ");
    $("explained").textContent = `The three colors explain ${shares} of the variance.`;
    this.timings.show("Parts", timing);
    this.repaint();
  }

  async #showHeads(photo, signal) {
    const about = (route) => askAbout(this.path(route), photo.file, { signal });
    const { data, timing } = await working($("heads"), () => about("attention"));
    const stats = (await about("attention/stats")).data.data[0];
    const [{ grid, attention }] = data.data;
    photo.grid = grid;
    this.#heads = attention;
    // Full rows for 6, 12, 16 and 24 heads.
    const count = attention.length;
    $("heads").style.setProperty("--columns", count <= 6 ? 3 : count % 6 === 0 && count > 12 ? 6 : 4);
    $("heads").replaceChildren(...attention.map((values, head) => {
      const { entropy, effective_patches, foreground_mass } = stats.heads[head];
      const canvas = element("canvas", { role: "img", "aria-label": `Attention of head ${head}` });
      paint(canvas, { grid, patchSize: this.patchSize, map: heat(grid, values) });
      const facts = element("span", { className: "facts", title: `Entropy ${entropy.toFixed(2)} nats, as much as ${Math.round(effective_patches)} even patches` },
        `${Math.round(foreground_mass * 100)} % on the object, entropy ${entropy.toFixed(1)}`);
      const button = element("button", { type: "button", "aria-pressed": "false" }, canvas, `head ${head}`, facts);
      button.addEventListener("click", () => this.layOver(this.#overlay?.head === head ? null : { head }));
      return button;
    }));
    const area = Math.round(stats.foreground_area * 100);
    const overlap = stats.mean_overlap === null ? "" : ` Two heads share ${Math.round(stats.mean_overlap * 100)} % of their attention, on average.`;
    $("head-stats").textContent = `The object covers ${area} % of the patches.${overlap}`;
    this.timings.show("Attention", timing);
  }

  #move(event, isOnSecond) {
    const { grid } = isOnSecond ? this.second : this.photo;
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const known = [this.#cursor, this.#overlay].find((place) => place?.patch && Boolean(place.isOnSecond) === isOnSecond);
    const from = known?.patch ?? grid.map((side) => side >> 1);
    if (event.key === "Escape") this.layOver(null);
    const chooses = event.key === "Enter" || event.key === " ";
    if (!step && !chooses) return;
    event.preventDefault();
    if (chooses) {
      this.compare(from, isOnSecond);
      return;
    }
    const patch = from.map((place, axis) => Math.min(Math.max(place + step[axis], 0), grid[axis] - 1));
    this.#cursor = { patch, isOnSecond };
    say(`Row ${patch[0] + 1} of ${grid[0]}, column ${patch[1] + 1} of ${grid[1]}.`);
    this.repaint();
  }

  /** Shows the value of the overlay under the pointer. */
  #hover(patch, isOnSecond) {
    $("hover").textContent = "";
    if (!patch) return;
    const [row, column] = patch;
    const grid = (isOnSecond ? this.second : this.photo).grid;
    const values = this.#overlay?.head !== undefined ? !isOnSecond && this.#heads[this.#overlay.head] : this.#overlay?.maps?.[isOnSecond ? 1 : 0]?.values;
    $("hover").textContent = values ? `row ${row}, column ${column}: ${short(values[row * grid[1] + column])}` : "";
  }

  /** Shows what is similar to a patch of the first or of the second photograph. */
  async compare(patch, isOnSecond) {
    await guarded(async () => {
      const { signal, second } = this;
      this.#cursor = null;
      const overlay = { patch, isOnSecond, maps: [] };
      this.layOver(overlay);
      const photos = (isOnSecond ? [second, this.photo] : [this.photo, second]).filter(Boolean);
      const path = this.path("similarity", `&patch=${patch.join(",")}`);
      const place = $(isOnSecond ? "second" : "photo").parentElement;
      const { data, timing } = await working(place, () => ask(path, { method: "POST", body: formOf(photos), signal }));
      if (this.#overlay !== overlay || this.second !== second) return;
      const maps = data.data.map(({ grid, similarity }) => ({ grid, values: similarity.flat() }));
      overlay.maps = isOnSecond ? maps.reverse() : maps;
      if (this.second && overlay.maps[1]) this.second.grid = overlay.maps[1].grid;
      this.timings.show("Similarity", timing);
      this.layOver(overlay);
      say(`Showing the similarity of every patch to row ${patch[0] + 1}, column ${patch[1] + 1}.`);
    });
  }

  /** Lays a head's attention, a similarity map or the objects over the photographs, or nothing. */
  layOver(next) {
    this.#overlay = next;
    for (const [head, button] of [...$("heads").children].entries()) {
      button.setAttribute("aria-pressed", String(next?.head === head));
    }
    this.objects.show(next?.objects);
    $("photo-controls").hidden = !next || Boolean(next.objects);
    $("mass-control").hidden = next?.head === undefined;
    if (next?.head !== undefined) {
      $("shown").textContent = `Attention of head ${next.head}`;
      $("photo").scrollIntoView({ block: "nearest", behavior: "smooth" });
    } else if (next) {
      $("shown").textContent = "Cosine to the marked patch";
    }
    this.repaint();
    this.showCommands();
  }

  showCommands() {
    if (!this.photo) return;
    const { second, size, model } = this;
    showCommands($("curl"), this.photo, { overlay: this.#overlay, matches: this.matches.options, second, size, model, more: this.commands(), language: $("language").value });
  }

  /** The values over the photograph, `mass` of a head, and their range. */
  #shown(mass = Number($("mass").value)) {
    const { head, maps } = this.#overlay ?? {};
    if (head !== undefined) {
      const values = mass < 1 ? keepMass(this.#heads[head], mass) : this.#heads[head];
      return { values, range: rangeOf(values) };
    }
    return maps?.length ? { values: maps[0].values, range: rangeOf(maps.flatMap(({ values }) => values)) } : null;
  }

  repaint() {
    if (!this.photo) return;
    const { size, patchSize, second } = this;
    const opacity = Number($("opacity").value);
    const fades = $("fade").checked;
    $("mass-value").textContent = `${Math.round(Number($("mass").value) * 100)} %`;
    const shown = this.#shown();
    $("low").textContent = shown ? short(shown.range[0]) : "";
    $("high").textContent = shown ? short(shown.range[1]) : "";
    const { picture, grid, name } = this.photo;
    const marked = this.#cursor ?? this.#overlay ?? {};
    const frame = (isOnSecond) => (Boolean(marked.isOnSecond) === isOnSecond ? marked.patch : undefined);
    const map = shown && heat(grid, shown.values, shown.range, fades);
    paint($("photo"), { picture, grid, size, patchSize, map, opacity, frame: frame(false) });
    $("photo").setAttribute("aria-label", `The photograph ${name}, ${grid[0]} rows and ${grid[1]} columns of patches. Choose a patch.`);
    if (!second) return;
    const over = this.#overlay?.maps?.[1];
    paint($("second"), { picture: second.picture, grid: second.grid, size, patchSize, map: over && heat(over.grid, over.values, shown.range, fades), opacity, frame: frame(true) });
  }

  #offerDownloads() {
    const name = (end) => `${stem(this.photo)}-${end}`;
    const parts = () => this.path("pca", `&foreground=${$("foreground").checked ? "auto" : "none"}`);
    const photos = () => ($("joint").checked && this.second ? [this.photo, this.second] : [this.photo]);
    offer($("parts-downloads"), [
      ["PNG", () => saveAnswer(parts(), photos(), "image/png", name("parts.png"))],
      ["npy", () => saveAnswer(parts(), photos(), "application/x-npy", name("parts.npy"))],
      ["JSON", () => saveAnswer(parts(), photos(), "application/json", name("parts.json"))],
      ["mask of the object", async () => {
        const path = this.path("pca", "&foreground=auto");
        const { data } = await ask(path, { method: "POST", body: formOf([this.photo]) });
        const [{ grid, map }] = data.data;
        const values = map.flat();
        saveMask((index) => values[index].some((value) => value > 0), grid, this.patchSize, name("object-mask.png"));
      }],
    ], guarded);
    offer($("heads-downloads"), [
      ["PNG", () => saveAnswer(this.path("attention", "&head=all"), [this.photo], "image/png", name("heads.png"))],
      ["npy", () => saveAnswer(this.path("attention"), [this.photo], "application/x-npy", name("heads.npy"))],
      ["JSON", () => saveAnswer(this.path("attention"), [this.photo], "application/json", name("heads.json"))],
    ], guarded);
    offer($("overlay-downloads"), [
      ["PNG as shown", () => saveCanvas($("photo"), name("overlay.png"))],
      ["mask", () => {
        // All of the attention would be a mask of everything; DINO shows 60 % of it.
        const mass = Number($("mass").value);
        const shown = this.#shown(mass < 1 ? mass : 0.6);
        if (!shown) return;
        const middle = this.#overlay.head === undefined ? (shown.range[0] + shown.range[1]) / 2 : 0;
        saveMask((index) => shown.values[index] > middle, this.photo.grid, this.patchSize, name("mask.png"));
      }],
    ], guarded);
  }
}
