// The map of a gallery: makes it, colors it, and changes the items that are selected on it.

import { Problem, ask, element, fetchWithKey, itemPath, problemOf, servedModels, showModel, thumbnail } from "./api.js";
import { Bulk } from "./bulk.js";
import { Chart, packed } from "./chart.js";
import { guarded, say } from "./messages.js";
import { pause } from "./queue.js";

const $ = (id) => document.getElementById(id);
/** Time between two looks at a map that is made, in milliseconds. */
const INTERVAL = 500;
/** Number of labels in the legend, and of pictures of the selection. */
const [LABELS, PICTURES] = [40, 24];
const STEPS = { reading: "Reading the items", comparing: "Comparing each with all others", placing: "Placing the items" };
const FINDINGS = { duplicates: ["near-duplicates", "#3b7dd8"], mislabels: ["labels likely wrong", "#e08a1e"], outliers: ["outliers", "#d13b3b"] };
const QUIET = "#9aa3b2";

/** The map that is shown, or null. */
let map = null;
/** Ends when another gallery is chosen. */
let watching = new AbortController();

const bulk = new Bulk(() => $("gallery").value);
const chart = new Chart($("chart"), { picture, hovered, changed: showSelection });

start();

function start() {
  $("options").addEventListener("submit", (event) => {
    event.preventDefault();
    guarded(() => begin(false));
  });
  $("again").addEventListener("click", () => guarded(() => begin(true)));
  for (const id of ["cancel", "forget"]) $(id).addEventListener("click", () => guarded(async () => {
    await ask(path(), { method: "DELETE" });
    await show();
  }));
  $("gallery").addEventListener("change", () => {
    history.pushState(null, "", `?${new URLSearchParams({ gallery: $("gallery").value })}`);
    guarded(show);
  });
  addEventListener("popstate", () => guarded(recall));
  $("colors").addEventListener("change", () => guarded(color));
  $("fit").addEventListener("click", () => chart.fit());
  $("nearer").addEventListener("click", () => chart.zoom(1.5));
  $("farther").addEventListener("click", () => chart.zoom(1 / 1.5));
  $("lasso").addEventListener("click", () => {
    chart.lassoing = !chart.lassoing;
    $("lasso").setAttribute("aria-pressed", String(chart.lassoing));
  });
  listenToSelection();
  guarded(async () => {
    const [model] = await servedModels();
    showModel(model, $("model"));
    const { data } = await ask("/v1/galleries").catch((error) => {
      // A server without a store has nothing to map.
      if (error.status === 404) $("choice").hidden = true;
      throw error;
    });
    $("gallery").replaceChildren(...data.data.map(({ name, items }) => element("option", { value: name }, `${name} (${items.toLocaleString("en")})`)));
    $("start").disabled = data.data.length === 0;
    if (data.data.length === 0) throw new Problem("This server has no gallery yet. Add photos to one first.");
    await recall();
  });
}

function listenToSelection() {
  $("clear").addEventListener("click", () => {
    $("only").setAttribute("aria-pressed", "false");
    chart.visible.fill(1);
    chart.select(() => false);
    chart.fit();
  });
  $("only").addEventListener("click", () => {
    const only = $("only").getAttribute("aria-pressed") !== "true";
    $("only").setAttribute("aria-pressed", String(only));
    for (let index = 0; index < chart.visible.length; index++) chart.visible[index] = Number(!only || chart.selected[index]);
    chart.fit();
  });
  $("relabel").addEventListener("submit", (event) => {
    event.preventDefault();
    const label = $("new-label").value.trim();
    guarded(async () => {
      await bulk.relabel(selection().map((index) => [map.ids[index], label]), () => {});
      await reload();
    });
  });
  $("delete").addEventListener("click", () => guarded(async () => {
    await bulk.remove(selection().map((index) => map.ids[index]), () => {});
    await reload();
  }));
}

/** Shows the gallery that the address bar names. */
async function recall() {
  const wanted = new URLSearchParams(location.search).get("gallery");
  const names = [...$("gallery").options].map(({ value }) => value);
  $("gallery").value = names.includes(wanted) ? wanted : names[0];
  await show();
  if (wanted && !names.includes(wanted)) throw new Problem(`This server has no gallery “${wanted}”. Choose another.`);
}

function path(what = "map") {
  return `/v1/galleries/${encodeURIComponent($("gallery").value)}/${what}`;
}

async function begin(again) {
  await ask(`${path()}?again=${again}`, { method: "POST" });
  await show();
}

/** Shows the map of the gallery, as soon as it is made. */
async function show() {
  watching.abort();
  watching = new AbortController();
  const { signal } = watching;
  showMap(null);
  for (;;) {
    const { data } = await ask(path(), { signal }).catch((error) => {
      if (error.status === 404) return { data: {} };
      throw error;
    });
    showProgress(data.progress);
    if (data.state !== "running") {
      showMap(data.map);
      if (data.state === "failed") throw new Problem(`The map could not be made: ${data.error.detail}`);
      if (map) await color();
      return;
    }
    await pause(INTERVAL, signal);
  }
}

