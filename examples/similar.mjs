// Where in the second picture is what is at a place of the first?
//
//   node similar.mjs FIRST SECOND X Y       X and Y are shares of the first picture's width and height, such as 0.4 0.3
//
// Prints the three places of the second picture that are most alike, and writes likeness.png with both maps.

import { readFile, writeFile } from "node:fs/promises";
import { basename } from "node:path";

const server = process.env.DINOSERVE_URL ?? "http://127.0.0.1:8080";
const [first, second, x, y] = process.argv.slice(2);
const near = 0.01;
const box = [Number(x) - near, Number(y) - near, Number(x) + near, Number(y) + near].map((side) => Math.min(Math.max(side, 0), 1));

async function similarity(accept) {
  const form = new FormData();
  for (const path of [first, second]) form.append("image", new Blob([await readFile(path)]), basename(path));
  const response = await fetch(`${server}/v1/similarity?box=${box}&overlay=0.7`, { method: "POST", body: form, headers: { Accept: accept } });
  if (!response.ok) throw new Error((await response.json()).detail);
  return response;
}

const { data } = await (await similarity("application/json")).json();
const { grid: [rows, columns], similarity: map } = data[1];
const places = map.flatMap((row, r) => row.map((score, c) => ({ score, x: (c + 0.5) / columns, y: (r + 0.5) / rows })));
places.sort((a, b) => b.score - a.score);
for (const { score, x, y } of places.slice(0, 3)) console.log(`${score.toFixed(3)} at ${x.toFixed(2)} ${y.toFixed(2)}`);
await writeFile("likeness.png", Buffer.from(await (await similarity("image/png")).arrayBuffer()));
