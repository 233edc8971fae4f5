// The playground: photographs, and what the model sees in each.

import { Problem, element, fetchWithKey, formOf, problemOf, servedModels, showModel } from "./api.js";
import { fetchSample, showSamples } from "./samples.js";
import { dropped, receiveDrops, sorted } from "./files.js";
import { guarded } from "./messages.js";
import { Bank } from "./bank.js";
import { Neighbors } from "./neighbors.js";
import { JOINT, Queue } from "./queue.js";
import { save } from "./download.js";
import { Segmenter } from "./segmenter.js";
import { SideBySide } from "./side.js";
import { upload } from "./upload.js";
import { Workspace } from "./workspace.js";

const $ = (id) => document.getElementById(id);

let side = null;
/** The query of the address that is shown. */
let address = location.search;
const workspace = new Workspace({
  before: (photo) => {
    neighbors.use(photo);
    queue.mark(photo.file);
    segmenter.use(photo);
    for (const tool of [bank, segmenter]) if (tool.isOpen && tool.trained.stored) tool.trained.guarded(() => tool.show());
  },
  after: async (photo, signal) => {
    await side?.show(photo, signal);
    await neighbors.show(photo, signal);
    $("queue-store").hidden = !neighbors.galleries;
  },
  commands: () => [bank, segmenter].flatMap((tool) => tool.commands()),
});
const neighbors = new Neighbors((path) => (workspace.model ? `${path}&model=${encodeURIComponent(workspace.model)}` : path));
const queue = new Queue($("queue"), {
  partsOf: () => workspace.path("pca", "&output=patch", 16 * workspace.patchSize),
  open: (file) => openPhoto(file),
  fail: (error) => guarded(() => { throw error; }),
});
const openPhoto = (file) => guarded(() => open(file));
const bank = new Bank(workspace, { queued: () => queue.photos.filter(({ state }) => state !== "failed"), open: openPhoto });
const segmenter = new Segmenter(workspace, { open: openPhoto });

start();

async function start() {
  listen();
  showSamples($("samples"), (sample) => guarded(() => openSample(sample.name)));
  showSamples($("second-samples"), (sample) => guarded(async () => workspace.openSecond(await fetchSample(sample))));
  await guarded(async () => {
    const models = await servedModels();
    useModel(models[0], models.length > 1);
    side = new SideBySide($("side"), models, guarded);
    $("chosen").hidden = models.length < 2;
    $("chosen").replaceChildren(...models.map(({ id, precision }) => element("option", { value: id }, `${id}, ${precision}`)));
    $("chosen").addEventListener("change", () => {
      useModel(models.find(({ id }) => id === $("chosen").value), true);
      queue.redo();
      reopen();
    });
    $("size").addEventListener("change", () => {
      workspace.size = Number($("size").value);
      reopen();
    });
    const sample = new URLSearchParams(location.search).get("sample");
    if (sample) await openSample(sample);
  });
  addEventListener("popstate", () => {
    // A link within the page changes only the fragment.
    if (location.search === address) return;
    address = location.search;
    const sample = new URLSearchParams(address).get("sample");
    if (sample) guarded(() => openSample(sample));
  });
}

/** Writes the address of what is shown. */
function setAddress(query) {
  if (query === address) return;
  address = query;
  history.pushState(null, "", query || location.pathname);
}

/** Makes `model` the one of this page; with `byName` requests name it. */
function useModel(model, byName) {
  showModel(model, $("model"), $("notice"));
  workspace.model = byName ? model.id : "";
  workspace.patchSize = model.patch;
  workspace.size = model.map_size;
  // Larger ones have more patches than servers take by default.
  const sizes = [16, 24, 32, 48].map((patches) => patches * model.patch);
  const all = [...new Set([...sizes, model.map_size])].sort((a, b) => a - b);
  $("size").replaceChildren(...all.map((size) => element("option", { value: size, selected: size === model.map_size }, `${size} px`)));
}

/** Shows the open photographs again, with another model or size. */
function reopen() {
  const { photo, second } = workspace;
  if (second) second.grid = workspace.gridOf(second.picture);
  if (photo) guarded(() => workspace.open(photo.file));
}

