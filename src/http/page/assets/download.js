// Files of what the page shows.

import { element, fetchWithKey, formOf, problemOf } from "./api.js";

/** The name of a photograph without its ending. */
export const stem = ({ name }) => name.replace(/\.\w+$/, "");

/** Saves a blob under a name. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** Saves what a canvas shows as a PNG. */
export function saveCanvas(canvas, name) {
  canvas.toBlob((blob) => save(blob, name), "image/png");
}

/** Saves the patches that `inside` holds for as a mask: white on black, one pixel per pixel of the model's input. */
export function saveMask(inside, [rows, columns], patchSize, name) {
  const canvas = element("canvas", { width: columns * patchSize, height: rows * patchSize });
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#fff";
  for (let index = 0; index < rows * columns; index++) {
    if (inside(index)) context.fillRect((index % columns) * patchSize, Math.floor(index / columns) * patchSize, patchSize, patchSize);
  }
  saveCanvas(canvas, name);
}

/** Saves the answer to a request with these photographs, in the form of a media type. */
export async function saveAnswer(path, photos, accept, name, signal) {
  const response = await fetchWithKey(path, { method: "POST", body: formOf(photos), headers: { Accept: accept }, signal });
  if (!response.ok) throw await problemOf(response);
  save(await response.blob(), name);
}

/** Buttons in `place` that save files: `[text, work]` each. */
export function offer(place, files, guarded) {
  place.replaceChildren("Save as ", ...files.map(([text, work]) => {
    const button = element("button", { type: "button", "aria-label": `Save as ${text}` }, text);
    button.addEventListener("click", () => guarded(async () => work()));
    return button;
  }));
}
