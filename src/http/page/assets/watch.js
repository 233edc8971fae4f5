// A job on a gallery, which is looked at until it ends; and the choice of the gallery.

import { Problem, ask, element, servedModels, showModel } from "./api.js";
import { guarded } from "./messages.js";
import { patiently, pause } from "./queue.js";

const $ = (id) => document.getElementById(id);
/** Time between two looks, in milliseconds. */
const INTERVAL = 500;

export class GalleryJob {
  #watching = new AbortController();
  /** The query of the address that is shown. */
  #address = location.search;

  /**
   * `what` is the last part of the path, `steps` has the stages in words, and `buttons` the ids of those that wait for its end.
   * `show` gets what the job made, or null.
   */
  constructor({ what, steps, buttons, show }) {
    Object.assign(this, { what, steps, buttons, show });
    $("cancel").addEventListener("click", () => guarded(async () => {
      // One that has just ended keeps what it made.
      const { data } = await ask(this.path());
      if (data.state === "running") await ask(this.path(), { method: "DELETE" });
      await this.watch();
    }));
    $("gallery").addEventListener("change", () => {
      this.#address = `?${new URLSearchParams({ gallery: this.gallery })}`;
      history.pushState(null, "", this.#address);
      guarded(() => this.watch());
    });
    addEventListener("popstate", () => {
      // A link within the page changes only the fragment.
      if (location.search === this.#address) return;
      this.#address = location.search;
      guarded(() => this.#recall());
    });
  }

  get gallery() {
    return $("gallery").value;
  }

  path(what = this.what) {
    return `/v1/galleries/${encodeURIComponent(this.gallery)}/${what}`;
  }

  /** Lists the galleries, and shows the one that the address bar names. */
  async start() {
    const [model] = await servedModels();
    showModel(model, $("model"));
    const { data } = await ask("/v1/galleries").catch((error) => {
      // A server without a store has none.
      if (error.status === 404) $("choice").hidden = true;
      throw error;
    });
    $("gallery").replaceChildren(...data.data.map(({ name, items }) => element("option", { value: name }, `${name} (${items.toLocaleString("en")})`)));
    $("start").disabled = data.data.length === 0;
    if (data.data.length === 0) throw new Problem("This server has no gallery yet. Add photos to one first.");
    await this.#recall();
  }

  async #recall() {
    const wanted = new URLSearchParams(location.search).get("gallery");
    const names = [...$("gallery").options].map(({ value }) => value);
    $("gallery").value = names.includes(wanted) ? wanted : names[0];
    await this.watch();
    if (wanted && !names.includes(wanted)) throw new Problem(`This server has no gallery “${wanted}”. Choose another.`);
  }

  /** Begins the job with options, and watches it. */
  async begin(options) {
    await ask(`${this.path()}?${new URLSearchParams(options)}`, { method: "POST" }).catch((error) => {
      if (error.status !== 503) throw error;
      throw new Problem("Something else is being trained, audited or mapped. Try again when it is ready.");
    });
    await this.watch();
  }

  /** Shows what the job made, as soon as it ends. */
  async watch() {
    this.#watching.abort();
    this.#watching = new AbortController();
    const { signal } = this.#watching;
    const path = this.path();
    for (const link of document.querySelectorAll("nav a[href*='gallery'], nav a[href*='audit'], nav a[href*='map']")) {
      link.search = `?${new URLSearchParams({ gallery: this.gallery })}`;
    }
    this.#progress(null);
    this.show(null);
    for (;;) {
      const { data } = await patiently(() => ask(path, { signal }), signal).catch((error) => {
        if (error.status === 404) return { data: {} };
        if (!signal.aborted) this.#progress(null);
        throw error;
      });
      signal.throwIfAborted();
      this.#progress(data.progress);
      if (data.state !== "running") {
        await this.show(data[this.what] ?? null);
        if (data.state === "failed") throw new Problem(`The last one failed: ${data.error.detail}`);
        return;
      }
      await pause(INTERVAL, signal);
    }
  }

  #progress(progress) {
    $("running").hidden = !progress;
    for (const id of this.buttons) $(id).disabled = Boolean(progress);
    if (!progress) return;
    const { stage, done, total } = progress;
    $("step").textContent = `${this.steps[stage] ?? stage} …`;
    Object.assign($("progress"), { max: total || 1, value: done });
  }
}
