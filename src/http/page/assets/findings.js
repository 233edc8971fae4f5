// The findings of an audit, as sections of pictures with actions.

import { Problem, ask, element, itemPath, thumbnail } from "./api.js";
import { guarded } from "./messages.js";
import { patiently } from "./queue.js";

/** Number of findings that are shown at first, and more each time. */
const PAGE = 24;
/** Number of pictures of a cluster. */
const OF_CLUSTER = 12;

export class Findings {
  #gallery = "";
  /** Ends when other findings are shown. */
  #end = new AbortController();
  /** Ids of items that are not there any more. */
  #gone = new Set();

  /** `place` is the element that holds the sections, and `bulk` changes items. */
  constructor(place, bulk) {
    Object.assign(this, { place, bulk });
  }

  /** Shows a report about a gallery, or nothing. */
  show(gallery, report) {
    this.#end.abort();
    this.#end = new AbortController();
    this.#gallery = gallery;
    this.#gone.clear();
    this.place.replaceChildren();
    if (!report) return;
    const { duplicates, mislabels, outliers, clusters, silhouette } = report;
    this.place.append(this.#duplicates(duplicates), this.#mislabels(mislabels), this.#outliers(outliers), this.#clusters(clusters, silhouette));
  }

  /** Of each group one item is chosen to be kept, at first the first. */
  #duplicates(groups) {
    const group = ({ ids, score }, number) => {
      const tiles = ids.map((id, index) => {
        const keep = element("input", { type: "radio", name: `keep-${number}`, value: id, checked: index === 0, "aria-label": `Keep ${id}` });
        return this.#tile(id, element("label", { className: "check" }, keep, "keep"));
      });
      const remove = this.#button("Delete the others", "danger", () => this.#removeSpare([row]));
      const facts = `${ids.length} items, cosine ${score.toFixed(3)}`;
      const head = element("div", { className: "controls" }, element("p", {}, facts), remove);
      const grid = element("ol", { className: "grid", role: "radiogroup", "aria-label": `Group of ${facts}` }, ...tiles);
      const row = element("li", { className: "group" }, head, grid);
      return row;
    };
    const all = this.#button("Delete the others of all groups shown", "danger", () => this.#removeSpare([...section.querySelectorAll(".group")]));
    const section = this.#section("Near-duplicates", groups, "Groups of items that show the same. One of each is kept.", "groups", group, [all]);
    return section;
  }

