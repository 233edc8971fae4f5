// Requests to this page's own server. The page makes no others.

const UNREACHABLE = "The server does not answer. Is it still running?";

// Kept for as long as the tab is open.
const KEY = "dinoserve-api-key";

/** The same as `fetch`, with an API key if the server wants one; the visitor is asked for it when it is missing or wrong. */
export async function fetchWithKey(path, { headers, ...options } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    let response;
    try {
      response = await fetch(path, { ...options, headers: key ? { ...headers, Authorization: `Bearer ${key}` } : headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(UNREACHABLE, 0, "unreachable");
    }
    // Another request may have obtained a key meanwhile.
    if (response.status !== 401 || (key === sessionStorage.getItem(KEY) && !(await askForKey(Boolean(key))))) return response;
  }
}

let asking = null;

/** Shows a dialog, one for all requests that wait for it; false if the visitor has no key. */
function askForKey(wasWrong) {
  asking ??= new Promise((resolve) => {
    const input = element("input", { type: "password", autocomplete: "off", required: true });
    const hint = wasWrong ? "The server does not know that key." : "This server requires an API key.";
    const form = element(
      "form",
      { method: "dialog" },
      element("p", {}, hint),
      element("label", {}, "API key ", input),
      element("button", { type: "submit", className: "button primary" }, "Use it"),
    );
    const dialog = element("dialog", { className: "key-dialog", "aria-label": "API key" }, form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, input.value.trim());
      dialog.close("given");
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      asking = null;
      resolve(dialog.returnValue === "given");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

/** What went wrong, in words for people. */
export class Problem extends Error {
  /** `retryAfter`: seconds after which the same request may succeed. */
  constructor(detail, status, code, retryAfter) {
    super(detail);
    Object.assign(this, { status, code, retryAfter });
  }
}

/**
 * Sends a request; gives the JSON answer and the time of each stage in milliseconds.
 * @returns {Promise<{data: any, timing: Record<string, number>, status: number}>}
 */
export async function ask(path, { method = "GET", body, type, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (type) headers["Content-Type"] = type;
  const response = await fetchWithKey(path, { method, body, headers, signal });
  if (!response.ok) throw await problemOf(response);
  const data = response.status === 204 ? null : await response.json();
  return { data, timing: stages(response.headers.get("Server-Timing")), status: response.status };
}

/** The problem that a response states. */
export async function problemOf(response) {
  const retryAfter = Number(response.headers.get("Retry-After"));
  try {
    const { detail, code } = await response.json();
    return new Problem(detail, response.status, code, retryAfter);
  } catch {
    return new Problem(`The server answered with status ${response.status}.`, response.status, "unknown");
  }
}

/** The durations of a `Server-Timing` header. */
function stages(header) {
  const found = {};
  for (const part of (header ?? "").split(",")) {
    const [, name, duration] = part.match(/^\s*([a-z]+);dur=([\d.]+)/) ?? [];
    if (name) found[name] = Number(duration);
  }
  return found;
}

/** A form with photographs, `{file, name}` each. */
export function formOf(photos) {
  const form = new FormData();
  for (const { file, name } of photos) form.append("image", file, name);
  return form;
}

/** A request with one image as its body. */
export function askAbout(path, file, options = {}) {
  return ask(path, { method: "POST", body: file, type: file.type || "application/octet-stream", ...options });
}

/** The served models, the default one first. */
export async function servedModels() {
  return (await ask("/v1/models")).data.data;
}

/** Shows a model in the page's head, and what to know about it. */
export function showModel(model, chips, notice) {
  const texts = [model.id, model.precision, model.provider ?? "loading"];
  chips.replaceChildren(...texts.map((text) => Object.assign(document.createElement("span"), { textContent: text })));
  if (!notice) return;
  notice.textContent = model.notice ?? "";
  notice.hidden = !model.notice;
}

/** An element with properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** The picture of a stored item, or words in its place where it has none. */
export function thumbnail(id, gallery) {
  const path = itemPath(id, gallery, "/thumbnail");
  const picture = element("img", { alt: "", loading: "lazy" });
  const without = () => picture.replaceWith(element("div", { className: "no-picture" }, "no thumbnail"));
  picture.addEventListener("error", without);
  if (sessionStorage.getItem(KEY)) showWithKey(picture, path).catch(() => picture.dispatchEvent(new Event("error")));
  else picture.src = path;
  return picture;
}

/** Browsers send no key for a picture, so it is fetched. */
async function showWithKey(picture, path) {
  const response = await fetchWithKey(path);
  if (!response.ok) throw await problemOf(response);
  const address = URL.createObjectURL(await response.blob());
  picture.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
  picture.src = address;
}

/** The address of a stored item. */
export function itemPath(id, gallery, below = "") {
  return `/v1/gallery/${encodeURIComponent(id)}${below}?gallery=${encodeURIComponent(gallery)}`;
}
