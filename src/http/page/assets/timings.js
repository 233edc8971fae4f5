// Duration of each request by stage, from its `Server-Timing` header.

import { element } from "./api.js";

const STAGES = ["decode", "resize", "queue", "inference", "post", "search"];

export class Timings {
  #place;
  #rows = new Map();

  constructor(place) {
    this.#place = place;
  }

  clear() {
    this.#rows.clear();
    this.#paint();
  }

  /** Shows the stages of the request called `name`, in milliseconds. */
  show(name, stages) {
    this.#rows.set(name, stages);
    this.#paint();
  }

  #paint() {
    const total = (stages) => STAGES.reduce((sum, stage) => sum + (stages[stage] ?? 0), 0);
    const longest = Math.max(1, ...[...this.#rows.values()].map(total));
    const rows = [...this.#rows].map(([name, stages]) => {
      const bars = element("span", { className: "bars", role: "cell" });
      const texts = [];
      for (const stage of STAGES.filter((stage) => stages[stage] > 0)) {
        const bar = element("span", { className: stage });
        bar.style.width = `${(stages[stage] / longest) * 100}%`;
        bars.append(bar);
        texts.push(`${stage} ${stages[stage].toFixed(1)} ms`);
      }
      bars.title = texts.join(", ") || "from the cache";
      bars.setAttribute("aria-label", bars.title);
      return element("div", { role: "row" }, element("span", { role: "rowheader" }, name), bars,
        element("span", { className: "total", role: "cell" }, texts.length ? `${total(stages).toFixed(0)} ms` : "cached"));
    });
    const used = STAGES.filter((stage) => [...this.#rows.values()].some((stages) => stages[stage] > 0));
    const keys = element("p", { className: "keys" }, ...used.map((stage) => element("span", {}, element("i", { className: stage }), stage)));
    this.#place.replaceChildren(...rows, keys);
  }
}
