// Finds the places of a second image that are similar to a place of a first image.
//
//   node similar.mjs FIRST SECOND X Y
//
// X and Y are shares of the first image's width and height, such as 0.4 0.3. Prints the three most
// similar places of the second image, and writes similarity.png with the maps of both.

import { readFile, writeFile } from "node:fs/promises";
import { basename } from "node:path";

const server = process.env.DINOSERVE_URL ?? "http://127.0.0.1:8080";
const [first, second, ...place] = process.argv.slice(2);
const [x, y] = place.map(Number);
const margin = 0.01;
const corners = [x - margin, y - margin, x + margin, y + margin];
const box = corners.map((side) => Math.min(Math.max(side, 0), 1));

async function similarity(accept) {
  const form = new FormData();
  for (const path of [first, second]) {
    form.append("image", new Blob([await readFile(path)]), basename(path));
  }
  const url = `${server}/v1/similarity?box=${box}&overlay=0.7`;
  const response = await fetch(url, { method: "POST", body: form, headers: { Accept: accept } });
  if (!response.ok) throw new Error((await response.json()).detail);
  return response;
}

const { data } = await (await similarity("application/json")).json();
const { grid: [rows, columns], similarity: map } = data[1];
const places = map.flatMap((row, r) =>
  row.map((score, c) => ({ score, x: (c + 0.5) / columns, y: (r + 0.5) / rows })),
);
places.sort((a, b) => b.score - a.score);
for (const { score, x, y } of places.slice(0, 3)) {
  console.log(`${score.toFixed(3)} at ${x.toFixed(2)} ${y.toFixed(2)}`);
}
const rendering = await (await similarity("image/png")).arrayBuffer();
await writeFile("similarity.png", Buffer.from(rendering));
