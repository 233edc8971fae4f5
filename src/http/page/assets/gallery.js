// The gallery: add, browse, filter, search by similarity, change and delete.

import { Problem, ask, askAbout, element, itemPath, servedModels, showModel, thumbnail } from "./api.js";
import { Details } from "./details.js";
import { dropped, receiveDrops, sorted } from "./files.js";
import { Learned } from "./learned.js";
import { guarded, say } from "./messages.js";
import { upload } from "./upload.js";

const $ = (id) => document.getElementById(id);
const PAGE = 48;

/** What is shown: `{}` for all, or `{id}` or `{file}` for its neighbors. */
let like = {};
/** The cursor of the next page. */
let next = null;
/** Number of the latest listing; answers to earlier ones are dropped. */
let latest = 0;
/** Ends the uploads in progress. */
let uploading = null;
/** The query of the address that is shown. */
let address = location.search;

const details = new Details({
  changed: (item) => {
    const before = tileOf(item.id);
    const after = tile({ ...item, score: before?.dataset.score && Number(before.dataset.score) });
    before?.replaceWith(after);
    after.querySelector(".tile-picture").focus();
    say(`Changed “${item.id}”.`);
  },
  closed: () => remember({ item: null }),
  similar: ({ id }) => seek({ id }),
  remove: ({ id }) => confirmDelete(id),
});
const learned = new Learned(() => $("gallery").value, confirm);

start();

function start() {
  $("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    seek(like);
  });
  addEventListener("popstate", () => {
    // A link within the page changes only the fragment.
    if (location.search === address) return;
    address = location.search;
    guarded(showAddress);
  });
  $("gallery").addEventListener("change", () => seek({}));
  $("more").addEventListener("click", () => guarded(showPage));
  $("unlike").addEventListener("click", () => seek({}));
  $("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    if (file) seek({ file });
  });
  $("confirm-no").addEventListener("click", () => $("confirm").close());
  $("add-condition").addEventListener("click", () => guarded(addCondition));
  for (const id of ["member", "value"]) $(id).addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    guarded(addCondition);
  });
  $("items").addEventListener("keydown", moveFocus);
  listenToGalleries();
  listenToFiles();
  guarded(async () => {
    const [model] = await servedModels();
    showModel(model, $("model"));
    await listGalleries();
    await showAddress();
  });
}

function listenToGalleries() {
  $("new").addEventListener("click", () => $("naming").showModal());
  $("naming-cancel").addEventListener("click", () => $("naming").close());
  $("naming-form").addEventListener("submit", () => {
    const name = $("naming-name").value;
    const isKnown = [...$("gallery").options].some(({ value }) => value === name);
    if (!isKnown) $("gallery").append(element("option", { value: name }, `${name} (new)`));
    $("gallery").value = name;
    $("naming-name").value = "";
    seek({});
  });
  $("remove").addEventListener("click", () => {
    const gallery = $("gallery").value;
    confirm(`the gallery “${gallery}” with all its items`, async () => {
      await ask(`/v1/galleries/${encodeURIComponent(gallery)}`, { method: "DELETE" });
      await listGalleries();
      seek({});
    });
  });
}

function listenToFiles() {
  for (const id of ["photos", "folder"]) $(id).addEventListener("change", ({ target }) => guarded(() => addFiles(target.files)).then(() => (target.value = "")));
  receiveDrops((event) => {
    guarded(async () => addFiles(await dropped(event.dataTransfer)));
  });
  $("upload-stop").addEventListener("click", () => uploading?.abort());
}

/** Stores photographs under their paths. The folder of a photograph becomes its label. */
async function addFiles(files) {
  if (uploading) throw new Problem("Photos are being stored already. Wait for them, or stop.");
  const { photos, others } = sorted(files);
  if (photos.length === 0) throw new Problem(others.length > 0 ? `${others[0]} is not an image.` : "There is no photo among these files.");
  const gallery = $("gallery").value;
  const entries = photos.map((file) => ({ file, name: file.path, label: file.path.split("/").at(-2) ?? "" }));
  uploading = new AbortController();
  $("uploading").hidden = $("upload-stop").hidden = $("upload-progress").hidden = false;
  $("upload-failures").replaceChildren(...others.map((name) => element("li", {}, `${name}: not an image`)));
  Object.assign($("upload-progress"), { max: entries.length, value: 0 });
  const summary = $("upload-summary");
  // Screen readers announce the end, not every photograph.
  summary.setAttribute("aria-live", "off");
  const report = (stored) => {
    $("upload-progress").value = stored;
    summary.textContent = `${stored} of ${entries.length} are stored in “${gallery}”.`;
  };
  report(0);
  try {
    const { failures, replaced } = await upload(entries, { gallery, report, signal: uploading.signal });
    $("upload-failures").append(...failures.map((reason) => element("li", {}, reason)));
    const stored = entries.length - failures.length;
    const before = replaced ? ` ${replaced} of them replaced one of the same name.` : "";
    summary.setAttribute("aria-live", "polite");
    summary.textContent = `${stored} ${stored === 1 ? "photo is" : "photos are"} stored in “${gallery}”.${before}`;
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    summary.textContent += " Stopped.";
  } finally {
    uploading = null;
    $("upload-stop").hidden = $("upload-progress").hidden = true;
    // The visitor may have moved on to another gallery.
    await listGalleries($("gallery").value);
    await show();
    await learned.show();
  }
}

