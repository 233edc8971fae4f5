// The playground: a photograph and all its features.

import { Problem, ask, askAbout, element, fetchWithKey, itemPath, servedModels, showModel, thumbnail } from "./api.js";
import { colors, heat, keepMass, meanOverlap, paint, patchAt, rangeOf } from "./draw.js";
import { fetchSample, showSamples } from "./samples.js";
import { showCommands } from "./commands.js";
import { SideBySide } from "./side.js";
import { Timings } from "./timings.js";

const $ = (id) => document.getElementById(id);
const timings = new Timings($("timing"));

/** Name of the model of this page; empty in a server of one model. */
let chosen = "";
let side = null;
/** Names of the galleries. */
let galleries = [];
/** Size of maps in pixels, from the model. */
let size = 518;
/** Side of a patch in pixels, from the model. */
let patchSize = 14;
/** The open photograph: `{file, name, picture, grid}`. */
let photo = null;
let second = null;
/** The overlay: `{head}`, `{patch, maps}`, or null. */
let overlay = null;
/** Rows of attention per head of the photograph. */
let heads = [];
/** The patch that the keyboard is at. */
let cursor = null;
/** Ends the requests about the photograph before. */
let running = new AbortController();

start();

async function start() {
  listen();
  for (const [place, choose] of [["samples", openPhoto], ["second-samples", openSecond]]) {
    showSamples($(place), (sample) => guarded(async () => choose(await fetchSample(sample))));
  }
  await guarded(async () => {
    const models = await servedModels();
    useModel(models[0], models.length > 1);
    side = new SideBySide($("side"), models, guarded);
    $("chosen").hidden = models.length < 2;
    $("chosen").replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
    $("chosen").addEventListener("change", () => {
      useModel(models.find(({ id }) => id === $("chosen").value), true);
      if (second) second.grid = gridOf(second.picture);
      if (photo) guarded(() => openPhoto(photo.file));
    });
  });
}

/** Makes `model` the one of this page; with `byName` requests name it. */
function useModel(model, byName) {
  showModel(model, $("model"), $("notice"));
  chosen = byName ? model.id : "";
  size = model.map_size;
  patchSize = model.patch;
}

/** The path of a request to the model of this page. */
function withModel(path) {
  return chosen ? `${path}&model=${encodeURIComponent(chosen)}` : path;
}

function listen() {
  $("file").addEventListener("change", (event) => choose(event.target.files, openPhoto));
  $("second-file").addEventListener("change", (event) => choose(event.target.files, openSecond));
  addEventListener("paste", (event) => choose(event.clipboardData.files, openPhoto));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    $("veil").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("veil").hidden = true;
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    $("veil").hidden = true;
    choose(event.dataTransfer.files, event.target.closest("#second-card") ? openSecond : openPhoto);
  });
  $("photo").addEventListener("click", (event) => compareWith(patchAt($("photo"), photo.grid, event)));
  $("photo").addEventListener("keydown", moveCursor);
  $("photo").addEventListener("blur", () => {
    cursor = null;
    repaint();
  });
  for (const slider of ["opacity", "mass"]) $(slider).addEventListener("input", repaint);
  $("clear").addEventListener("click", () => layOver(null));
  $("second-remove").addEventListener("click", removeSecond);
  $("foreground").addEventListener("change", () => guarded(() => showParts(running.signal)));
  $("add").addEventListener("submit", (event) => {
    event.preventDefault();
    guarded(addToGallery);
  });
}

/** Runs what may fail, and says in words what went wrong. */
async function guarded(work) {
  try {
    $("error").hidden = true;
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) console.error(error);
    $("error").textContent = error instanceof Problem ? error.message : `This page failed: ${error.message}`;
    $("error").hidden = false;
    $("error").scrollIntoView({ block: "nearest" });
  }
}

function say(text) {
  $("status").textContent = text;
}

/** Media types of files that are no images. Of all others, also without a type, the server says what they are. */
const NO_IMAGE = /^(audio|font|message|text|video)\/|^application\/(ecmascript|epub|gzip|java|json|msword|pdf|rtf|vnd\.|wasm|x-(7z|bzip|gzip|ms|rar|sh|tar|xz|zip)|xml|zip)/;

/** Opens the first photograph by `open`. The next of several becomes the second photograph, and the page says what is not used. Files without the type of an image, such as folders, come last. */
function choose(files, open) {
  const isImage = ({ type }) => type.startsWith("image/");
  const [file, next] = [...files].filter((file) => !NO_IMAGE.test(file.type)).sort((a, b) => isImage(b) - isImage(a));
  const second = open === openPhoto ? next : undefined;
  const unused = [...files].filter((other) => other !== file && other !== second).map(({ name }) => name);
  $("unused").hidden = !file || unused.length === 0;
  $("unused").textContent = `Not used: ${unused.join(", ")}. This page takes two photographs at a time.`;
  if (second) guarded(() => Promise.all([openPhoto(file), openSecond(second)]));
  else if (file) guarded(() => open(file));
  else if (files.length > 0) guarded(() => { throw new Problem(`${files[0].name} is not an image. JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, PNM and QOI can be read.`); });
}

