// The map of a gallery: makes it, colors it, and changes the items that are selected on it.

import { Problem, ask, element, fetchWithKey, itemPath, problemOf, thumbnail } from "./api.js";
import { Bulk } from "./bulk.js";
import { Chart, packed } from "./chart.js";
import { guarded, say } from "./messages.js";
import { GalleryJob } from "./watch.js";

const $ = (id) => document.getElementById(id);
/** Number of labels in the legend, and of pictures of the selection. */
const [LABELS, PICTURES] = [40, 24];
/** Time that the pointer rests on a point before its picture is shown, in milliseconds. */
const REST = 80;
const FINDINGS = { duplicates: ["near-duplicates", "#3b7dd8"], mislabels: ["labels likely wrong", "#e08a1e"], outliers: ["outliers", "#d13b3b"] };
const QUIET = "#7d8797";

/** The map that is shown, or null. */
let map = null;
/** Shows a picture after a rest. */
let resting = null;

const bulk = new Bulk();
const chart = new Chart($("chart"), { picture, hovered, changed: showSelection });
const job = new GalleryJob({
  what: "map",
  steps: { reading: "Reading the items", comparing: "Comparing each with all others", placing: "Placing the items" },
  buttons: ["start", "again", "forget"],
  show: async (found) => {
    showMap(found);
    await color();
  },
});

$("options").addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(() => job.begin({ again: false }));
});
$("again").addEventListener("click", () => guarded(() => job.begin({ again: true })));
$("forget").addEventListener("click", () => guarded(async () => {
  const path = job.path();
  if (!(await bulk.agreed(`Delete the map of “${job.gallery}”?`, "Delete"))) return;
  await ask(path, { method: "DELETE" });
  await job.watch();
}));
$("colors").addEventListener("change", () => guarded(color));
$("fit").addEventListener("click", () => {
  showOnly(false);
  chart.fit();
});
$("nearer").addEventListener("click", () => chart.zoom(1.5));
$("farther").addEventListener("click", () => chart.zoom(1 / 1.5));
$("lasso").addEventListener("click", () => {
  chart.lassoing = !chart.lassoing;
  $("lasso").setAttribute("aria-pressed", String(chart.lassoing));
});
$("clear").addEventListener("click", () => chart.select(() => false));
$("only").addEventListener("click", () => {
  showOnly($("only").getAttribute("aria-pressed") !== "true");
  chart.fit();
});
$("relabel").addEventListener("submit", (event) => {
  event.preventDefault();
  const label = $("new-label").value.trim();
  change((gallery, ids) => bulk.relabel(gallery, ids.map((id) => [id, label])));
});
$("delete").addEventListener("click", () => change((gallery, ids) => bulk.remove(gallery, ids)));
guarded(() => job.start());

/** Changes the selected items, and shows the items as they are then. */
function change(work) {
  guarded(async () => {
    const [of, { gallery }] = [map, job];
    let agreed = true;
    try {
      agreed = await work(gallery, selection().map((index) => of.ids[index]));
    } finally {
      // Another gallery may be shown by now.
      if (agreed && map === of) {
        const { data } = await ask(job.path());
        if (map === of && data.map) {
          showMap(data.map, true);
          await color();
        }
      }
    }
  });
}

function showMap(found, keepsView = false) {
  map = found;
  for (const id of ["shown", "again", "forget"]) $(id).hidden = !map;
  $("selection").hidden = true;
  $("legend").replaceChildren();
  hovered(-1);
  delete $("tip").dataset.index;
  const missing = map?.missing ?? 0;
  $("start").textContent = !map ? "Make a map" : missing === 0 ? "Place new items" : `Place ${missing.toLocaleString("en")} new ${missing === 1 ? "item" : "items"}`;
  $("facts").textContent = map ? `${map.ids.length.toLocaleString("en")} items, ${new Date(map.made_ms).toLocaleString()}. Similar ones are near each other.` : "Similar items are near each other on a map.";
  $("only").setAttribute("aria-pressed", "false");
  if (map) chart.show(map.points, new Uint32Array(map.ids.length).fill(packed(QUIET)), keepsView);
}

/** Colors the points, and explains the colors. */
async function color() {
  const [of, colors] = [map, $("colors").value];
  $("legend").replaceChildren();
  if (!of) return;
  chart.colors.fill(packed(QUIET));
  chart.draw();
  const groups = await { label: ofLabels, cluster: ofClusters, finding: ofFindings, none: () => [] }[colors](of);
  // Others may be wanted by now.
  if (map !== of || $("colors").value !== colors) return;
  for (const { color, members } of groups) {
    const value = packed(color);
    for (const index of members) chart.colors[index] = value;
  }
  chart.draw();
  const rows = groups.slice(0, LABELS).map(({ name, color, members }) => {
    const button = element("button", { type: "button", title: `Select ${name}` }, element("i"), name, element("span", { className: "hint" }, members.length.toLocaleString("en")));
    button.querySelector("i").style.background = color;
    const chosen = new Set(members);
    button.addEventListener("click", () => chart.select((index) => chosen.has(index)));
    return element("li", {}, button);
  });
  if (groups.length > LABELS) rows.push(element("li", { className: "hint" }, `and ${groups.length - LABELS} more`));
  $("legend").replaceChildren(...rows);
}

