// Command lines equivalent to what the page does.

import { element } from "./api.js";

/** A word of a shell's command line. */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** Shows a command for each map of `photo`, and for what lies over it. */
export function showCommands(place, photo, { overlay, second }) {
  const server = location.origin;
  const body = `--data-binary ${quoted(`@${photo.name}`)} -H ${quoted(`Content-Type: ${photo.file.type || "application/octet-stream"}`)}`;
  const form = [photo, second].filter(Boolean).map(({ name }) => `-F ${quoted(`image=@${name}`)}`).join(" ");
  const commands = [
    ["Parts", `curl ${body} ${server}/v1/pca -o parts.png`],
    ["All heads", `curl ${body} ${quoted(`${server}/v1/attention?head=all`)} -o heads.png`],
  ];
  if (overlay?.head !== undefined) {
    commands.push([`Head ${overlay.head} over the photograph`, `curl ${body} ${quoted(`${server}/v1/attention?head=${overlay.head}&overlay=0.65&upscale=bicubic`)} -o head.png`]);
  }
  if (overlay?.patch) {
    commands.push(["Similarity to the marked patch", `curl ${form} ${quoted(`${server}/v1/similarity?patch=${overlay.patch.join(",")}&overlay=0.65`)} -o similarity.png`]);
  }
  commands.push(["Nearest in the gallery", `curl ${body} ${quoted(`${server}/v1/knn?k=8`)}`]);
  place.replaceChildren(...commands.map(([caption, command]) => {
    const copy = element("button", { type: "button", "aria-label": `Copy the command: ${caption}` }, "Copy");
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(command);
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), 1500);
    });
    return element("figure", {}, element("figcaption", {}, caption), element("pre", {}, command), copy);
  }));
}