/** Shows the items as they are after a change. */
async function reload() {
  const { data } = await ask(path());
  showMap(data.map);
  await color();
}

function showProgress(progress) {
  $("running").hidden = !progress;
  for (const id of ["start", "again", "forget"]) $(id).disabled = Boolean(progress);
  if (!progress) return;
  const { stage, done, total } = progress;
  $("step").textContent = `${STEPS[stage] ?? stage} …`;
  Object.assign($("progress"), { max: total || 1, value: done });
}

function showMap(found) {
  map = found ?? null;
  for (const id of ["shown", "again", "forget"]) $(id).hidden = !map;
  $("selection").hidden = $("tip").hidden = true;
  const missing = map?.missing ?? 0;
  $("start").hidden = Boolean(map) && missing === 0;
  $("start").textContent = map ? `Place ${missing.toLocaleString("en")} new ${missing === 1 ? "item" : "items"}` : "Make a map";
  $("facts").textContent = map ? `${map.ids.length.toLocaleString("en")} items, ${new Date(map.made_ms).toLocaleString()}. Similar ones are near each other.` : "Similar items are near each other on a map.";
  if (!map) return;
  $("only").setAttribute("aria-pressed", "false");
  chart.show(map.points, new Uint32Array(map.ids.length).fill(packed(QUIET)));
}

/** Colors the points, and explains the colors. */
async function color() {
  const groups = await { label: ofLabels, cluster: ofClusters, finding: ofFindings, none: () => [] }[$("colors").value]();
  chart.colors.fill(packed(QUIET));
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

/** The items of each label, the most frequent first. */
function ofLabels() {
  const members = map.labels.map(() => []);
  map.label_of.forEach((label, index) => label === null || members[label].push(index));
  const groups = map.labels.map((name, label) => ({ name, color: hue(label), members: members[label] }));
  return groups.sort((a, b) => b.members.length - a.members.length);
}

async function report() {
  const { data } = await ask(path("audit")).catch((error) => {
    if (error.status === 404) throw new Problem("There is no audit of this gallery yet. Start one on the page Audit.");
    throw error;
  });
  if (!data.audit) throw new Problem("The audit of this gallery is not ready.");
  return data.audit;
}

/** Returns what finds the places of items on the map. */
function indices() {
  const index = new Map(map.ids.map((id, place) => [id, place]));
  return (ids) => ids.map((id) => index.get(id)).filter((place) => place !== undefined);
}

async function ofClusters() {
  const places = indices();
  return (await report()).clusters.map(({ ids, label }, number) => ({ name: `${number + 1}${label ? `: ${label}` : ""}`, color: hue(number), members: places(ids) }));
}

async function ofFindings() {
  const places = indices();
  const found = await report();
  return Object.entries(FINDINGS).map(([kind, [name, color]]) => ({ name, color, members: places(found[kind].flatMap(({ id, ids }) => ids ?? [id])) }));
}

function selection() {
  const found = [];
  chart.selected.forEach((chosen, index) => chosen && found.push(index));
  return found;
}

function showSelection() {
  const found = selection();
  $("selection").hidden = found.length === 0;
  const count = `${found.length.toLocaleString("en")} ${found.length === 1 ? "item" : "items"} selected`;
  $("selected-title").textContent = count;
  say(count);
  $("selected").replaceChildren(...found.slice(0, PICTURES).map((index) => {
    const [id, gallery] = [map.ids[index], $("gallery").value];
    const link = element("a", { className: "tile-picture", href: `/gallery?${new URLSearchParams({ gallery, item: id })}`, "aria-label": `Details of ${id}` }, thumbnail(id, gallery));
    const tile = element("li", { className: "tile" }, link, element("span", { className: "name", title: id }, id));
    const label = map.labels[map.label_of[index]];
    if (label) tile.append(element("span", { className: "label" }, label));
    return tile;
  }));
}

/** Shows what is under the pointer. */
function hovered(index) {
  const tip = $("tip");
  tip.hidden = index < 0;
  $("chart").style.cursor = index < 0 ? "" : "pointer";
  if (index < 0 || tip.dataset.index === String(index)) return;
  tip.dataset.index = String(index);
  const label = map.labels[map.label_of[index]];
  tip.replaceChildren(thumbnail(map.ids[index], $("gallery").value), element("b", {}, map.ids[index]), ...(label ? [element("span", { className: "label" }, label)] : []));
  const [x, y] = chart.place(index).map((value) => value / devicePixelRatio);
  const { clientWidth, clientHeight } = $("chart");
  tip.style.left = `${Math.max(0, Math.min(x + 12, clientWidth - 190))}px`;
  tip.style.top = `${Math.max(0, Math.min(y + 12, clientHeight - 190))}px`;
}

/** The picture of an item. */
async function picture(index) {
  const response = await fetchWithKey(itemPath(map.ids[index], $("gallery").value, "/thumbnail"));
  if (!response.ok) throw await problemOf(response);
  return createImageBitmap(await response.blob());
}