/** Opens a sample, which has an address. */
async function openSample(name) {
  const file = await fetchSample({ name });
  setAddress(`?sample=${encodeURIComponent(name)}`);
  await workspace.open(file);
}

async function open(file) {
  setAddress("");
  await workspace.open(file);
}

function listen() {
  for (const id of ["file", "folder"]) $(id).addEventListener("change", ({ target }) => choose(target.files).then(() => (target.value = "")));
  $("second-file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    if (file) guarded(() => workspace.openSecond(file)).then(() => (target.value = ""));
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData.files.length > 0) choose(event.clipboardData.files);
  });
  receiveDrops(async (event) => {
    const [isForSecond, isForBank] = ["#second-card", "#bank-card"].map((card) => Boolean(event.target.closest(card)));
    await guarded(async () => {
      const files = await dropped(event.dataTransfer);
      const { photos } = sorted(files);
      const [first, ...more] = photos;
      if (isForBank && first) bank.add(photos.map((file) => ({ file, name: file.path })));
      else if (isForSecond && first && more.length === 0) await workspace.openSecond(first);
      else await choose(files);
    });
  });
  $("queue-joint").addEventListener("click", () => guarded(showJoint));
  $("queue-store").addEventListener("click", () => guarded(storeAll));
}

/** Opens one photograph, compares two, or queues many. Says which files are no photographs. */
async function choose(files) {
  const { photos, others } = sorted(files);
  $("unused").hidden = photos.length === 0 || others.length === 0;
  const rest = others.length > 8 ? ` and ${others.length - 8} more` : "";
  $("unused").textContent = `Not used, because they are not images: ${others.slice(0, 8).join(", ")}${rest}.`;
  await guarded(async () => {
    if (photos.length === 0) {
      if (others.length === 0) throw new Problem("There is no photograph among these files.");
      throw new Problem(`${others[0]} is not an image. JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, PNM and QOI can be read.`);
    }
    const [first, second] = photos;
    if (photos.length > 2 || !$("queue").hidden) {
      queue.add(photos.map((file) => ({ file, name: file.path })));
      if (photos.length === 1 || !workspace.photo) await open(first);
    } else if (second) {
      await Promise.all([guarded(() => open(first)), guarded(() => workspace.openSecond(second))]);
    } else {
      await open(first);
    }
  });
}

/** Shows the parts of several photographs in the same colors. */
async function showJoint() {
  const photos = queue.photos.filter(({ state }) => state !== "failed").slice(0, JOINT);
  const response = await fetchWithKey(workspace.path("pca", "&foreground=auto&overlay=0.8", 16 * workspace.patchSize), {
    method: "POST", body: formOf(photos), headers: { Accept: "image/png" },
  });
  if (!response.ok) throw await problemOf(response);
  const png = await response.blob();
  const address = URL.createObjectURL(png);
  const picture = element("img", { src: address, alt: `Parts of ${photos.map(({ name }) => name).join(", ")}` });
  const keep = element("button", { type: "button" }, "Save as PNG");
  const close = element("button", { type: "button" }, "Close");
  const dialog = element("dialog", { className: "joint", "aria-label": "Parts together" },
    element("h2", {}, "Parts together"), element("p", { className: "hint" }, "A color means the same part in all photographs."),
    picture, element("div", { className: "dialog-actions" }, keep, close));
  keep.addEventListener("click", () => save(png, "parts-together.png"));
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    URL.revokeObjectURL(address);
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
}

/** Adds all photographs of the queue to the gallery that the form names. */
async function storeAll() {
  const { gallery } = neighbors;
  const photos = queue.photos.filter(({ state }) => state !== "failed");
  $("queue-store").disabled = true;
  const report = (stored) => ($("queue-summary").textContent = `${stored} of ${photos.length} are stored in “${gallery}”.`);
  try {
    const { failures } = await upload(photos, { gallery, path: (path) => neighbors.itemPath(path), report, signal: queue.signal });
    if (failures.length > 0) throw new Problem(`Not stored: ${failures.join("; ")}`);
    if (workspace.photo) await neighbors.show(workspace.photo, workspace.signal);
  } finally {
    $("queue-store").disabled = false;
  }
}