function seek(what) {
  like = what;
  remember();
  guarded(show);
}

/** Writes what is shown to the address bar. A photograph that is searched by has no address. */
function remember({ item } = {}) {
  const state = { gallery: $("gallery").value, label: $("label").value.trim(), where: $("where").value.trim(), like: like.id, item };
  const query = new URLSearchParams(Object.entries(state).filter(([, value]) => value));
  if (`?${query}` === address) return;
  address = `?${query}`;
  history.pushState(null, "", address);
}

/** Shows what the address bar says, and all else also if a part of it does not exist. */
async function showAddress() {
  let failure = null;
  await recall().catch((error) => (failure = error));
  await show();
  await learned.show();
  if (failure) throw failure;
}

/** Takes what to show from the address bar. */
async function recall() {
  const query = new URLSearchParams(location.search);
  const wanted = query.get("gallery");
  const names = [...$("gallery").options].map(({ value }) => value);
  $("gallery").value = names.includes(wanted) ? wanted : names[0];
  for (const name of ["label", "where"]) $(name).value = query.get(name) ?? "";
  like = query.has("like") ? { id: query.get("like") } : {};
  if (wanted && !names.includes(wanted)) throw new Problem(`This server has no gallery “${wanted}”. Choose another.`);
  if (query.has("item")) await details.open(query.get("item"), $("gallery").value);
  else $("details").close();
}

/** Lists the galleries, of which `chosen` is shown. A server without any can begin with the default one. */
async function listGalleries(chosen) {
  const { data } = await ask("/v1/galleries").catch((error) => {
    // A server without a store has nothing to choose or add.
    if (error.status === 404) $("choice").hidden = $("filters").hidden = true;
    throw error;
  });
  const names = data.data.map(({ name, items }) => ({ name, items }));
  const options = names.map(({ name, items }) => element("option", { value: name }, `${name} (${items.toLocaleString("en")})`));
  if (names.length === 0 && (chosen ?? "default") === "default") options.push(element("option", { value: "default" }, "default (new)"));
  if (chosen && !names.some(({ name }) => name === chosen)) options.push(element("option", { value: chosen }, `${chosen} (new)`));
  $("gallery").replaceChildren(...options);
  if (chosen) $("gallery").value = chosen;
  $("remove").disabled = names.length === 0;
  $("audit").hidden = $("map").hidden = names.length === 0;
}

function metadataConditions() {
  const text = $("where").value.trim();
  try {
    const conditions = text ? JSON.parse(text) : {};
    if (Object.getPrototypeOf(conditions ?? 0) !== Object.prototype) throw new TypeError(text);
    return conditions;
  } catch {
    throw new Problem(`The conditions are not a JSON object: ${text}. An example: {"year": {"gte": 2020}}`);
  }
}

/** Adds the condition of the builder to those in the field. */
function addCondition() {
  const scalar = (text) => (/^(-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false)$/.test(text) ? JSON.parse(text) : text);
  const [member, text] = [$("member").value.trim(), $("value").value.trim()];
  if (!member || !text) throw new Problem("A condition needs a member and a value.");
  const comparison = $("comparison").value;
  const conditions = metadataConditions();
  const earlier = conditions[member];
  const isRange = (condition) => condition && typeof condition === "object" && !("any" in condition);
  if (comparison === "is") conditions[member] = scalar(text);
  else if (comparison === "any") conditions[member] = { any: text.split(",").map((part) => scalar(part.trim())) };
  else conditions[member] = { ...(isRange(earlier) ? earlier : {}), [comparison]: scalar(text) };
  $("where").value = JSON.stringify(conditions);
  $("value").value = "";
  seek(like);
}