/** Colors that differ: each hue is far from the last ones. */
const hue = (index) => `hsl(${Math.round((index * 137.508) % 360)} 62% 52%)`;

/** The items of each label, the most frequent first, and those without. */
function ofLabels({ labels, label_of: labelOf }) {
  const members = labels.map(() => []);
  const without = [];
  labelOf.forEach((label, index) => (label === null ? without : members[label]).push(index));
  const groups = labels.map((name, label) => ({ name, color: hue(label), members: members[label] }));
  groups.sort((a, b) => b.members.length - a.members.length);
  return without.length > 0 ? [...groups, { name: "no label", color: QUIET, members: without }] : groups;
}

async function report() {
  const { data } = await ask(job.path("audit")).catch((error) => {
    if (error.status === 404) throw new Problem("There is no audit of this gallery yet. Start one on the page Audit.");
    throw error;
  });
  if (!data.audit) throw new Problem("The audit of this gallery is not ready.");
  return data.audit;
}

/** Returns what finds the places of items on a map. */
function finder({ ids }) {
  const index = new Map(ids.map((id, place) => [id, place]));
  return (wanted) => wanted.map((id) => index.get(id)).filter((place) => place !== undefined);
}

async function ofClusters(of) {
  const places = finder(of);
  return (await report()).clusters.map(({ ids, label }, number) => ({ name: `${number + 1}${label ? `: ${label}` : ""}`, color: hue(number), members: places(ids) }));
}

async function ofFindings(of) {
  const places = finder(of);
  const found = await report();
  return Object.entries(FINDINGS).map(([kind, [name, color]]) => ({ name, color, members: places(found[kind].flatMap(({ id, ids }) => ids ?? [id])) }));
}

function selection() {
  const found = [];
  chart.selected.forEach((chosen, index) => chosen && found.push(index));
  return found;
}

/** Shows only the selected points, or all. */
function showOnly(only) {
  $("only").setAttribute("aria-pressed", String(only));
  for (let index = 0; index < chart.visible.length; index++) chart.visible[index] = Number(!only || chart.selected[index]);
  chart.draw();
}

function showSelection() {
  const found = selection();
  // Without a selection, no others are hidden.
  if (found.length === 0) showOnly(false);
  if ($("selection").contains(document.activeElement) && found.length === 0) $("chart").focus();
  $("selection").hidden = found.length === 0;
  const count = `${found.length.toLocaleString("en")} ${found.length === 1 ? "item" : "items"} selected`;
  $("selected-title").textContent = count;
  $("selected-more").textContent = found.length > PICTURES ? `The first ${PICTURES} are shown.` : "";
  say(count);
  const { gallery } = job;
  $("selected").replaceChildren(...found.slice(0, PICTURES).map((index) => {
    const id = map.ids[index];
    const link = element("a", { className: "tile-picture", href: `/gallery?${new URLSearchParams({ gallery, item: id })}`, "aria-label": `Details of ${id}` }, thumbnail(id, gallery));
    const tile = element("li", { className: "tile" }, link, element("span", { className: "name", title: id }, id));
    const label = map.labels[map.label_of[index]];
    if (label) tile.append(element("span", { className: "label" }, label));
    return tile;
  }));
}

/** Shows what is under the pointer: its id at once, and its picture after a rest. */
function hovered(index) {
  const tip = $("tip");
  tip.hidden = index < 0;
  $("chart").style.cursor = index < 0 ? "" : "pointer";
  if (tip.dataset.index !== String(index)) clearTimeout(resting);
  if (index < 0) return;
  if (tip.dataset.index !== String(index)) {
    tip.dataset.index = String(index);
    const label = map.labels[map.label_of[index]];
    tip.replaceChildren(element("b", {}, map.ids[index]), ...(label ? [element("span", { className: "label" }, label)] : []));
    const of = map;
    resting = setTimeout(() => {
      if (map === of && tip.dataset.index === String(index)) tip.prepend(thumbnail(of.ids[index], job.gallery));
    }, REST);
  }
  const [x, y] = chart.place(index).map((value) => value / devicePixelRatio);
  const { clientWidth, clientHeight } = $("chart");
  tip.style.left = `${Math.max(0, Math.min(x + 12, clientWidth - 190))}px`;
  tip.style.top = `${Math.max(0, Math.min(y + 12, clientHeight - 190))}px`;
}

/** The picture of an item. */
async function picture(index) {
  const response = await fetchWithKey(itemPath(map.ids[index], job.gallery, "/thumbnail"));
  if (!response.ok) throw await problemOf(response);
  return createImageBitmap(await response.blob());
}
