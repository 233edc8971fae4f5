// The nearest items of the gallery, and the form that adds the photograph to it.

import { ask, askAbout, element, itemPath, thumbnail } from "./api.js";
import { guarded, working } from "./messages.js";

const $ = (id) => document.getElementById(id);

export class Neighbors {
  /** Names of the galleries; null in a server without. */
  galleries = null;

  /** `named` adds the model of this page to a path. */
  constructor(named) {
    this.named = named;
    $("add").addEventListener("submit", (event) => {
      event.preventDefault();
      guarded(() => this.#add());
    });
  }

  get gallery() {
    return $("add-gallery").value.trim() || "default";
  }

  /** Completes the path of a new item. A gallery keeps its model. */
  itemPath(path) {
    return this.galleries?.includes(this.gallery) ? path : this.named(path);
  }

  /** Asks for the galleries. */
  async list(signal) {
    try {
      const { data } = await ask("/v1/galleries", { signal });
      this.galleries = data.data.map(({ name }) => name);
      $("galleries").replaceChildren(...this.galleries.map((value) => element("option", { value })));
    } catch (error) {
      if (error.status !== 404) throw error;
    }
  }

  /** Makes `photo` the one that the form adds. */
  use(photo) {
    this.photo = photo;
    $("add-id").value = photo.file.path || photo.name;
    $("neighbors").replaceChildren();
    $("neighbors-hint").textContent = "";
  }

  async show(photo, signal) {
    this.signal = signal;
    $("neighbors").replaceChildren();
    await this.list(signal);
    $("add").hidden = !this.galleries;
    const { gallery } = this;
    const isEmpty = `The gallery “${gallery}” is empty. Add this photograph to begin.`;
    if (!this.galleries?.includes(gallery)) {
      $("neighbors-hint").textContent = this.galleries ? isEmpty : "This server has no gallery. Start it with --gallery DIR to store photographs and search them.";
      return;
    }
    const path = `/v1/knn?k=8&gallery=${encodeURIComponent(gallery)}`;
    const { data } = await working($("neighbors"), () => askAbout(path, photo.file, { signal }));
    $("neighbors-hint").textContent = data.neighbors.length ? `In “${gallery}”, by cosine. Click one to open it.` : isEmpty;
    $("neighbors").replaceChildren(...data.neighbors.map(({ id, score, label }) => {
      const address = `/gallery?${new URLSearchParams({ gallery, item: id })}`;
      const link = element("a", { href: address }, thumbnail(id, gallery), element("span", { className: "name", title: id }, id));
      const item = element("li", {}, link, element("span", { className: "score" }, score.toFixed(3)));
      if (label) item.append(element("span", { className: "label" }, label));
      return item;
    }));
  }

  async #add() {
    const [id, label] = ["add-id", "add-label"].map((name) => $(name).value.trim());
    const { gallery, photo } = this;
    const query = label ? `&label=${encodeURIComponent(label)}` : "";
    const type = photo.file.type || "application/octet-stream";
    const { data } = await ask(this.itemPath(itemPath(id, gallery) + query), { method: "PUT", body: photo.file, type });
    if (this.photo !== photo) return;
    await this.show(photo, this.signal);
    $("added").textContent = data.created ? `Stored “${id}” in “${gallery}”.` : `Replaced “${id}” in “${gallery}”.`;
  }
}
