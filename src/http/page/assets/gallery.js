// The gallery: browse, filter, search by similarity, delete.

import { Problem, ask, askAbout, element, itemPath, servedModels, showModel, thumbnail } from "./api.js";

const $ = (id) => document.getElementById(id);
const PAGE = 48;

/** What is shown: `{}` for all, or `{id}` or `{file}` for its neighbors. */
let like = {};
/** The cursor of the next page. */
let next = null;
/** The item in the details. */
let open = null;
/** Number of the latest listing; answers to earlier ones are dropped. */
let latest = 0;

start();

function start() {
  $("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    seek(like);
  });
  addEventListener("popstate", () => guarded(() => {
    recall();
    return show();
  }));
  $("gallery").addEventListener("change", () => seek({}));
  $("more").addEventListener("click", () => guarded(showPage));
  $("unlike").addEventListener("click", () => seek({}));
  $("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    if (file) seek({ file });
  });
  $("details-close").addEventListener("click", () => $("details").close());
  $("details-like").addEventListener("click", () => {
    $("details").close();
    seek({ id: open.id });
  });
  $("details-delete").addEventListener("click", () => {
    $("details").close();
    confirmDelete(open.id);
  });
  $("confirm-no").addEventListener("click", () => $("confirm").close());
  guarded(async () => {
    const [model] = await servedModels();
    showModel(model, $("model"));
    await listGalleries();
    recall();
    await show();
  });
}

async function guarded(work) {
  try {
    $("error").hidden = true;
    await work();
  } catch (error) {
    if (!(error instanceof Problem)) console.error(error);
    $("error").textContent = error instanceof Problem ? error.message : `This page failed: ${error.message}`;
    $("error").hidden = false;
  }
}

function seek(what) {
  like = what;
  remember();
  guarded(show);
}

/** Writes what is shown to the address bar. A photograph that is searched by has no address. */
function remember() {
  const state = { gallery: $("gallery").value, label: $("label").value.trim(), where: $("where").value.trim(), like: like.id };
  const query = new URLSearchParams(Object.entries(state).filter(([, value]) => value));
  if (`?${query}` !== location.search) history.pushState(null, "", `?${query}`);
}

/** Takes what to show from the address bar. */
function recall() {
  const query = new URLSearchParams(location.search);
  const wanted = query.get("gallery");
  const names = [...$("gallery").options].map(({ value }) => value);
  $("gallery").value = names.includes(wanted) ? wanted : names[0];
  for (const name of ["label", "where"]) $(name).value = query.get(name) ?? "";
  like = query.has("like") ? { id: query.get("like") } : {};
  if (wanted && !names.includes(wanted)) throw new Problem(`This server has no gallery “${wanted}”. Choose another.`);
}

async function listGalleries() {
  const { data } = await ask("/v1/galleries");
  const names = data.data.map(({ name, items }) => ({ name, items }));
  if (names.length === 0) {
    $("filters").hidden = true;
    throw new Problem("This server has no gallery yet. Add photographs in the playground, or with PUT /v1/gallery/{id}.");
  }
  $("gallery").replaceChildren(...names.map(({ name, items }) =>
    element("option", { value: name }, `${name} (${items.toLocaleString("en")})`)));
}

/** The filters as query parameters. */
function conditions() {
  const query = new URLSearchParams({ gallery: $("gallery").value });
  if ($("label").value.trim()) query.set("label", $("label").value.trim());
  const text = $("where").value.trim();
  if (text) {
    try {
      query.set("where", JSON.stringify({ metadata: JSON.parse(text) }));
    } catch {
      throw new Problem(`The conditions are not a JSON object: ${text}. An example: {"year": {"gte": 2020}}`);
    }
  }
  return query;
}

async function show() {
  latest += 1;
  $("items").replaceChildren();
  $("summary").textContent = "";
  $("more").hidden = true;
  $("like").hidden = !like.id && !like.file;
  $("file").value = "";
  next = null;
  if (like.id || like.file) await showAlike();
  else await showPage();
}

async function showPage() {
  const query = conditions();
  query.set("limit", PAGE);
  if (next) query.set("cursor", next);
  const listing = latest;
  const { data } = await ask(`/v1/gallery?${query}`);
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
  picture.addEventListener("click", () => showDetails(item));
  const alike = element("button", { type: "button", "aria-label": `Find items similar to ${item.id}` }, "Similar");
  alike.addEventListener("click", () => seek({ id: item.id }));
  const remove = element("button", { type: "button", className: "danger", "aria-label": `Delete ${item.id}` }, "Delete");
  remove.addEventListener("click", () => confirmDelete(item.id));
  const made = element("li", { className: "tile" }, picture, element("span", { className: "name", title: item.id }, item.id));
  made.dataset.id = item.id;
  if (item.score !== undefined) made.append(element("span", { className: "score" }, item.score.toFixed(3)));
  if (item.label) made.append(element("span", { className: "label" }, item.label));
  made.append(element("div", { className: "tile-actions" }, alike, remove));
  return made;
}

async function showDetails(item) {
  await guarded(async () => {
    const { data } = await ask(itemPath(item.id, $("gallery").value));
    open = data;
    $("details-id").textContent = data.id;
    $("details-picture").replaceChildren(thumbnail(data.id, $("gallery").value));
    const facts = [
      ["Label", data.label ?? "none"],
      ["Stored", new Date(data.stored_ms).toLocaleString()],
      ["Place", String(data.place)],
      ["Metadata", element("pre", {}, JSON.stringify(data.metadata, null, 2))],
    ];
    $("details-facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
    $("details").showModal();
  });
}

function confirmDelete(id) {
  $("confirm-question").textContent = `Delete “${id}”?`;
  $("confirm-yes").onclick = () => {
    $("confirm").close();
    guarded(async () => {
      await ask(itemPath(id, $("gallery").value), { method: "DELETE" });
      [...$("items").children].find(({ dataset }) => dataset.id === id)?.remove();
      $("summary").textContent = `Deleted “${id}”.`;
    });
  };
  $("confirm").showModal();
}
