// The audit of a gallery: starts it, shows its progress, and then its findings.

import { Problem, ask, element, fetchWithKey, problemOf, servedModels, showModel } from "./api.js";
import { Bulk } from "./bulk.js";
import { save } from "./download.js";
import { Findings } from "./findings.js";
import { guarded } from "./messages.js";
import { pause } from "./queue.js";

const $ = (id) => document.getElementById(id);
/** Time between two looks at an audit, in milliseconds. */
const INTERVAL = 500;
const STEPS = { reading: "Reading the items", comparing: "Comparing each with all others", checking: "Checking labels", grouping: "Forming groups" };

/** Ends when another gallery is chosen, or another audit begins. */
let watching = new AbortController();

const findings = new Findings($("findings"), new Bulk(() => $("gallery").value));

start();

function start() {
  $("options").addEventListener("submit", (event) => {
    event.preventDefault();
    guarded(begin);
  });
  $("gallery").addEventListener("change", () => {
    history.pushState(null, "", `?${new URLSearchParams({ gallery: $("gallery").value })}`);
    guarded(show);
  });
  addEventListener("popstate", () => guarded(recall));
  for (const id of ["cancel", "forget"]) $(id).addEventListener("click", () => guarded(remove));
  $("csv").addEventListener("click", () => guarded(saveRows));
  guarded(async () => {
    const [model] = await servedModels();
    showModel(model, $("model"));
    const { data } = await ask("/v1/galleries").catch((error) => {
      // A server without a store has nothing to audit.
      if (error.status === 404) $("choice").hidden = true;
      throw error;
    });
    $("gallery").replaceChildren(...data.data.map(({ name, items }) => element("option", { value: name }, `${name} (${items.toLocaleString("en")})`)));
    $("start").disabled = data.data.length === 0;
    if (data.data.length === 0) throw new Problem("This server has no gallery yet. Add photos to one first.");
    await recall();
  });
}

/** Shows the gallery that the address bar names. */
async function recall() {
  const wanted = new URLSearchParams(location.search).get("gallery");
  const names = [...$("gallery").options].map(({ value }) => value);
  $("gallery").value = names.includes(wanted) ? wanted : names[0];
  await show();
  if (wanted && !names.includes(wanted)) throw new Problem(`This server has no gallery “${wanted}”. Choose another.`);
}

function path() {
  return `/v1/galleries/${encodeURIComponent($("gallery").value)}/audit`;
}

async function begin() {
  const query = new URLSearchParams({ duplicates_above: $("duplicates-above").value });
  if ($("clusters").value) query.set("clusters", $("clusters").value);
  await ask(`${path()}?${query}`, { method: "POST" });
  await show();
}

/** Shows the audit of the gallery, again and again while it runs. */
async function show() {
  watching.abort();
  watching = new AbortController();
  const { signal } = watching;
  showReport(null);
  for (;;) {
    const { data } = await ask(path(), { signal }).catch((error) => {
      if (error.status === 404) return { data: {} };
      throw error;
    });
    showProgress(data.progress);
    if (data.state !== "running") {
      showReport(data.audit);
      if (data.state === "failed") throw new Problem(`The audit failed: ${data.error.detail}`);
      return;
    }
    await pause(INTERVAL, signal);
  }
}

function showProgress(progress) {
  $("running").hidden = !progress;
  $("start").disabled = Boolean(progress);
  if (!progress) return;
  const { stage, done, total } = progress;
  $("step").textContent = `${STEPS[stage] ?? stage} …`;
  Object.assign($("progress"), { max: total || 1, value: done });
}

function showReport(report) {
  $("report").hidden = !report;
  findings.show(report);
  if (!report) return;
  const made = new Date(report.made_ms).toLocaleString();
  $("facts").textContent = `${report.images.toLocaleString("en")} items, ${made}. Later changes of the gallery are not in it.`;
}

async function remove() {
  await ask(path(), { method: "DELETE" });
  await show();
}

async function saveRows() {
  const response = await fetchWithKey(path(), { headers: { Accept: "text/csv" } });
  if (!response.ok) throw await problemOf(response);
  save(await response.blob(), `${$("gallery").value}-audit.csv`);
}
