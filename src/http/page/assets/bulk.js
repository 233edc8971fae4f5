// Changes of many items of a gallery, one request each, after a question.

import { Problem, ask, itemPath } from "./api.js";
import { FATAL, patiently } from "./queue.js";

const $ = (id) => document.getElementById(id);
/** Number of requests at the same time. */
const AT_ONCE = 4;

export class Bulk {
  #end = null;

  constructor() {
    $("working-stop").addEventListener("click", () => this.#end?.abort());
    $("confirm-no").addEventListener("click", () => $("confirm").close());
    // What is asked is about the page before.
    addEventListener("popstate", () => $("confirm").close());
  }

  /** Asks, and deletes items of a gallery. Calls `gone` with the id of each that is not there any more. Gives whether it was agreed to. */
  async remove(gallery, ids, gone = () => {}) {
    if (!(await this.agreed(`Delete ${counted(ids)} of “${gallery}”?`, "Delete"))) return false;
    await this.#each(ids, "deleted", async (id, signal) => {
      await ask(itemPath(id, gallery), { method: "DELETE", signal }).catch((error) => {
        // It was deleted before.
        if (error.status !== 404) throw error;
      });
      gone(id);
    });
    return true;
  }

  /** Asks, and gives items of a gallery new labels, `[id, label]` each. Calls `changed` with the id of each that has it, and `gone` with that of each that is not there any more. Gives whether it was agreed to. */
  async relabel(gallery, labels, { changed = () => {}, gone = () => {} } = {}) {
    if (labels.some(([, label]) => !label)) throw new Problem("A label has at least one character.");
    const names = new Set(labels.map(([, label]) => label));
    const to = names.size === 1 ? ` to “${[...names][0]}”` : "";
    if (!(await this.agreed(`Change the label of ${counted(labels)} of “${gallery}”${to}?`, "Change"))) return false;
    await this.#each(labels, "relabeled", async ([id, label], signal) => {
      const body = JSON.stringify({ label });
      try {
        await ask(itemPath(id, gallery), { method: "PATCH", body, type: "application/json", signal });
        changed(id);
      } catch (error) {
        if (error.status !== 404) throw error;
        gone(id);
      }
    });
    return true;
  }

  async #each(things, done, work) {
    if (this.#end) throw new Problem("Items are being changed already. Wait for them, or stop.");
    if (things.length === 0) throw new Problem("Nothing is selected.");
    this.#end = new AbortController();
    const { signal } = this.#end;
    const [waiting, failures] = [[...things], []];
    let count = 0;
    const report = () => {
      $("working-progress").value = count + failures.length;
      $("working-step").textContent = `${count} of ${things.length} ${done}.`;
    };
    $("failures").replaceChildren();
    $("working").hidden = false;
    $("done").hidden = true;
    Object.assign($("working-progress"), { max: things.length, value: 0 });
    report();
    $("working").scrollIntoView({ block: "nearest" });
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
        report();
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

  /** Asks a question; gives whether the answer is `yes`, the name of the button. */
  agreed(question, yes) {
    const dialog = $("confirm");
    $("confirm-question").textContent = question;
    $("confirm-yes").textContent = yes;
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
