// The pictures of one entry: which there are, where they come from, and the difference of any two.

import { follow, picture } from "./service.js";
import { side } from "./figures.js";

export const LARGEST = 16_000_000; // pixels of a difference; browsers have no larger canvas everywhere

/** Return what there is to look at of an entry: name, what it is called. */
export function choices(asset) {
  const there = [];
  if (asset.links.lr) there.push(["lr", "LR"]);
  if (asset.links.image) there.push(["restored", asset.kind === "lr" ? "Restored" : "Picture"]);
  if (asset.has_latent) there.push(["alone", "Restored from the LR alone"]);
  if (asset.kind === "lr" && asset.links.original) there.push(["original", "Original"]);
  return new Map(there);
}

/** Return the address of one of them; `scale` and `latent` are how the restored one is asked for. */
export function source(asset, which, { scale, latent, format = "png", quality = "" }) {
  if (which === "lr" || which === "original") return asset.links[which] && follow(asset.links[which]);
  const query = { scale: scale === 1 ? "" : scale, format, quality };
  if (asset.has_latent) query.latent = which === "alone" || !latent ? 0 : 1;
  return follow(asset.links.image, query);
}

/** Pictures fetched for one entry: each once, the last few kept; all are aborted and freed by `close`. */
export class Pictures {
  #kept = new Map();

  /** Return the picture of an address, aborting what is still under way for `instead` of it. */
  get(url, instead = null) {
    if (instead && instead !== url) this.#drop(instead, { unfinished: true });
    if (!this.#kept.has(url)) {
      const stop = new AbortController();
      const entry = { stop, done: false, shown: picture(url, stop.signal) };
      entry.shown.then(() => (entry.done = true), () => this.#kept.delete(url));
      this.#kept.set(url, entry);
    }
    const found = this.#kept.get(url);
    this.#kept.delete(url);
    this.#kept.set(url, found);
    for (const old of [...this.#kept.keys()].slice(0, -6)) this.#drop(old);
    return found.shown;
  }

  close() {
    for (const url of [...this.#kept.keys()]) this.#drop(url);
  }

  #drop(url, { unfinished = false } = {}) {
    const entry = this.#kept.get(url);
    if (!entry || (unfinished && entry.done)) return;
    this.#kept.delete(url);
    entry.stop.abort(new DOMException("no longer wanted", "AbortError"));
    entry.shown.then(({ release }) => release(), () => {});
  }
}

/** Draw the difference of two pictures, `gain` (a power of two) times, at the size of the larger; the smaller is enlarged smoothly. */
export function difference(one, other, gain) {
  const larger = one.naturalWidth * one.naturalHeight >= other.naturalWidth * other.naturalHeight ? one : other;
  const shrink = Math.min(1, Math.sqrt(LARGEST / (larger.naturalWidth * larger.naturalHeight)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(larger.naturalWidth * shrink));
  canvas.height = Math.max(1, Math.round(larger.naturalHeight * shrink));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillRect(0, 0, canvas.width, canvas.height); // black, so that alpha is as nothing
  context.drawImage(one, 0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "difference"; // |a - b|, exact in 8 bits
  context.drawImage(other, 0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "lighter"; // each time its own double, up to white
  for (let times = 1; times < gain; times *= 2) context.drawImage(canvas, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.dataset.size = side(canvas.width, canvas.height);
  return canvas;
}