/** The filters as query parameters. */
function conditions() {
  const query = new URLSearchParams({ gallery: $("gallery").value });
  if ($("label").value.trim()) query.set("label", $("label").value.trim());
  const metadata = metadataConditions();
  if (Object.keys(metadata).length > 0) query.set("where", JSON.stringify({ metadata }));
  return query;
}

async function show() {
  latest += 1;
  for (const page of ["audit", "map"]) $(page).href = `/${page}?${new URLSearchParams({ gallery: $("gallery").value })}`;
  $("items").replaceChildren();
  $("summary").textContent = "";
  $("more").hidden = true;
  $("like").hidden = !like.id && !like.file;
  $("file").value = "";
  next = null;
  if ($("gallery").selectedOptions[0]?.textContent.endsWith("(new)")) {
    $("summary").textContent = "This gallery is empty. Add photos to begin.";
    return;
  }
  if (like.id || like.file) await showAlike();
  else await showPage();
}

async function showPage() {
  const query = conditions();
  query.set("limit", PAGE);
  if (next) query.set("cursor", next);
  const listing = latest;
  $("more").disabled = true;
  const { data } = await ask(`/v1/gallery?${query}`).finally(() => ($("more").disabled = false));
  if (listing !== latest) return;
  next = data.next;
  $("items").append(...data.items.map(tile));
  $("more").hidden = !next;
  const count = $("items").children.length;
  $("summary").textContent = count === 0 ? "No item matches." : `${count} ${count === 1 ? "item" : "items"} shown, in the order in which they were stored${next ? "; there are more" : ""}.`;
}

async function showAlike() {
  const query = conditions();
  query.set("k", PAGE);
  const listing = latest;
  const answer = like.file
    ? await askAbout(`/v1/knn?${query}`, like.file)
    : await ask(`/v1/knn?id=${encodeURIComponent(like.id)}&${query}`);
  if (listing !== latest) return;
  const { neighbors } = answer.data;
  $("items").append(...neighbors.map(tile));
  const of = `of “${like.id ?? like.file.name}”`;
  $("summary").textContent = {
    0: "No item matches.",
    1: `The nearest item ${of}.`,
  }[neighbors.length] ?? `The ${neighbors.length} nearest ${of}, the nearest first.`;
}

function tile(item) {
  const gallery = $("gallery").value;
  const picture = element("button", { type: "button", className: "tile-picture", "aria-label": `Details of ${item.id}` }, thumbnail(item.id, gallery));
  picture.addEventListener("click", () => guarded(async () => {
    await details.open(item.id, gallery);
    remember({ item: item.id });
  }));
  const alike = element("button", { type: "button", "aria-label": `Find items similar to ${item.id}` }, "Similar");
  alike.addEventListener("click", () => seek({ id: item.id }));
  const remove = element("button", { type: "button", className: "danger", "aria-label": `Delete ${item.id}` }, "Delete");
  remove.addEventListener("click", () => confirmDelete(item.id));
  const made = element("li", { className: "tile" }, picture, element("span", { className: "name", title: item.id }, item.id));
  made.dataset.id = item.id;
  if (item.score) made.dataset.score = item.score;
  if (item.score !== undefined && item.score !== "") made.append(element("span", { className: "score" }, item.score.toFixed(3)));
  if (item.label) made.append(element("span", { className: "label" }, item.label));
  made.append(element("div", { className: "tile-actions" }, alike, remove));
  return made;
}

function tileOf(id) {
  return [...$("items").children].find(({ dataset }) => dataset.id === id);
}

/** Moves from tile to tile by the arrow keys; Delete asks whether to delete one. */
function moveFocus(event) {
  const from = event.target.closest(".tile");
  if (!from || !event.target.matches(".tile-picture")) return;
  if (event.key === "Delete") {
    confirmDelete(from.dataset.id);
    return;
  }
  const columns = getComputedStyle($("items")).gridTemplateColumns.split(" ").length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const to = step && $("items").children[[...$("items").children].indexOf(from) + step];
  if (!to) return;
  event.preventDefault();
  to.querySelector(".tile-picture").focus();
}

/** Asks before a deletion. */
function confirm(what, work) {
  $("confirm-question").textContent = `Delete ${what}?`;
  $("confirm-yes").onclick = () => {
    $("confirm").close();
    guarded(work);
  };
  $("confirm").showModal();
}

function confirmDelete(id) {
  confirm(`“${id}”`, async () => {
    await ask(itemPath(id, $("gallery").value), { method: "DELETE" });
    const gone = tileOf(id);
    const next = gone?.nextElementSibling ?? gone?.previousElementSibling;
    gone?.remove();
    next?.querySelector(".tile-picture").focus();
    $("summary").textContent = `Deleted “${id}”.`;
  });
}
