// Changes of many items of a gallery, one request each.

import { Problem, ask, itemPath } from "./api.js";
import { FATAL, patiently } from "./queue.js";

const $ = (id) => document.getElementById(id);
/** Number of requests at the same time. */
const AT_ONCE = 4;

export class Bulk {
  #end = null;

  /** `gallery` returns the name of the gallery. */
  constructor(gallery) {
    this.gallery = gallery;
    $("working-stop").addEventListener("click", () => this.#end?.abort());
    $("confirm-no").addEventListener("click", () => $("confirm").close());
  }

  /** Asks, and deletes items. Calls `gone` with the id of each that is not there any more. */
  async remove(ids, gone) {
    if (!(await this.#agreed(`Delete ${counted(ids)}?`))) return;
    const gallery = this.gallery();
    await this.#each(ids, "deleted", async (id, signal) => {
      await ask(itemPath(id, gallery), { method: "DELETE", signal }).catch((error) => {
        // It was deleted before.
        if (error.status !== 404) throw error;
      });
      gone(id);
    });
  }

  /** Asks, and gives items new labels, `[id, label]` each. Calls `changed` with the id of each that has it. */
  async relabel(labels, changed) {
    if (!(await this.#agreed(`Change the label of ${counted(labels)}?`))) return;
    const gallery = this.gallery();
    await this.#each(labels, "relabeled", async ([id, label], signal) => {
      const body = JSON.stringify({ label });
      await ask(itemPath(id, gallery), { method: "PATCH", body, type: "application/json", signal });
      changed(id);
    });
  }

  async #each(things, done, work) {
    if (this.#end) throw new Problem("Items are being changed already. Wait for them, or stop.");
    this.#end = new AbortController();
    const { signal } = this.#end;
    const [waiting, failures] = [[...things], []];
    let count = 0;
    $("failures").replaceChildren();
    $("working").hidden = false;
    $("done").hidden = true;
    Object.assign($("working-progress"), { max: things.length, value: 0 });
    const run = async () => {
      while (waiting.length > 0 && !signal.aborted) {
        const thing = waiting.shift();
        try {
          await patiently(() => work(thing, signal), signal);
          count += 1;
        } catch (error) {
          if (!(error instanceof Problem) || FATAL.includes(error.status)) throw error;
          failures.push(`${[thing].flat()[0]}: ${error.message}`);
        }
        $("working-progress").value = count + failures.length;
        $("working-step").textContent = `${count} of ${things.length} ${done}.`;
      }
    };
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, run));
    } catch (error) {
      this.#end.abort();
      if (error.name !== "AbortError") throw error;
    } finally {
      this.#end = null;
      $("working").hidden = true;
      $("done").hidden = false;
      $("done").textContent = `${count} of ${counted(things)} ${done}.`;
      $("failures").replaceChildren(...failures.map((reason) => Object.assign(document.createElement("li"), { textContent: reason })));
    }
  }

  #agreed(question) {
    const dialog = $("confirm");
    $("confirm-question").textContent = question;
    return new Promise((resolve) => {
      dialog.returnValue = "";
      $("confirm-yes").onclick = () => dialog.close("yes");
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
      dialog.showModal();
    });
  }
}

function counted(things) {
  return things.length === 1 ? "1 item" : `${things.length.toLocaleString("en")} items`;
}
