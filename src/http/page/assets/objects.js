// The objects of the photographs: over them, and as a list.

import { askAbout, element } from "./api.js";
import { COLORS, pathOf, seenPart, shape } from "./draw.js";
import { offer, saveAnswer, stem } from "./download.js";
import { guarded, percent, working } from "./messages.js";

const $ = (id) => document.getElementById(id);

function sentence(count) {
  if (count === 0) return "No object stands out.";
  return count === 1 ? "1 object stands out." : `${count} objects stand out.`;
}

/** A point within an object: the middle of its widest run at half its height. */
function middleOf({ box: [left, top, right, bottom], polygons }) {
  const y = (top + bottom) / 2 + 0.01;
  const crossings = polygons.flatMap((points) => points.flatMap(([x, from], index) => {
    const [nextX, to] = points[(index + 1) % points.length];
    return from < y === to < y ? [] : [x + ((y - from) / (to - from)) * (nextX - x)];
  })).sort((a, b) => a - b);
  let [from, to] = crossings.length > 1 ? [0, 0] : [left, right];
  for (let index = 0; index + 1 < crossings.length; index += 2) {
    if (crossings[index + 1] - crossings[index] > to - from) [from, to] = [crossings[index], crossings[index + 1]];
  }
  return [(from + to) / 2, y];
}

/** Draws objects over what the model saw of the photograph, and darkens the rest. */
function drawing({ width, height, objects }, part) {
  const letter = Math.max(part[2], part[3]) / 26;
  const whole = [[[0, 0], [width, 0], [width, height], [0, height]]];
  const rest = shape("path", { d: pathOf(whole.concat(...objects.map(({ polygons }) => polygons))), fill: "#000", "fill-opacity": 0.45, "fill-rule": "evenodd" });
  const regions = objects.map(({ polygons }, index) => shape("path", {
    d: pathOf(polygons), fill: COLORS[index], "fill-opacity": 0.38, "fill-rule": "evenodd", stroke: COLORS[index], "stroke-width": 2,
  }));
  const numbers = objects.map((object, index) => {
    const [x, y] = middleOf(object);
    return shape("text", { x, y, "font-size": letter, "stroke-width": letter / 5 }, String(index + 1));
  });
  return shape("svg", { viewBox: part.join(" "), "aria-hidden": "true" }, rest, ...regions, ...numbers);
}

/** The objects with their colors, the share of the attention, and the size. */
function list({ width, height, objects }) {
  return element("ol", {}, ...objects.map(({ score, area }, index) => {
    const color = element("i");
    color.style.background = COLORS[index];
    return element("li", {}, color, element("b", {}, String(index + 1)), `${percent(score)} of the attention, ${percent(area / (width * height))} of the area`);
  }));
}

export class Objects {
  /** Number of the latest request; answers to earlier ones are dropped. */
  #latest = 0;

  /** `page`: the workspace. */
  constructor(page) {
    this.page = page;
    const lay = (isOn) => page.layOver(isOn ? { objects: $("objects-method").value } : null);
    $("objects").addEventListener("click", () => lay($("objects").getAttribute("aria-pressed") === "false"));
    $("objects-method").addEventListener("change", () => lay(true));
  }

  /** Shows the objects of the open photographs, found by `method`, or takes them away. */
  show(method) {
    const number = ++this.#latest;
    $("objects").setAttribute("aria-pressed", String(Boolean(method)));
    $("objects-choice").hidden = $("objects-found").hidden = !method;
    $("objects-summary").textContent = "";
    $("objects-found").replaceChildren();
    for (const svg of document.querySelectorAll("#results .column .stage svg")) svg.remove();
    if (!method) return;
    guarded(async () => {
      try {
        await this.#find(method, () => number === this.#latest);
      } catch (error) {
        if (number === this.#latest) this.page.layOver(null);
        throw error;
      }
    });
  }

  async #find(method, isLatest) {
    const { photo, second, signal, size, patchSize, timings } = this.page;
    const path = this.page.path("objects", `&method=${method}`);
    const sentences = [];
    for (const shown of [photo, second].filter(Boolean)) {
      const stage = $(shown === photo ? "photo" : "second").parentElement;
      const { data, timing } = await working(stage, () => askAbout(path, shown.file, { signal }));
      if (!isLatest()) return;
      timings.show("Objects", timing);
      if (data.objects.length > 0) stage.append(drawing(data, seenPart(data, shown.grid, size, patchSize)));
      sentences.push(`${second ? `${shown.name}: ` : ""}${sentence(data.objects.length)}`);
      $("objects-found").append(this.#entry(shown, data, path, Boolean(second)));
    }
    $("objects-summary").textContent = sentences.join(" ");
  }

  /** What is found in one photograph, with its files. */
  #entry(photo, data, path, isNamed) {
    const downloads = element("p", { className: "downloads" });
    const save = (type, end, options = "") => saveAnswer(path + options, [photo], type, `${stem(photo)}-${end}`);
    offer(downloads, [
      ["PNG", () => save("image/png", "objects.png")],
      ["mask PNG", () => save("image/png", "objects-mask.png", "&output=mask")],
      ["JSON", () => save("application/json", "objects.json")],
      ["npy", () => save("application/x-npy", "objects.npy")],
    ], guarded);
    const caption = isNamed ? [element("h3", {}, photo.name)] : [];
    const found = data.objects.length > 0 ? [list(data), downloads] : [];
    return element("div", {}, ...caption, ...found);
  }
}
