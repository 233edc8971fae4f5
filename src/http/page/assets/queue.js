// Many photographs: a tile for each, filled in the background.

import { Problem, element, fetchWithKey, problemOf } from "./api.js";

/** Number of photographs that are sent at the same time. */
const AT_ONCE = 2;
/** Number of photographs whose parts are computed together, at most. */
export const JOINT = 8;
/** Width of a tile's picture, in pixels. */
const WIDTH = 160;

/** Runs `work`, and again after a pause while the server is busy. */
export async function patiently(work, signal) {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (error.status !== 503 && error.status !== 429) throw error;
      await pause(1000 * (error.retryAfter || 1), signal);
    }
  }
}

/** Resolves after `milliseconds`, and fails at once when `signal` ends. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

/** Statuses after which no other photograph can succeed: no server, no permission. */
export const FATAL = [0, 401, 403];

/** The card of photographs. */
export class Queue {
  #waiting = [];
  #running = 0;
  #end = new AbortController();

  /** `partsOf` gives the path of the request for the parts of a photograph, `open` shows one, and `fail` an error that ends all. */
  constructor(card, { partsOf, open, fail }) {
    const part = (name) => card.querySelector(`#queue-${name}`);
    Object.assign(this, { card, partsOf, open, fail, photos: [], failures: [] });
    this.parts = { summary: part("summary"), progress: part("progress"), tiles: part("tiles"), failures: part("failures") };
    part("clear").addEventListener("click", () => this.clear());
  }

  /** Ends when all photographs are removed. */
  get signal() {
    return this.#end.signal;
  }

  get done() {
    return this.photos.filter(({ state }) => state === "ready" || state === "failed").length;
  }

  /** Adds photographs, `{file, name}` each. */
  add(photos) {
    for (const photo of photos) {
      photo.state = "waiting";
      photo.tile = this.#tile(photo);
      this.photos.push(photo);
      this.#waiting.push(photo);
    }
    this.parts.tiles.append(...photos.map(({ tile }) => tile));
    this.card.hidden = this.photos.length === 0;
    this.#report();
    while (this.#running < AT_ONCE && this.#waiting.length > 0) this.#work();
  }

  clear() {
    this.#end.abort();
    this.#end = new AbortController();
    [this.photos, this.failures, this.#waiting, this.#running] = [[], [], [], 0];
    this.parts.tiles.replaceChildren();
    this.parts.failures.replaceChildren();
    this.card.hidden = true;
  }

  /** Marks the photograph that is open. */
  mark(file) {
    for (const photo of this.photos) photo.tile.firstChild.setAttribute("aria-pressed", String(photo.file === file));
  }

  #tile(photo) {
    const canvas = element("canvas", { width: WIDTH, height: WIDTH * 0.75, role: "img", "aria-label": `Parts of ${photo.name}` });
    const button = element("button", { type: "button", "aria-pressed": "false", title: photo.name }, canvas, element("span", { className: "name" }, photo.name));
    button.addEventListener("click", () => this.open(photo.file));
    return element("li", { className: "working" }, button);
  }

  async #work() {
    this.#running++;
    const { signal } = this.#end;
    while (this.#waiting.length > 0 && !signal.aborted) {
      const photo = this.#waiting.shift();
      try {
        await patiently(() => this.#show(photo, signal), signal);
        if (signal.aborted) return;
        photo.state = "ready";
      } catch (error) {
        if (signal.aborted) return;
        if (FATAL.includes(error.status)) {
          this.clear();
          this.fail(error);
          return;
        }
        photo.state = "failed";
        const reason = error instanceof Problem ? error.message : `This page failed: ${error.message}`;
        photo.tile.firstChild.append(element("span", { className: "failed" }, "cannot be used"));
        this.failures.push(photo);
        this.parts.failures.append(element("li", {}, `${photo.name}: ${reason}`));
      }
      if (signal.aborted) return;
      photo.tile.classList.remove("working");
      this.#report();
    }
    if (!signal.aborted) this.#running--;
  }

  /** Draws all tiles again, with another model. */
  redo() {
    const { photos } = this;
    this.clear();
    this.add(photos);
  }

  /** Draws the photograph's left half and the parts of its right half. */
  async #show(photo, signal) {
    const type = photo.file.type || "application/octet-stream";
    const response = await fetchWithKey(this.partsOf(), {
      method: "POST", body: photo.file, signal, headers: { Accept: "image/png", "Content-Type": type },
    });
    if (!response.ok) throw await problemOf(response);
    const parts = await createImageBitmap(await response.blob());
    signal.throwIfAborted();
    const canvas = photo.tile.querySelector("canvas");
    canvas.height = Math.min(Math.round((WIDTH * parts.height) / parts.width), WIDTH * 2);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(parts, 0, 0, canvas.width, canvas.height);
    parts.close();
    try {
      const picture = await createImageBitmap(photo.file, { resizeWidth: WIDTH, resizeQuality: "medium" });
      const half = canvas.width / 2;
      context.drawImage(picture, 0, 0, picture.width / 2, picture.height, 0, 0, half, canvas.height);
      picture.close();
    } catch {
      // The browser cannot read this format, but the server could: the whole tile has the parts.
    }
  }

  #report() {
    const { summary, progress } = this.parts;
    const [count, done, failed] = [this.photos.length, this.done, this.failures.length];
    Object.assign(progress, { max: count || 1, value: done });
    progress.hidden = done === count;
    const failures = failed ? `, ${failed} cannot be used` : "";
    // Screen readers announce the beginning and the end, not every photograph.
    summary.setAttribute("aria-live", done === 0 || done === count ? "polite" : "off");
    const joint = this.card.querySelector("#queue-joint");
    joint.textContent = count > JOINT ? "Parts of the first eight together" : "Parts of all together";
    summary.textContent = done < count ? `${done - failed} of ${count} are ready${failures}.` : `${count - failed} are ready${failures}. Click one to explore it.`;
  }
}