  #mislabels(found) {
    const tile = ({ id, label, suggested, score }) => {
      const made = this.#tile(id, checkbox(`Select ${id}`), element("span", {}, element("s", { className: "label" }, label), " → ", element("span", { className: "label" }, suggested)), element("span", { className: "score" }, score.toFixed(2)));
      made.dataset.suggested = suggested;
      this.#ask(id).then((item) => {
        // Someone has given it another label since the audit.
        if (item && item.label !== label) drop(made);
      }, () => {});
      return made;
    };
    const relabel = this.#button("Give the selected the suggested label", "", async () => {
      const labels = selected(section).map(({ dataset }) => [dataset.id, dataset.suggested]);
      const tileOf = (id) => [...section.querySelectorAll(".tile")].find(({ dataset }) => dataset.id === id);
      await this.bulk.relabel(this.#gallery, nonempty(labels), { changed: (id) => drop(tileOf(id)), gone: this.#forgetter() });
    });
    const section = this.#section("Labels that are likely wrong", found, "Two classifiers agree on another label.", "grid", tile, [this.#all(() => section), relabel, this.#removeSelected(() => section)]);
    return section;
  }

  #outliers(found) {
    const tile = ({ id, score }) => this.#tile(id, checkbox(`Select ${id}`), element("span", { className: "score" }, `${score.toFixed(1)} deviations`));
    const section = this.#section("Outliers", found, "Items that are far from all others: unusual, not wrong.", "grid", tile, [this.#all(() => section), this.#removeSelected(() => section)]);
    return section;
  }

  #clusters(found, silhouette) {
    const row = ({ ids, cohesion, label }) => {
      const name = element("input", { value: label ?? "", maxLength: 256, autocomplete: "off", required: true, "aria-label": "Label of the group" });
      const form = element("form", { className: "controls" }, element("p", {}, `${ids.length.toLocaleString("en")} items`), element("span", { className: "hint" }, `mean cosine with the center ${cohesion.toFixed(2)}`), name, element("button", {}, "Label all of them"));
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        const labels = ids.filter((id) => !this.#gone.has(id)).map((id) => [id, name.value.trim()]);
        guarded(() => this.bulk.relabel(this.#gallery, nonempty(labels), { gone: this.#forgetter() }));
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
    const id = `found-${kind}-${title.toLowerCase().replaceAll(" ", "-")}`;
    const heading = element("h2", { id, tabIndex: -1 }, `${title}: ${found.length.toLocaleString("en")}`);
    const head = element("header", {}, heading, element("p", { className: "hint" }, hint));
    const bar = element("div", { className: "controls" }, ...actions);
    bar.hidden = actions.length === 0 || found.length === 0;
    const section = element("section", { className: "card" }, head, bar, list, more);
    section.setAttribute("aria-labelledby", id);
    section.dataset.title = title;
    section.dataset.count = found.length;
    next();
    return section;
  }

  /** An item with its picture, which leads to its details. */
  #tile(id, ...children) {
    const gallery = this.#gallery;
    const picture = thumbnail(id, gallery);
    const link = element("a", { className: "tile-picture", href: `/gallery?${new URLSearchParams({ gallery, item: id })}`, "aria-label": `Details of ${id}` }, picture);
    const tile = element("li", { className: "tile" }, link, element("span", { className: "name", title: id }, id), ...children);
    tile.dataset.id = id;
    // It may have been deleted since the audit.
    picture.addEventListener("error", () => this.#ask(id).catch(() => {}));
    return tile;
  }

  /** The item as it is now; null for one that is not there any more, which is removed from the page. */
  async #ask(id) {
    const [{ signal }, gone] = [this.#end, this.#forgetter()];
    try {
      return (await patiently(() => ask(itemPath(id, this.#gallery), { signal }), signal)).data;
    } catch (error) {
      if (error.status !== 404) throw error;
      gone(id);
      return null;
    }
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

  #removeSelected(section) {
    return this.#button("Delete the selected", "danger", () => this.bulk.remove(this.#gallery, nonempty(selected(section())).map(({ dataset }) => dataset.id), this.#forgetter()));
  }

  /** Deletes all items of groups but the chosen ones, which must be there. */
  async #removeSpare(groups) {
    const spare = [];
    for (const group of groups) {
      // Another one is chosen in place of one that is gone.
      while (group.isConnected && !(await this.#ask(group.querySelector("input:checked").value)));
      if (group.isConnected) spare.push(...[...group.querySelectorAll(".tile")].filter((tile) => !tile.querySelector("input").checked));
    }
    await this.bulk.remove(this.#gallery, nonempty(spare).map(({ dataset }) => dataset.id), this.#forgetter());
  }

  /** Returns what removes an item that is gone from all sections, and groups that have only one left, as long as these findings are shown. */
  #forgetter() {
    const { signal } = this.#end;
    return (id) => {
      if (signal.aborted) return;
      this.#gone.add(id);
      for (const tile of this.place.querySelectorAll(".tile")) {
        if (tile.dataset.id !== id) continue;
        const group = tile.closest(".group");
        if (!group) drop(tile);
        else tile.remove();
        const choice = group?.querySelector("input[type=radio]");
        if (choice && group.querySelectorAll(".tile").length < 2) drop(group);
        else if (choice && !group.querySelector("input:checked")) choice.checked = true;
      }
    };
  }
}

/** Removes a finding, and counts those that are left. */
function drop(finding) {
  const section = finding?.closest("section");
  if (!section) return;
  const focused = finding.contains(document.activeElement);
  finding.remove();
  section.dataset.count -= 1;
  const heading = section.querySelector("h2");
  heading.textContent = `${section.dataset.title}: ${Number(section.dataset.count).toLocaleString("en")}`;
  if (focused) heading.focus();
}

function checkbox(name) {
  return element("label", { className: "check" }, element("input", { type: "checkbox", "aria-label": name }), "select");
}

function selected(section) {
  return [...section.querySelectorAll(".tile")].filter((tile) => tile.querySelector("input").checked);
}

function nonempty(things) {
  if (things.length === 0) throw new Problem("Nothing is selected.");
  return things;
}
