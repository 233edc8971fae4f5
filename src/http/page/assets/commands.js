// Command lines equivalent to what the page does.

import { element } from "./api.js";

/** A word of a shell's command line. */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** Copies text; false if the browser does not allow it. */
async function copyText(text) {
  // Browsers have the clipboard's interface only on HTTPS and on localhost.
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Refused, as in a frame; the older way may work.
    }
  }
  const area = element("textarea", { value: text, readOnly: true, className: "visually-hidden", "aria-hidden": "true" });
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return copied;
}

/** Selects a command, for a visitor who copies it by keyboard. */
function selectText(place) {
  getSelection().selectAllChildren(place);
}

/** Shows a command for each map of `photo`, and for what lies over it. */
export function showCommands(place, photo, { overlay, second, model }) {
  const server = location.origin;
  const named = (path) => quoted(`${server}${path}${model && (path.includes("?") ? "&" : "?")}${model && `model=${encodeURIComponent(model)}`}`);
  const body = `--data-binary ${quoted(`@${photo.name}`)} -H ${quoted(`Content-Type: ${photo.file.type || "application/octet-stream"}`)}`;
  const form = [photo, second].filter(Boolean).map(({ name }) => `-F ${quoted(`image=@${name}`)}`).join(" ");
  const commands = [
    ["Parts", `curl ${body} ${named("/v1/pca")} -o parts.png`],
    ["All heads", `curl ${body} ${named("/v1/attention?head=all")} -o heads.png`],
  ];
  if (overlay?.head !== undefined) {
    commands.push([`Head ${overlay.head} over the photograph`, `curl ${body} ${named(`/v1/attention?head=${overlay.head}&overlay=0.65&upscale=bicubic`)} -o head.png`]);
  }
  if (overlay?.patch) {
    commands.push(["Similarity to the marked patch", `curl ${form} ${named(`/v1/similarity?patch=${overlay.patch.join(",")}&overlay=0.65`)} -o similarity.png`]);
  }
  commands.push(["Nearest in the gallery", `curl ${body} ${quoted(`${server}/v1/knn?k=8`)}`]);
  place.replaceChildren(...commands.map(([caption, command]) => {
    const copy = element("button", { type: "button", "aria-label": `Copy the command: ${caption}` }, "Copy");
    const shown = element("pre", {}, command);
    copy.addEventListener("click", async () => {
      const copied = await copyText(command);
      if (!copied) selectText(shown);
      copy.textContent = copied ? "Copied" : "Selected: press Ctrl+C";
      setTimeout(() => (copy.textContent = "Copy"), copied ? 1500 : 5000);
    });
    return element("figure", {}, element("figcaption", {}, caption), shown, copy);
  }));
}
