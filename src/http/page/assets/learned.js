// What is learned from a gallery: probes and bases.

import { ask, element } from "./api.js";
import { guarded } from "./messages.js";

const $ = (id) => document.getElementById(id);
/** Time between two looks at a training, in milliseconds. */
const INTERVAL = 1000;

export class Learned {
  #looking = null;

  /** `gallery` returns the name of the open gallery, `confirm` asks before a deletion. */
  constructor(gallery, confirm) {
    Object.assign(this, { gallery, confirm });
    this.#onSubmit("train", async () => {
      const body = JSON.stringify({ name: $("probe-name").value.trim(), gallery: gallery() });
      await ask("/v1/probes", { method: "POST", body, type: "application/json" });
      $("probe-name").value = "";
    });
    this.#onSubmit("fit", async () => {
      const name = encodeURIComponent($("basis-name").value.trim());
      await ask(`/v1/bases/${name}?gallery=${encodeURIComponent(gallery())}`, { method: "PUT" });
      $("basis-name").value = "";
    });
  }

  #onSubmit(form, work) {
    $(form).addEventListener("submit", (event) => {
      event.preventDefault();
      guarded(async () => {
        await work();
        await this.show();
      });
    });
  }

  /** Lists what there is, again and again while a probe is being trained. */
  async show() {
    clearTimeout(this.#looking);
    const { data: listed } = await ask("/v1/probes");
    const probes = await Promise.all(listed.data.map(async ({ name }) => (await ask(`/v1/probes/${encodeURIComponent(name)}`)).data));
    const { data: bases } = await ask("/v1/bases");
    $("learned").hidden = false;
    $("probes").replaceChildren(...probes.map((probe) => this.#row("probes", probe.name, describeProbe(probe), probe.training)));
    $("bases").replaceChildren(...bases.data.map((basis) => this.#row("bases", basis.name, `${basis.images} images, ${basis.explained.length} components, by ${basis.model}`)));
    if (probes.some(({ state }) => state === "training")) {
      this.#look();
    }
  }

  /** Looks again after a while. A failure is not shown, as it would hide another; only a lasting one ends this. */
  #look() {
    this.#looking = setTimeout(() => this.show().catch((error) => {
      if (![401, 403, 404].includes(error.status)) this.#look();
    }), INTERVAL);
  }

  #row(kind, name, text, training) {
    const remove = element("button", { type: "button", className: "danger", "aria-label": `Delete ${name}` }, "Delete");
    remove.addEventListener("click", () => this.confirm(name, async () => {
      await ask(`/v1/${kind}/${encodeURIComponent(name)}`, { method: "DELETE" });
      await this.show();
    }));
    const row = element("li", {}, element("b", {}, name), element("span", { className: "hint" }, text));
    if (training) row.append(element("progress", { max: training.total ?? 1, value: training.total ? training.done : 0, "aria-label": `Training of ${name}` }));
    row.append(remove);
    return row;
  }
}

function describeProbe({ state, training, error, probe }) {
  if (state === "training") return `${training.stage}, ${training.done}${training.total ? ` of ${training.total}` : ""}`;
  if (state === "failed") return `failed: ${error.detail}`;
  return `${probe.classes.length} classes, ${Math.round(probe.accuracy * 100)} % right in cross-validation, from ${probe.examples} items of “${probe.gallery}”`;
}
