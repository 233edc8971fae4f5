// What a page says: errors in its alert, progress to screen readers, and what waits.

import { Problem } from "./api.js";

const $ = (id) => document.getElementById(id);

/** Runs what may fail, and says in words what went wrong. */
export async function guarded(work) {
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

export function say(text) {
  $("status").textContent = text;
}

/** Shows that `place` waits for `work`. */
export async function working(place, work) {
  place.classList.add("working");
  try {
    return await work();
  } finally {
    place.classList.remove("working");
  }
}
