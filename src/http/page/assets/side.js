// Two served models side by side on one photograph: parts, attention, and the patches like a chosen one.

import { askAbout, element } from "./api.js";
import { colors, heat, paint, patchAt } from "./draw.js";

/** The rows of the table. */
const ROWS = [
  ["parts", "Parts"],
  ["attention", "Attention, mean of the heads"],
  ["similar", "Similar to the marked patch"],
];

/** A column: one model, and what it sees. */
class Column {
  constructor(model, onPatch) {
    this.model = model;
    this.canvases = Object.fromEntries(ROWS.map(([key, title]) => [key, element("canvas", { role: "img", "aria-label": `${title}, ${model.id}` })]));
    this.canvases.similar.addEventListener("click", (event) => {
      const patch = this.grid && patchAt(this.canvases.similar, this.grid, event);
      if (patch) onPatch(patch.map((place, axis) => (place + 0.5) / this.grid[axis]));
    });
  }

  ask(route, photo, signal, options = "") {
    const { id, map_size: size } = this.model;
    return askAbout(`/v1/${route}?size=${size}&model=${encodeURIComponent(id)}${options}`, photo.file, { signal });
  }

  draw(key, settings) {
    paint(this.canvases[key], { grid: this.grid, size: this.model.map_size, patchSize: this.model.patch, ...settings });
  }

  /** Shows the parts and the attention. */
  async show(photo, signal) {
    const parts = (await this.ask("pca", photo, signal)).data.data[0];
    this.grid = parts.grid;
    this.draw("parts", { map: colors(parts.grid, parts.map) });
    this.draw("similar", { picture: photo.picture });
    const { attention } = (await this.ask("attention", photo, signal)).data.data[0];
    const mean = attention[0].map((_, patch) => attention.reduce((sum, head) => sum + head[patch], 0) / attention.length);
    this.draw("attention", { map: heat(this.grid, mean) });
  }

  /** Shows the similarity to the patch at a place, whose coordinates are shares of the height and width. */
  async compare(photo, place, signal) {
    const patch = place.map((share, axis) => Math.min(Math.floor(share * this.grid[axis]), this.grid[axis] - 1));
    const { similarity } = (await this.ask("similarity", photo, signal, `&patch=${patch.join(",")}`)).data.data[0];
    this.draw("similar", { picture: photo.picture, map: heat(this.grid, similarity.flat()), opacity: 0.65, frame: patch });
  }
}

/** The card with two models. It stays hidden in a server of one model. */
export class SideBySide {
  /** `guarded` runs what may fail. */
  constructor(card, models, guarded) {
    this.card = card;
    this.guarded = guarded;
    this.models = models;
    card.hidden = models.length < 2;
    if (card.hidden) return;
    this.selects = [0, 1].map((chosen) => {
      const options = models.map(({ id }, index) => element("option", { value: id, selected: index === chosen }, id));
      const select = element("select", { "aria-label": chosen === 0 ? "Left model" : "Right model" }, ...options);
      select.addEventListener("change", () => this.choose());
      return select;
    });
    this.table = element("div", { className: "side" });
    card.append(this.table);
    this.choose();
  }

  /** Lays the table out for the chosen models. */
  choose() {
    const model = (select) => this.models.find(({ id }) => id === select.value);
    this.columns = this.selects.map((select) => new Column(model(select), (place) => this.compare(place)));
    const cells = ROWS.flatMap(([key, title]) => [
      element("h3", {}, title),
      ...this.columns.map((column) => element("div", { className: "stage" }, column.canvases[key])),
    ]);
    this.table.replaceChildren(...this.selects, ...cells);
    if (this.photo) this.guarded(() => this.show(this.photo, this.signal));
  }

  /** Shows a photograph. Requests end with `signal`. */
  async show(photo, signal) {
    if (this.card.hidden) return;
    Object.assign(this, { photo, signal });
    for (const column of this.columns) column.grid = null;
    for (const column of this.columns) {
      column.draw("parts", { grid: photo.grid, picture: photo.picture });
      await column.show(photo, signal);
    }
  }

  async compare(place) {
    // The last of several clicks counts. A column that is still being drawn has no patches yet.
    this.place = place;
    await this.guarded(async () => {
      for (const column of this.columns) {
        if (this.place === place && column.grid) await column.compare(this.photo, place, this.signal);
      }
    });
  }
}
