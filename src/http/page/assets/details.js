// The dialog of one item: its picture, and its label and metadata to change.

import { Problem, ask, itemPath, thumbnail } from "./api.js";

const $ = (id) => document.getElementById(id);

export class Details {
  #item = null;

  /** `changed` gets an item after a change, `similar` and `remove` the item that a button was pressed for; `closed` is called at the end. */
  constructor({ changed, closed, similar, remove }) {
    const close = (then) => () => {
      $("details").close();
      then?.(this.#item);
    };
    $("details-close").addEventListener("click", close());
    $("details-like").addEventListener("click", close(similar));
    $("details-delete").addEventListener("click", close(remove));
    $("details").addEventListener("close", closed);
    $("details-edit").addEventListener("submit", async (event) => {
      event.preventDefault();
      $("details-error").hidden = true;
      try {
        const item = await this.#save();
        $("details").close();
        changed(item);
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        $("details-error").textContent = error.message;
        $("details-error").hidden = false;
      }
    });
  }

  /** Opens an item by its id. */
  async open(id, gallery) {
    const { data } = await ask(itemPath(id, gallery));
    this.#item = data;
    $("details-id").textContent = data.id;
    $("details-picture").replaceChildren(thumbnail(data.id, gallery));
    $("details-label").value = data.label ?? "";
    $("details-metadata").value = JSON.stringify(data.metadata, null, 2);
    $("details-facts").textContent = `Stored ${new Date(data.stored_ms).toLocaleString()}, item ${data.place} of this gallery.`;
    $("details-error").hidden = true;
    $("details").showModal();
  }

  async #save() {
    let metadata;
    try {
      metadata = JSON.parse($("details-metadata").value || "{}");
    } catch {
      throw new Problem('The metadata is not a JSON object. An example: {"year": 2024}');
    }
    const body = JSON.stringify({ label: $("details-label").value.trim(), metadata });
    const { id, gallery } = this.#item;
    const { data } = await ask(itemPath(id, gallery), { method: "PATCH", body, type: "application/json" });
    return data;
  }
}
