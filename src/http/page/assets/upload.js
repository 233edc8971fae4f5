// Adds many photographs to a gallery.

import { Problem, ask, itemPath } from "./api.js";
import { FATAL, patiently } from "./queue.js";

/** Number of photographs that are sent at the same time. */
const AT_ONCE = 2;

/** Gives photographs of the same name names of their own: `cat.png`, `cat-2.png`. */
function withOwnNames(photos) {
  const names = new Set();
  return photos.map((photo) => {
    const [, stem, ending] = photo.name.match(/^(.*?)(\.\w+)?$/s);
    let { name } = photo;
    for (let number = 2; names.has(name); number++) name = `${stem}-${number}${ending ?? ""}`;
    names.add(name);
    return { ...photo, name };
  });
}

/**
 * Stores photographs, `{file, name}` each, under their names. `path` completes the path of an item, and `report` gets the number of
 * those that are stored. Returns `{failures, replaced}`: the reasons of those that were not stored, and the number of items whose
 * name was in the gallery already.
 */
export async function upload(photos, { gallery, path = (path) => path, report, signal }) {
  const failures = [];
  let stored = 0;
  let replaced = 0;
  const waiting = withOwnNames(photos);
  const store = async ({ file, name, label }) => {
    const query = label ? `&label=${encodeURIComponent(label)}` : "";
    const type = file.type || "application/octet-stream";
    const { data } = await ask(path(itemPath(name, gallery) + query), { method: "PUT", body: file, type, signal });
    stored += 1;
    if (!data.created) replaced += 1;
  };
  const work = async () => {
    while (waiting.length > 0) {
      signal.throwIfAborted();
      const photo = waiting.shift();
      try {
        await patiently(() => store(photo), signal);
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        // Without the server or without its permission no other photograph can be stored.
        if ([...FATAL, 404, 507].includes(error.status)) throw error;
        failures.push(`${photo.name}: ${error.message}`);
      }
      report(stored);
    }
  };
  // The first one makes the gallery.
  const rest = waiting.splice(1);
  await work();
  waiting.push(...rest);
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return { failures, replaced };
}
