// The audit of a gallery: starts it, shows its progress, and then its findings.

import { ask, fetchWithKey, problemOf } from "./api.js";
import { Bulk } from "./bulk.js";
import { save } from "./download.js";
import { Findings } from "./findings.js";
import { guarded } from "./messages.js";
import { GalleryJob } from "./watch.js";

const $ = (id) => document.getElementById(id);

const bulk = new Bulk();
const findings = new Findings($("findings"), bulk);
const job = new GalleryJob({
  what: "audit",
  steps: { reading: "Reading the items", comparing: "Comparing each with all others", checking: "Checking labels", grouping: "Forming groups" },
  buttons: ["start", "forget"],
  show: showReport,
});

$("options").addEventListener("submit", (event) => {
  event.preventDefault();
  const clusters = $("clusters").value ? { clusters: $("clusters").value } : {};
  guarded(() => job.begin({ duplicates_above: $("duplicates-above").value, ...clusters }));
});
$("forget").addEventListener("click", () => guarded(async () => {
  const path = job.path();
  if (!(await bulk.agreed(`Delete the report about “${job.gallery}”?`, "Delete"))) return;
  await ask(path, { method: "DELETE" });
  await job.watch();
}));
$("csv").addEventListener("click", () => guarded(async () => {
  const { gallery } = job;
  const response = await fetchWithKey(job.path(), { headers: { Accept: "text/csv" } });
  if (!response.ok) throw await problemOf(response);
  save(await response.blob(), `${gallery}-audit.csv`);
}));
guarded(() => job.start());

function showReport(report) {
  $("report").hidden = !report;
  findings.show(job.gallery, report);
  if (!report) return;
  const made = new Date(report.made_ms).toLocaleString();
  $("facts").textContent = `${report.images.toLocaleString("en")} items, ${made}. Later changes of the gallery are not in it.`;
}
