// Anomaly banks: learned from good pictures, and what is unusual in the photograph.

import { ask, askAbout, element, fetchWithKey, formOf, problemOf } from "./api.js";
import { commandLine, program } from "./commands.js";
import { offer, saveAnswer, stem } from "./download.js";
import { paintWhole, seenPart, shape } from "./draw.js";
import { say, working } from "./messages.js";
import { patiently } from "./queue.js";
import { Trained, inParts } from "./trained.js";

const $ = (id) => document.getElementById(id);
/** Good pictures that are shown, and their height in pixels. */
const [SHOWN, HEIGHT] = [24, 56];
const JSON_TYPE = "application/json";

const count = (number) => (number === 1 ? "1 good picture" : `${number} good pictures`);

function describe({ images, entries, patches, threshold, model, size }) {
  const limit = threshold === null ? "no threshold" : `threshold ${threshold.toFixed(2)}`;
  return `${count(images)}, ${entries} of ${patches} patches kept, ${limit}, by ${model} at ${size} px.`;
}

/** What a score means, with the class of its look. */
function verdict({ score, threshold, anomalous }) {
  const shown = score.toFixed(2);
  if (threshold === null) return ["", "No threshold", `Score ${shown}. A bank of one picture has no threshold.`];
  const limit = threshold.toFixed(2);
  return anomalous ? ["is-bad", "Anomalous", `Score ${shown}, above the threshold ${limit}.`]
    : ["is-good", "As the good ones", `Score ${shown}, not above the threshold ${limit}.`];
}

/** Frames around unusual places, with their scores. */
function frames({ width, height, boxes }) {
  const letter = Math.max(width, height) / 30;
  return boxes.flatMap(({ box: [left, top, right, bottom], score }) => {
    const place = { x: left, y: top, width: right - left, height: bottom - top, fill: "none" };
    const y = top > letter * 1.4 ? top - letter * 0.7 : Math.min(bottom, height - letter * 1.4) + letter * 0.7;
    const x = Math.min(Math.max((left + right) / 2, letter * 1.2), width - letter * 1.2);
    return [
      shape("rect", { ...place, stroke: "#000", "stroke-width": 4.5 }), shape("rect", { ...place, stroke: "#fff", "stroke-width": 2 }),
      shape("text", { x, y, "font-size": letter, "stroke-width": letter / 5 }, score.toFixed(2)),
    ];
  });
}

export class Bank {
  /** The good pictures to learn from: `{file, name}` each. */
  #good = [];
  /** The bank that was made last, and the good pictures that were sent for it. */
  #made = { name: "", files: new Set() };
  #scoring = new AbortController();
  /** Address of the heat map. */
  #heat = "";

