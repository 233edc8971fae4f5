// Photographs among chosen, dropped and pasted files.

/** Media types of files that are no images. Of all others, also without a type, the server says what they are. */
const NO_IMAGE = /^(audio|font|message|text|video)\/|^application\/(ecmascript|epub|gzip|java|json|msword|pdf|rtf|vnd\.|wasm|x-(7z|bzip|gzip|ms|rar|sh|tar|xz|zip)|xml|zip)/;

/** Parts files into those that may be photographs, in the order of their paths, and the names of the others. */
export function sorted(files) {
  const all = [...files].map((file) => Object.assign(file, { path: file.path || file.webkitRelativePath || file.name }));
  // Systems leave files of their own in folders.
  const visible = all.filter(({ path }) => !path.split("/").some((part) => part.startsWith(".")));
  const photos = visible.filter(({ type }) => !NO_IMAGE.test(type));
  const isImage = ({ type }) => type.startsWith("image/");
  if (photos.length > 2) photos.sort((a, b) => isImage(b) - isImage(a) || a.path.localeCompare(b.path, undefined, { numeric: true }));
  else photos.sort((a, b) => isImage(b) - isImage(a));
  return { photos, others: visible.filter((file) => !photos.includes(file)).map(({ path }) => path) };
}

/** The files of a drop, also those in folders, each with its `path`. */
export async function dropped(dataTransfer) {
  const entries = [...dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some(({ isDirectory }) => isDirectory)) return [...dataTransfer.files];
  const files = [];
  for (const entry of entries) await collect(entry, files);
  return files;
}

async function collect(entry, files) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    files.push(Object.assign(file, { path: entry.fullPath.slice(1) }));
    return;
  }
  const reader = entry.createReader();
  // A call returns some of the entries, and none at the end.
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const inner of some) await collect(inner, files);
  }
}

/** Calls `receive` with each drop on the page, over which a veil says what to do. */
export function receiveDrops(receive) {
  const veil = document.getElementById("veil");
  addEventListener("dragover", (event) => {
    event.preventDefault();
    veil.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil.hidden = true;
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    veil.hidden = true;
    receive(event);
  });
}
