// What is trained on the playground: the choice of one by its name, the progress of its training, and its deletion.

import { Problem, ask, element } from "./api.js";
import { guarded } from "./messages.js";
import { patiently, pause } from "./queue.js";

const $ = (id) => document.getElementById(id);
/** Time between two looks at a training, in milliseconds. */
const INTERVAL = 700;
/** Files in a request and their bytes, at most. Servers take 64 and 32 MiB by default. */
const [MOST_FILES, MOST_BYTES] = [64, 30 << 20];

const STAGES = {
  reading: "Reading the photographs",
  choosing: "Choosing patches",
  calibrating: "Finding the threshold",
  validating: "Cross-validation",
  fitting: "Fitting",
};

/** A training's progress in words. */
function inWords({ stage, done, total }) {
  return `${STAGES[stage] ?? stage}: ${done}${total ? ` of ${total}` : " steps"}.`;
}

/** Parts files, each with its `size`, into those of several requests. */
export function inParts(files) {
  const parts = [];
  let bytes = Infinity;
  for (const file of files) {
    if (bytes + file.size > MOST_BYTES || parts.at(-1).length === MOST_FILES) {
      parts.push([]);
      bytes = 0;
    }
    parts.at(-1).push(file);
    bytes += file.size;
  }
  return parts;
}

/** Asks in a dialog; true if the answer is yes. */
function confirmed(question, yes) {
  const go = element("button", { type: "button", className: "danger" }, yes);
  const keep = element("button", { type: "button", autofocus: true }, "Keep");
  const dialog = element("dialog", { "aria-label": question }, element("h2", {}, question),
    element("p", { className: "hint" }, "This cannot be undone."), element("br"), element("div", { className: "dialog-actions" }, go, keep));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    go.addEventListener("click", () => dialog.close("yes"));
    keep.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}

export class Trained {
  /** What is stored under the chosen name, or null. */
  stored = null;
  #end = new AbortController();
  #watching = new AbortController();
  /** The name that is being trained, or empty. */
  #training = "";

  /**
   * `id` begins the ids of the elements, `route` is that of the API below `/v1`, and `key` that of what is stored in its answers.
   * `describe` returns what is stored in words, and `changed` is called when another is chosen or ready.
   */
  constructor({ id, route, key, describe, changed }) {
    Object.assign(this, { route, key, describe, changed });
    const part = (name) => $(`${id}-${name}`);
    this.parts = Object.fromEntries(["choice", "delete", "facts", "training", "step", "progress", "cancel", "error"].map((name) => [name, part(name)]));
    this.parts.choice.addEventListener("change", () => this.guarded(() => this.choose(this.name)));
    this.parts.delete.addEventListener("click", () => this.guarded(() => this.#delete(this.name)));
    this.parts.cancel.addEventListener("click", () => this.guarded(() => this.#cancel()));
  }

  /** The chosen name, or empty. */
  get name() {
    return this.parts.choice.value;
  }

  get signal() {
    return this.#end.signal;
  }

  /** Runs what may fail, and says within the tool what went wrong. */
  guarded(work) {
    return guarded(work, this.parts.error);
  }

  path(name, below = "") {
    return `/v1/${this.route}/${encodeURIComponent(name)}${below}`;
  }

  /** Ends all requests. Trainings go on. */
  close() {
    this.#end.abort();
    this.#watching.abort();
    this.#end = new AbortController();
    this.#show(null);
  }

  /** Lists what there is, and chooses `name`, or else what was chosen before, or else the first. */
  async list(name = this.name) {
    const { data } = await ask(`/v1/${this.route}`, { signal: this.signal });
    const names = data.data.map((trained) => trained.name);
    const chosen = names.includes(name) ? name : names[0] ?? "";
    const options = names.map((value) => element("option", { value, selected: value === chosen }, value));
    this.parts.choice.replaceChildren(...(options.length > 0 ? options : [element("option", { value: "" }, "none yet")]));
    this.parts.choice.disabled = this.parts.delete.disabled = options.length === 0;
    return chosen;
  }

  /** Shows what is stored under `name`, after its training if there is one. */
  async choose(name) {
    this.#watching.abort();
    this.#watching = new AbortController();
    const { signal } = this.#watching;
    this.stored = null;
    this.parts.facts.textContent = "";
    this.#show(null);
    this.changed();
    if (!name) return;
    for (;;) {
      const { data } = await patiently(() => ask(this.path(name), { signal }), signal);
      this.#training = data.state === "training" ? name : "";
      this.#replaces = Boolean(data[this.key]);
      this.#show(data.training && { text: inWords(data.training), ...data.training });
      if (data.state === "training") {
        await pause(INTERVAL, signal);
        continue;
      }
      this.stored = data[this.key] ?? null;
      this.parts.facts.textContent = this.stored ? this.describe(this.stored) : "";
      this.changed();
      if (data.state === "failed") throw new Problem(`The training of “${name}” failed: ${data.error.detail}`);
      return;
    }
  }

  /** Whether the training replaces what is stored. */
  #replaces = false;

  /** Trains `name` by requests with these bodies, the first with `method` and `query`, the others added to it. */
  async train(name, { method, query, bodies }) {
    this.#watching.abort();
    this.parts.facts.textContent = "";
    for (const [index, body] of bodies.entries()) {
      const part = bodies.length > 1 ? `, part ${index + 1} of ${bodies.length}` : "";
      this.#show({ text: `Sending the photographs${part}.`, done: 0 });
      const { signal } = this;
      const path = this.path(name) + (index === 0 ? query : "");
      try {
        await patiently(() => ask(path, { method: index === 0 ? method : "POST", body, signal }), signal);
      } catch (error) {
        this.#show(null);
        throw error;
      }
      await this.list(name);
      await this.choose(name);
    }
  }

  async #cancel() {
    const name = this.#training;
    if (!name) {
      this.close();
      await this.choose(await this.list());
    } else if (!this.#replaces || await confirmed(`Stop, and delete “${name}” as it was before, too?`, "Delete")) {
      await this.#remove(name);
    }
  }

  async #delete(name) {
    if (await confirmed(`Delete “${name}”?`, "Delete")) await this.#remove(name);
  }

  async #remove(name) {
    this.#watching.abort();
    this.#training = "";
    await ask(this.path(name), { method: "DELETE", signal: this.signal });
    await this.choose(await this.list());
  }

  /** Shows a progress, `{text, done, total}`, or none. */
  #show(progress) {
    const { training, step, progress: bar } = this.parts;
    training.hidden = !progress;
    step.textContent = progress?.text ?? "";
    if (progress?.total) Object.assign(bar, { max: progress.total, value: progress.done });
    else bar.removeAttribute("value");
  }
}
