// The findings of an audit, as sections of pictures with actions.

import { ask, element, itemPath, thumbnail } from "./api.js";
import { guarded } from "./messages.js";

/** Number of findings that are shown at first, and more each time. */
const PAGE = 24;
/** Number of pictures of a cluster. */
const OF_CLUSTER = 12;

export class Findings {
  /** `place` is the element that holds the sections, and `bulk` changes items. */
  constructor(place, bulk) {
    Object.assign(this, { place, bulk });
  }

  /** Shows a report, or nothing. */
  show(report) {
    this.place.replaceChildren();
    if (!report) return;
    const { duplicates, mislabels, outliers, clusters } = report;
    this.place.append(
      this.#duplicates(duplicates),
      this.#mislabels(mislabels),
      this.#outliers(outliers),
      this.#clusters(clusters, report.silhouette),
    );
  }

  /** Of each group one item is chosen to be kept, at first the first. */
  #duplicates(groups) {
    const group = ({ ids, score }, number) => {
      const tiles = ids.map((id, index) => {
        const keep = element("input", { type: "radio", name: `keep-${number}`, value: id, checked: index === 0 });
        return this.#tile(id, element("label", { className: "check" }, keep, "keep"));
      });
      const remove = this.#button("Delete the others", "danger", () => this.#removeTiles(spare([row])));
      const head = element("div", { className: "controls" }, element("p", {}, `${ids.length} items, cosine ${score.toFixed(3)}`), remove);
      const row = element("li", { className: "group" }, head, element("ol", { className: "grid" }, ...tiles));
      return row;
    };
    const spare = (rows) => rows.flatMap((row) => [...row.querySelectorAll(".tile")].filter((tile) => !tile.querySelector("input").checked));
    const all = this.#button("Delete the others of all groups shown", "danger", () => this.#removeTiles(spare([...section.querySelectorAll(".group")])));
    const section = this.#section("Near-duplicates", groups, "Groups of items that show the same. One of each is kept.", "groups", group, [all]);
    return section;
  }

  #mislabels(found) {
    const tile = ({ id, label, suggested, score }) => {
      const made = this.#tile(id, checkbox(`Relabel ${id}`), element("span", {}, element("s", { className: "label" }, label), " → ", element("span", { className: "label" }, suggested)), element("span", { className: "score" }, score.toFixed(2)));
      made.dataset.suggested = suggested;
      return made;
    };
    const relabel = this.#button("Give the selected the suggested label", "", () => this.#relabelTiles(selected(section)));
    const remove = this.#button("Delete the selected", "danger", () => this.#removeTiles(selected(section)));
    const section = this.#section("Labels that are likely wrong", found, "Two classifiers agree on another label.", "grid", tile, [this.#all(() => section), relabel, remove]);
    return section;
  }

  #outliers(found) {
    const tile = ({ id, score }) => this.#tile(id, checkbox(`Select ${id}`), element("span", { className: "score" }, `${score.toFixed(1)} deviations`));
    const remove = this.#button("Delete the selected", "danger", () => this.#removeTiles(selected(section)));
    const section = this.#section("Outliers", found, "Items that are far from all others: unusual, not wrong.", "grid", tile, [this.#all(() => section), remove]);
    return section;
  }

  #clusters(found, silhouette) {
    const row = ({ ids, cohesion, label }) => {
      const name = element("input", { value: label ?? "", maxLength: 256, autocomplete: "off", required: true, "aria-label": "Label of the group" });
      const form = element("form", { className: "controls" }, element("p", {}, `${ids.length.toLocaleString("en")} items`), element("span", { className: "hint" }, `mean cosine with the center ${cohesion.toFixed(2)}`), name, element("button", {}, "Label all of them"));
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        guarded(() => this.bulk.relabel(ids.map((id) => [id, name.value.trim()]), () => {}));
      });
      const tiles = ids.slice(0, OF_CLUSTER).map((id) => this.#tile(id));
      return element("li", { className: "group" }, form, element("ol", { className: "grid" }, ...tiles));
    };
    return this.#section("Clusters", found, `Groups of similar items, the nearest to the center first; silhouette ${silhouette.toFixed(2)}.`, "groups", row, []);
  }

  /** A section with a part of the findings, and a button for more. */
  #section(title, found, hint, kind, draw, actions) {
    const list = element("ol", { className: kind });
    const more = element("button", { type: "button", className: "more" }, "Show more");
    let shown = 0;
    const next = () => {
      list.append(...found.slice(shown, shown + PAGE).map((one, index) => draw(one, shown + index)));
      shown = Math.min(shown + PAGE, found.length);
      more.hidden = shown === found.length;
    };
    more.addEventListener("click", next);
    next();
    const id = title.toLowerCase().replaceAll(" ", "-");
    const head = element("header", {}, element("h2", { id }, `${title}: ${found.length.toLocaleString("en")}`), element("p", { className: "hint" }, hint));
    const bar = element("div", { className: "controls" }, ...actions);
    bar.hidden = actions.length === 0 || found.length === 0;
    const section = element("section", { className: "card" }, head, bar, list, more);
    section.setAttribute("aria-labelledby", id);
    return section;
  }

  /** An item with its picture, which leads to its details. */
  #tile(id, ...children) {
    const gallery = this.bulk.gallery();
    const picture = thumbnail(id, gallery);
    const link = element("a", { className: "tile-picture", href: `/gallery?${new URLSearchParams({ gallery, item: id })}`, "aria-label": `Details of ${id}` }, picture);
    const tile = element("li", { className: "tile" }, link, element("span", { className: "name", title: id }, id), ...children);
    tile.dataset.id = id;
    // It may have been deleted since the audit.
    picture.addEventListener("error", () => ask(itemPath(id, gallery)).catch(({ status }) => {
      if (status === 404) this.#gone(id);
    }));
    return tile;
  }

  #button(text, className, work) {
    const button = element("button", { type: "button", className }, text);
    button.addEventListener("click", () => guarded(work));
    return button;
  }

  /** A button that selects all tiles of a section, or none. */
  #all(section) {
    return this.#button("Select all shown", "", () => {
      const boxes = [...section().querySelectorAll(".tile input")];
      const checked = boxes.some((box) => !box.checked);
      for (const box of boxes) box.checked = checked;
    });
  }

  async #removeTiles(tiles) {
    const ids = tiles.map(({ dataset }) => dataset.id);
    if (ids.length > 0) await this.bulk.remove(ids, (id) => this.#gone(id));
  }

  async #relabelTiles(tiles) {
    const labels = tiles.map(({ dataset }) => [dataset.id, dataset.suggested]);
    const done = (id) => tiles.find(({ dataset }) => dataset.id === id).remove();
    if (labels.length > 0) await this.bulk.relabel(labels, done);
  }

  /** Removes an item from all sections, and groups that have only one left. */
  #gone(id) {
    for (const tile of this.place.querySelectorAll(".tile")) {
      if (tile.dataset.id !== id) continue;
      const group = tile.closest(".group");
      tile.remove();
      if (group?.querySelector("input[type=radio]") && group.querySelectorAll(".tile").length < 2) group.remove();
      else if (group && !group.querySelector("input:checked")) group.querySelector("input[type=radio]")?.click();
    }
  }
}

function checkbox(name) {
  return element("label", { className: "check" }, element("input", { type: "checkbox", "aria-label": name }), "select");
}

function selected(section) {
  return [...section.querySelectorAll(".tile")].filter((tile) => tile.querySelector("input").checked);
}