/** The picture of a file. What the browser cannot read, the server may: it gives the picture as the model saw it. */
async function pictureOf(file, signal) {
  try {
    return await createImageBitmap(file);
  } catch {
    const response = await fetchWithKey(withModel(`/v1/pca?overlay=0&size=${size}`), {
      method: "POST", body: file, signal, headers: { Accept: "image/png", "Content-Type": "application/octet-stream" },
    });
    if (!response.ok) throw new Problem((await response.json()).detail, response.status);
    return createImageBitmap(await response.blob());
  }
}

async function openPhoto(file) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const picture = await pictureOf(file, signal);
  photo = { file, name: file.name || "pasted.png", picture, grid: gridOf(picture) };
  [overlay, heads, cursor] = [null, [], null];
  document.body.classList.add("busy-results");
  $("results").hidden = false;
  $("heads").replaceChildren();
  for (const place of ["explained", "head-stats", "added"]) $(place).textContent = "";
  $("add-id").value = photo.name;
  $("file").value = "";
  timings.clear();
  repaint();
  showCommands($("curl"), photo, { overlay, second, model: chosen });
  say(`Analyzing ${photo.name}.`);
  paint($("pca"), { picture, grid: photo.grid, size, patchSize });
  // One after the other, so that each is as fast as the machine allows.
  await showParts(signal);
  await showHeads(signal);
  await side?.show(photo, signal);
  await showNeighbors(signal);
  say(`${photo.name}: the maps are ready.`);
}

/** Rows and columns of patches that `resize=fit` makes; the server's answers replace it. */
function gridOf({ width, height }) {
  const scale = size / Math.min(width, height);
  return [height, width].map((side) => Math.max(1, Math.floor(Math.round(side * scale) / patchSize)));
}

async function working(place, work) {
  place.classList.add("working");
  try {
    return await work();
  } finally {
    place.classList.remove("working");
  }
}

async function showParts(signal) {
  const foreground = $("foreground").checked ? "auto" : "none";
  const path = withModel(`/v1/pca?size=${size}&foreground=${foreground}`);
  const { data, timing } = await working($("pca").parentElement, () => askAbout(path, photo.file, { signal }));
  const [{ grid, map }] = data.data;
  photo.grid = grid;
  paint($("pca"), { grid, patchSize, map: colors(grid, map) });
  const shares = data.explained.map((share) => `${Math.round(share * 100)} %`).join(", ");
  $("explained").textContent = `The three colors explain ${shares} of the variance.`;
  timings.show("Parts", timing);
  repaint();
}

async function showHeads(signal) {
  const path = withModel(`/v1/attention?size=${size}`);
  const { data, timing } = await working($("heads"), () => askAbout(path, photo.file, { signal }));
  const [{ grid, attention }] = data.data;
  photo.grid = grid;
  heads = attention;
  // Full rows for 6, 12, 16 and 24 heads.
  $("heads").style.setProperty("--columns", attention.length <= 6 ? 3 : attention.length % 6 === 0 && attention.length > 12 ? 6 : 4);
  $("heads").replaceChildren(...attention.map((values, head) => {
    const canvas = element("canvas", { role: "img", "aria-label": `Attention of head ${head}` });
    paint(canvas, { grid, patchSize, map: heat(grid, values) });
    const button = element("button", { type: "button", "aria-pressed": "false" }, canvas, `head ${head}`);
    button.addEventListener("click", () => layOver(overlay?.head === head ? null : { head }));
    return button;
  }));
  $("head-stats").textContent = `Two heads share ${Math.round(meanOverlap(heads) * 100)} % of their attention, on average.`;
  timings.show("Attention", timing);
}

function moveCursor(event) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (event.key === "Escape") layOver(null);
  if (event.key === "Enter" || event.key === " ") compareWith(cursor ?? overlay?.patch ?? photo.grid.map((side) => side >> 1));
  if (!step && event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault();
  if (!step) return;
  const from = cursor ?? overlay?.patch ?? photo.grid.map((side) => side >> 1);
  cursor = from.map((place, axis) => Math.min(Math.max(place + step[axis], 0), photo.grid[axis] - 1));
  say(`Row ${cursor[0] + 1} of ${photo.grid[0]}, column ${cursor[1] + 1} of ${photo.grid[1]}.`);
  repaint();
}

async function compareWith(patch) {
  await guarded(async () => {
    const { signal } = running;
    cursor = null;
    layOver({ patch, maps: [] });
    const form = new FormData();
    form.append("image", photo.file, photo.name);
    if (second) form.append("image", second.file, second.name);
    const path = withModel(`/v1/similarity?size=${size}&patch=${patch.join(",")}`);
    const place = $("photo").parentElement;
    const { data, timing } = await working(place, () => ask(path, { method: "POST", body: form, signal }));
    if (overlay?.patch !== patch) return;
    overlay.maps = data.data.map(({ grid, similarity }) => ({ grid, values: similarity.flat() }));
    if (second && overlay.maps[1]) second.grid = overlay.maps[1].grid;
    timings.show("Similarity", timing);
    layOver(overlay);
    say(`Showing the similarity of every patch to row ${patch[0] + 1}, column ${patch[1] + 1}.`);
  });
}

