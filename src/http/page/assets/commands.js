// Command lines and programs that do what the page does.

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

/** A string of Python. */
const literal = (text) => JSON.stringify(text);

/** What a photograph's page does, as `[caption, route, options, photographs, file]` each. */
function steps(photo, { overlay, matches, second, size, model }) {
  const common = { size, ...(model && { model }) };
  const found = [
    ["Parts", "pca", common, [photo], "parts.png"],
    ["All heads", "attention", { ...common, head: "all" }, [photo], "heads.png"],
  ];
  if (overlay?.head !== undefined) {
    found.push([`Head ${overlay.head} over the photograph`, "attention", { ...common, head: overlay.head, overlay: 0.65, upscale: "bicubic" }, [photo], "head.png"]);
  }
  if (overlay?.patch) {
    const photos = (overlay.isOnSecond ? [second, photo] : [photo, second]).filter(Boolean);
    found.push(["Similarity to the marked patch", "similarity", { ...common, patch: overlay.patch.join(","), overlay: 0.65 }, photos, "similarity.png"]);
  }
  if (overlay?.objects) {
    const options = { ...common, method: overlay.objects };
    found.push(["Objects over the photograph", "objects", options, [photo], "objects.png"], ["Objects as a list", "objects", options, [photo]]);
  }
  if (matches) {
    const options = { ...common, ...matches };
    found.push(["Matches of both photographs", "match", options, [photo, second], "matches.png"], ["Matches as a list", "match", options, [photo, second]]);
  }
  found.push(["Nearest in the gallery", "knn", { k: 8 }, [photo]]);
  return found;
}

function curl([, route, options, photos, file]) {
  const query = Object.entries(options).map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll("%2C", ",")}`).join("&");
  const [{ name, file: { type } }] = photos;
  const body = photos.length === 1
    ? `--data-binary ${quoted(`@${name}`)} -H ${quoted(`Content-Type: ${type || "application/octet-stream"}`)}`
    : photos.map(({ name }) => `-F ${quoted(`image=@${name}`)}`).join(" ");
  // Routes that draw answer with a picture unless JSON is asked for.
  const form = file ? ` -o ${file}` : route === "knn" ? "" : " -H 'Accept: application/json'";
  return `curl ${body} ${quoted(`${location.origin}/v1/${route}?${query}`)}${form}`;
}

function python([, route, options, photos, file]) {
  const names = photos.map(({ name }) => literal(name)).join(", ");
  const image = photos.length === 1 || route === "match" ? names : `[${names}]`;
  const value = (given) => (typeof given === "number" ? given : literal(given));
  const settings = Object.entries(options).map(([name, given]) => `, ${name}=${name === "patch" ? `(${given.replace(",", ", ")})` : value(given)}`).join("");
  const call = `Client(${literal(location.origin)}).${route}${file ? "_image" : ""}(${image}${settings})`;
  return `from dinoserve import Client\n${file ? `${call}.save(${literal(file)})` : `print(${call})`}`;
}

/** The command line of a request: `route` below `/v1`, with files as `[field, name]` each. */
export function commandLine(route, { method, options = {}, files, end = "" }) {
  const query = Object.entries(options).map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  const address = `${location.origin}/v1/${route}${query && `?${query}`}`;
  const body = files.map(([field, name]) => `-F ${quoted(`${field}=@${name}`)}`).join(" ");
  return `curl ${method ? `-X ${method} ` : ""}${body} ${quoted(address)}${end}`;
}

/** A program with a client that calls `method`. Lists among the arguments are files. */
export function program(method, args, after = "print(answer)") {
  const value = (given) => (Array.isArray(given) ? `[${given.map(literal).join(", ")}]` : literal(given));
  const call = `client.${method}(${args.map(value).join(", ")})`;
  return `from dinoserve import Client\nclient = Client(${literal(location.origin)})\n${after.replace("answer", call)}`;
}

/**
 * Shows for each map of `photo`, and for what lies over it, the command line or program that makes it. `more` has those of other
 * tools, as `[caption, command line, program]` each; some have no program.
 */
export function showCommands(place, photo, { language, more, ...shown }) {
  const isPython = language === "python";
  const commands = steps(photo, shown).map((step) => [step[0], isPython ? python(step) : curl(step)]);
  commands.push(...more.map(([caption, line, text]) => [caption, isPython ? text : line]).filter(([, command]) => command));
  place.replaceChildren(...commands.map(([caption, command]) => {
    const copy = element("button", { type: "button", "aria-label": `Copy: ${caption}` }, "Copy");
    const text = element("pre", { tabIndex: 0, "aria-label": caption }, command);
    copy.addEventListener("click", async () => {
      const copied = await copyText(command);
      if (!copied) selectText(text);
      copy.textContent = copied ? "Copied" : "Selected: press Ctrl+C";
      setTimeout(() => (copy.textContent = "Copy"), copied ? 1500 : 5000);
    });
    return element("figure", {}, element("figcaption", {}, caption), text, copy);
  }));
}
