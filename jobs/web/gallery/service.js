// Talking to the service: the token, busy answers tried again, every failure a sentence with what to do.

const ROOT = new URL("../", import.meta.url); // the gallery lies one folder below the service
const TRIES = 4;
const LONGEST_WAIT = 30; // seconds, whatever Retry-After says

let token = sessionStorage.getItem("token");
let asking = null;
const scripts = {}; // what has run, or is about to
const hooks = { askForToken: async () => null, onWait: () => {} };

/** Set what asks a person for a token (given whether one was refused), and what tells of waiting (a sentence, "" when it is over). */
export function use(own) {
  Object.assign(hooks, own);
}

export class ServiceError extends Error {
  constructor(status, kind, message, advice) {
    super(message);
    Object.assign(this, { status, kind, advice });
  }
}

const ADVICE = {
  0: "Check that it still runs and that you are connected, then try again.",
  401: "Reload the page and give the token that the service was started with.",
  403: "Ask whoever runs the service for access.",
  404: "Go back to all entries to look for it there.",
  429: "Wait a moment, then try again.",
  409: "Open it from all entries, which tell the shards apart.",
  422: "",
  500: "The log of the service says more.",
  502: "“iarn verify” tells how much of the archive is damaged; other entries may well be whole.",
  503: "Wait a moment, then try again.",
  504: "Ask for a smaller size, or try again.",
};

/** Return the address of something below an archive, or of the list of archives: names are one segment each. */
export function address(names, query = {}) {
  return follow(new URL(["archives", ...names.map(encodeURIComponent)].join("/"), ROOT), query);
}

/** Return the address of what viewers are told of an entry's picture (IIIF Image API 3.0, 5). */
export function viewed(archive, key) {
  return new URL(["iiif/3", ...[archive, key].map(encodeURIComponent), "info.json"].join("/"), ROOT).href;
}

/** Return an address with a query. */
export function follow(link, query = {}) {
  const url = new URL(link);
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  for (const [name, value] of given) url.searchParams.set(name, value);
  return url.href;
}

export function hasToken() {
  return token !== null;
}

/**
 * Fetch, and wait where the service is busy, with `patient` for as long as it is.
 *
 * Raises ServiceError, and the signal's reason when it is aborted.
 */
export async function request(url, signal, { patient = false } = {}) {
  for (let attempt = 1; ; attempt++) {
    const sent = token;
    const response = await fetch(url, { signal, headers: sent ? { Authorization: `Bearer ${sent}` } : {} }).catch((error) => {
      signal?.throwIfAborted();
      throw new ServiceError(0, "unreachable", "The service cannot be reached.", ADVICE[0], { cause: error });
    });
    if (attempt > 1) hooks.onWait("");
    if (response.ok) return response;
    if (response.status === 401 && (await renewed(sent))) continue;
    const error = await problem(response);
    if (response.status !== 503 || (attempt >= TRIES && !patient)) throw error;
    const seconds = Math.min(Number(response.headers.get("Retry-After")) || 2 ** attempt, LONGEST_WAIT);
    hooks.onWait(`${error.message} Trying again in ${seconds} s.`);
    await pause(seconds * 1000, signal);
  }
}

/** Fetch JSON; the links of entries in it, which are relative to what was asked for, become whole addresses. */
export async function json(url, signal, options) {
  const told = await (await request(url, signal, options)).json();
  for (const { links } of told.assets ?? [told]) {
    for (const [name, link] of Object.entries(links ?? {})) links[name] = link && new URL(link, url).href;
  }
  return told;
}

async function renewed(sent) {
  if (token !== sent) return true; // another request has asked meanwhile
  asking ??= hooks.askForToken(sent !== null).finally(() => (asking = null));
  const given = await asking;
  if (!given) return false;
  if (!/^[!-~]+$/.test(given)) return renewed(sent); // nothing that a header can bear
  token = given;
  sessionStorage.setItem("token", given);
  return true;
}

async function problem(response) {
  const { status } = response;
  const told = await response.json().then((body) => body.error, () => null);
  const message = told?.message ?? `The service answered with status ${status}.`;
  return new ServiceError(status, told?.kind ?? "", message, ADVICE[status] ?? (status > 500 ? ADVICE[500] : ""));
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => (clearTimeout(timer), reject(signal.reason));
    const timer = setTimeout(() => (signal?.removeEventListener("abort", stop), resolve()), milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Fetch a picture and decode it: an img element with its blob's address, bytes and type; `release` frees them. */
export async function picture(url, signal) {
  const blob = await (await request(url, signal)).blob();
  const source = URL.createObjectURL(blob);
  const image = new Image();
  image.draggable = false;
  image.src = source;
  try {
    await image.decode();
    signal?.throwIfAborted();
  } catch {
    URL.revokeObjectURL(source);
    signal?.throwIfAborted();
    throw new ServiceError(200, "not-shown", "This browser cannot show the picture.", "Download it, or open it restored.");
  }
  return { image, size: blob.size, type: blob.type, release: () => URL.revokeObjectURL(source) };
}

/** Run a script that is no module, from beside these, once; resolves when it has run. */
export function script(name) {
  const { href } = new URL(name, import.meta.url);
  scripts[name] ??= new Promise((resolve, reject) => {
    const element = Object.assign(document.createElement("script"), { src: href, onload: resolve });
    element.onerror = () => {
      delete scripts[name];
      element.remove();
      reject(new ServiceError(0, "unreachable", "The service cannot be reached.", ADVICE[0]));
    };
    document.head.append(element);
  });
  return scripts[name];
}

/** Save what an address gives under a name, where a plain link could not send the token. */
export async function save(url, name) {
  const source = URL.createObjectURL(await (await request(url)).blob());
  Object.assign(document.createElement("a"), { href: source, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(source), 60_000);
}