  /** `page`: the workspace. `queued` returns the photographs of the queue, and `open` opens one. */
  constructor(page, { queued, open }) {
    Object.assign(this, { page, queued, open });
    this.trained = new Trained({ id: "bank", route: "anomaly", key: "bank", describe, changed: () => this.#changed() });
    $("bank").addEventListener("click", () => (this.isOpen ? this.close() : this.#open()));
    $("bank-close").addEventListener("click", () => {
      this.close();
      $("bank").focus();
    });
    $("bank-files").addEventListener("change", ({ target }) => {
      this.add([...target.files].map((file) => ({ file, name: file.name })));
      target.value = "";
    });
    $("bank-queue").addEventListener("click", () => this.add(queued()));
    $("bank-none").addEventListener("click", () => this.add([], []));
    $("bank-make").addEventListener("submit", (event) => {
      event.preventDefault();
      this.trained.guarded(() => this.#learn("PUT"));
    });
    $("bank-add").addEventListener("click", () => $("bank-make").reportValidity() && this.trained.guarded(() => this.#learn("POST")));
    $("bank-name").addEventListener("input", () => this.#update());
    $("bank-opacity").addEventListener("input", () => this.#fade());
    $("bank-all").addEventListener("click", () => this.trained.guarded(() => this.#scoreAll()));
  }

  get isOpen() {
    return !$("bank-card").hidden;
  }

  #setOpen(isOpen) {
    $("bank").setAttribute("aria-pressed", String(isOpen));
    $("bank-card").hidden = !isOpen;
  }

  #open() {
    this.#setOpen(true);
    $("bank-card").scrollIntoView({ block: "start", behavior: "smooth" });
    this.#update();
    this.trained.guarded(async () => {
      const chosen = await this.trained.list();
      $("bank-parts").hidden = false;
      await this.trained.choose(chosen);
    });
  }

  close() {
    this.#scoring.abort();
    this.trained.close();
    this.#setOpen(false);
    $("bank-parts").hidden = true;
    this.page.showCommands();
  }

  /** Adds good pictures, `{file, name}` each, to those `before`. */
  add(pictures, before = this.#good) {
    this.#good = [...before, ...pictures];
    this.trained.guarded(async () => {
      const shown = this.#good.slice(0, SHOWN);
      $("bank-good").replaceChildren(...shown.map(({ file, name }) => element("li", { title: name }, this.#thumbnail(file, name))));
    });
    this.#update();
  }

  #thumbnail(file, name) {
    const canvas = element("canvas", { width: HEIGHT, height: HEIGHT, role: "img", "aria-label": name });
    createImageBitmap(file, { resizeHeight: HEIGHT, resizeQuality: "medium" }).then((picture) => {
      canvas.width = picture.width;
      canvas.getContext("2d").drawImage(picture, 0, 0);
      picture.close();
    }, () => canvas.replaceWith(name));
    return canvas;
  }

  #update() {
    const number = this.#good.length;
    const rest = number > SHOWN ? ` ${number - SHOWN} of them are not shown.` : "";
    $("bank-count").textContent = number === 0 ? "Ten pictures without a defect are a good start." : `${count(number)}.${rest}`;
    $("bank-none").hidden = number === 0;
    const name = $("bank-name").value.trim();
    $("bank-submit").disabled = number === 0;
    $("bank-add").disabled = this.#newFor(name).length === 0;
    $("bank-add").hidden = !this.trained.stored || name !== this.trained.name;
    $("bank-submit").textContent = $("bank-add").hidden ? "Make the bank" : "Make it again";
    this.page.showCommands();
  }

  /** The good pictures that were not sent for a bank yet. */
  #newFor(name) {
    return name === this.#made.name ? this.#good.filter(({ file }) => !this.#made.files.has(file)) : this.#good;
  }

  async #learn(method) {
    const name = $("bank-name").value.trim();
    const isNew = method === "PUT";
    const pictures = isNew ? this.#good : this.#newFor(name);
    const bodies = inParts(pictures.map(({ file, name }) => ({ file, name, size: file.size }))).map(formOf);
    const options = ["tokens", "coreset", "foreground", "augment"].map((option) => `&${option}=${$(`bank-${option}`).value}`).join("");
    const query = isNew ? this.page.path("", options).slice("/v1/".length) : "";
    await this.trained.train(name, { method, query, bodies });
    const before = isNew || name !== this.#made.name ? [] : this.#made.files;
    this.#made = { name, files: new Set([...before, ...pictures.map(({ file }) => file)]) };
    this.#update();
    say(`The bank “${name}” is ready.`);
    $("bank-scores").replaceChildren();
  }

  /** Shows the photograph by the chosen bank. */
  #changed() {
    if (this.trained.name) $("bank-name").value = this.trained.name;
    $("bank-all").disabled = !this.trained.stored;
    $("bank-scores").replaceChildren();
    this.#update();
    this.trained.guarded(() => this.show());
  }

  /** Scores the open photograph. */
  async show() {
    this.#scoring.abort();
    this.#scoring = new AbortController();
    const { signal } = this.#scoring;
    const { photo, timings } = this.page;
    this.#clear();
    if (!this.isOpen || !photo || !this.trained.stored) return;
    const path = this.trained.path(this.trained.name, "/score");
    await working($("bank-stage"), async () => {
      const { data, timing } = await patiently(() => askAbout(path, photo.file, { signal }), signal);
      timings.show("Anomaly", timing);
      const response = await fetchWithKey(`${path}?overlay=0.8`, { method: "POST", body: formOf([photo]), headers: { Accept: "image/png" }, signal });
      if (!response.ok) throw await problemOf(response);
      const heat = await response.blob();
      signal.throwIfAborted();
      this.#draw(photo, data, heat);
    });
    const save = (type, end, query = "") => saveAnswer(path + query, [photo], type, `${stem(photo)}-${end}`, signal);
    offer($("bank-downloads"), [
      ["PNG", () => save("image/png", "anomaly.png")],
      ["mask PNG", () => save("image/png", "anomaly-mask.png", "?output=mask")],
      ["npy", () => save("application/x-npy", "anomaly.npy")],
      ["JSON", () => save(JSON_TYPE, "anomaly.json")],
    ], (work) => this.trained.guarded(work));
  }

  #clear() {
    URL.revokeObjectURL(this.#heat);
    $("bank-result").hidden = !this.trained.stored;
    $("bank-verdict").replaceChildren();
    $("bank-verdict").className = "verdict";
    $("bank-stage").querySelector("svg")?.remove();
    $("bank-boxes").replaceChildren();
    $("bank-downloads").replaceChildren();
  }

  #draw(photo, data, heat) {
    const [look, title, text] = verdict(data);
    if (look) $("bank-verdict").classList.add(look);
    $("bank-verdict").replaceChildren(element("b", {}, title), ` ${text}`);
    const { width, height, grid, size, boxes } = data;
    const { patchSize } = this.page;
    paintWhole($("bank-photo"), photo.picture, data, patchSize);
    $("bank-photo").setAttribute("aria-label", `${photo.name}: ${title}`);
    this.#heat = URL.createObjectURL(heat);
    const [x, y, wide, high] = seenPart(data, grid, size, patchSize);
    const map = shape("image", { href: this.#heat, x, y, width: wide, height: high, preserveAspectRatio: "none", id: "bank-heat" });
    $("bank-stage").append(shape("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, map, ...frames(data)));
    this.#fade();
    const places = boxes.map(({ box, score }) => {
      const [left, top, right, bottom] = box.map(Math.round);
      return `${score.toFixed(2)} from (${left}, ${top}) to (${right}, ${bottom})`;
    });
    $("bank-boxes").replaceChildren(...places.map((place) => element("li", {}, place)));
  }

  #fade() {
    $("bank-heat")?.setAttribute("opacity", $("bank-opacity").value);
  }

  /** Scores all photographs of the queue, one after the other. */
  async #scoreAll() {
    const path = this.trained.path(this.trained.name, "/score");
    const { signal } = this.trained;
    $("bank-all").disabled = true;
    $("bank-scores").replaceChildren();
    try {
      for (const { file, name } of this.queued()) {
        const button = element("button", { type: "button" }, name);
        button.addEventListener("click", () => this.open(file));
        const text = element("span", { className: "hint" }, "…");
        $("bank-scores").append(element("li", {}, button, text));
        try {
          const { data } = await patiently(() => askAbout(path, file, { signal }), signal);
          const [look, title] = verdict(data);
          text.className = `verdict ${look}`;
          text.textContent = `${data.score.toFixed(2)} ${title}`;
        } catch (error) {
          if (!error.status) throw error;
          text.textContent = error.message;
        }
      }
    } finally {
      $("bank-all").disabled = false;
    }
  }

  /** The command lines and programs of what is shown. */
  commands() {
    const { photo, model, size } = this.page;
    if ($("bank-parts").hidden || !photo) return [];
    const name = $("bank-name").value.trim() || "good";
    const names = this.#good.slice(0, 4).map((picture) => picture.name);
    const rest = this.#good.length > 4 ? `  # and ${this.#good.length - 4} more` : "";
    const options = { size, ...(model && { model }), wait: true };
    const route = `anomaly/${encodeURIComponent(name)}`;
    const made = names.length > 0
      ? [["Anomaly bank", commandLine(route, { method: "PUT", options, files: names.map((file) => ["image", file]), end: rest }), program("learn_bank", [name, names], `answer${rest}`)]]
      : [];
    return [
      ...made,
      ["Score of the photograph", commandLine(`${route}/score`, { files: [["image", photo.name]], end: ` -H 'Accept: ${JSON_TYPE}'` }), program("score", [name, photo.name])],
      ["Unusual places over the photograph", commandLine(`${route}/score`, { files: [["image", photo.name]], end: " -o anomaly.png" }), program("anomaly_image", [name, photo.name], 'answer.save("anomaly.png")')],
    ];
  }
}
