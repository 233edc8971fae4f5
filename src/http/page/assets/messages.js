// What a page says: errors in its alert, progress to screen readers, and what waits.

import { Problem } from "./api.js";

const $ = (id) => document.getElementById(id);

/** A share as people read it. */
export function percent(share) {
  return share > 0 && share < 0.01 ? "less than 1 %" : `${Math.round(share * 100)} %`;
}

/** Runs what may fail, and says in `place` what went wrong. */
export async function guarded(work, place = $("error")) {
  try {
    place.hidden = true;
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) console.error(error);
    place.textContent = error instanceof Problem ? error.message : `This page failed: ${error.message}`;
    place.hidden = false;
    place.scrollIntoView({ block: "nearest" });
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