/** Lays a head's attention or a similarity map over the photograph, or nothing. */
function layOver(next) {
  overlay = next;
  for (const [head, button] of [...$("heads").children].entries()) {
    button.setAttribute("aria-pressed", String(overlay?.head === head));
  }
  $("photo-controls").hidden = !overlay;
  $("mass-control").hidden = overlay?.head === undefined;
  if (overlay?.head !== undefined) {
    $("shown").textContent = `Attention of head ${overlay.head}: low`;
    $("photo").scrollIntoView({ block: "nearest", behavior: "smooth" });
  } else if (overlay) {
    $("shown").textContent = "Similarity to the marked patch: low";
  }
  repaint();
  if (photo) showCommands($("curl"), photo, { overlay, second, model: chosen });
}

function repaint() {
  if (!photo) return;
  const opacity = Number($("opacity").value);
  const mass = Number($("mass").value);
  $("mass-value").textContent = `${Math.round(mass * 100)} %`;
  const { picture, grid } = photo;
  const range = overlay?.maps?.length ? rangeOf(overlay.maps.flatMap(({ values }) => values)) : undefined;
  let map = null;
  if (overlay?.head !== undefined) map = heat(grid, mass < 1 ? keepMass(heads[overlay.head], mass) : heads[overlay.head]);
  else if (range) map = heat(grid, overlay.maps[0].values, range);
  paint($("photo"), { picture, grid, size, patchSize, map, opacity, frame: cursor ?? overlay?.patch });
  $("photo").setAttribute("aria-label", `The photograph ${photo.name}, ${grid[0]} rows and ${grid[1]} columns of patches. Choose a patch.`);
  if (second) {
    const over = overlay?.maps?.[1];
    paint($("second"), { picture: second.picture, grid: second.grid, size, patchSize, map: over && heat(over.grid, over.values, range), opacity });
  }
}

async function openSecond(file) {
  const picture = await pictureOf(file, running.signal);
  second = { file, name: file.name || "pasted.png", picture, grid: gridOf(picture) };
  $("second").hidden = $("second-controls").hidden = false;
  $("second-choice").hidden = true;
  $("second-stage").classList.remove("empty");
  $("second").setAttribute("aria-label", `The second photograph ${second.name}`);
  $("second-hint").textContent = "Click a patch in the first photograph.";
  $("second-file").value = "";
  if (overlay?.patch) await compareWith(overlay.patch);
  else layOver(overlay);
}

function removeSecond() {
  second = null;
  $("second").hidden = $("second-controls").hidden = true;
  $("second-choice").hidden = false;
  $("second-stage").classList.add("empty");
  $("second-hint").textContent = "Compare patches across two photographs.";
  if (overlay?.maps) overlay.maps.length = Math.min(overlay.maps.length, 1);
  layOver(overlay);
}

async function showNeighbors(signal) {
  const gallery = $("add-gallery").value || "default";
  $("neighbors").replaceChildren();
  try {
    const known = await ask("/v1/galleries", { signal });
    galleries = known.data.data.map(({ name }) => name);
    $("galleries").replaceChildren(...galleries.map((value) => element("option", { value })));
    $("add").hidden = false;
    if (!galleries.includes(gallery)) {
      $("neighbors-hint").textContent = `The gallery “${gallery}” is empty. Add this photograph to begin.`;
      return;
    }
  } catch (error) {
    if (error.status !== 404) throw error;
    $("neighbors-hint").textContent = "This server has no gallery. Start it with --gallery DIR to store photographs and search them.";
    return;
  }
  const path = `/v1/knn?k=8&gallery=${encodeURIComponent(gallery)}`;
  const { data, timing } = await working($("neighbors"), () => askAbout(path, photo.file, { signal }));
  $("neighbors-hint").textContent = data.neighbors.length ? `In “${gallery}”, by cosine.` : `The gallery “${gallery}” is empty. Add this photograph to begin.`;
  $("neighbors").replaceChildren(...data.neighbors.map(({ id, score, label }) => {
    const item = element("li", {}, thumbnail(id, gallery), element("span", { className: "name", title: id }, id));
    item.append(element("span", { className: "score" }, score.toFixed(3)));
    if (label) item.append(element("span", { className: "label" }, label));
    return item;
  }));
  timings.show("Neighbors", timing);
}

async function addToGallery() {
  const [id, label, gallery] = ["add-id", "add-label", "add-gallery"].map((name) => $(name).value.trim());
  const query = label ? `&label=${encodeURIComponent(label)}` : "";
  const type = photo.file.type || "application/octet-stream";
  // A gallery keeps its model.
  const path = itemPath(id, gallery) + query;
  const { data } = await ask(galleries.includes(gallery) ? path : withModel(path), { method: "PUT", body: photo.file, type });
  await showNeighbors(running.signal);
  $("added").textContent = data.created ? `Stored “${id}” in “${gallery}”.` : `Replaced “${id}” in “${gallery}”.`;
}

