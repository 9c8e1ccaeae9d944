// A listing of any length: pages near the reader are kept; of all others only the keys they begin after.
//
// The service pages by `after`, so a far place is reached by walking there, a thousand entries a step.

import { address, json } from "./service.js";

export const PAGE = 100;
const STRIDE = 10; // pages a step
const KEPT = 40; // pages

export class Listing {
  #filter;
  #archive;
  #starts = [""]; // the key after which each page begins
  #pages = new Map(); // page -> its entries, the one not used for longest first
  #pending = new Map();
  #wanted = [0, 0];
  #pumping = false;
  #gone = new AbortController();

  constructor(archive, filter) {
    this.#archive = archive;
    this.#filter = filter;
    this.total = null;
    this.onChange = () => {};
    this.onProblem = () => {};
    this.onProgress = () => {};
  }

  close() {
    this.#gone.abort();
  }

  /** Return the entry at an index where it is at hand. */
  peek(index) {
    return this.#pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  /** See that the entries from one index to another come; `onChange` tells when. */
  want(first, last) {
    this.#wanted = [Math.floor(first / PAGE), Math.floor(last / PAGE)];
    this.#pump();
  }

  /** Return the entry at an index, undefined beyond the end. */
  async at(index) {
    if (index < 0) return undefined;
    const page = Math.floor(index / PAGE);
    while (page >= this.#starts.length && !this.#whole) await this.#step();
    return (await this.#load(page))?.[index % PAGE];
  }

  /** Return the index of the first entry whose key is not before `key`; the total where there is none. */
  async find(key) {
    await this.#load(0);
    while (!this.#whole && before(this.#starts.at(-1), key)) await this.#step();
    const next = this.#starts.findIndex((start, page) => page > 0 && !before(start, key));
    const page = (next < 0 ? this.#starts.length : next) - 1;
    const entries = (await this.#load(page)) ?? [];
    const place = entries.findIndex((entry) => !before(entry.key, key));
    return Math.min(page * PAGE + (place < 0 ? entries.length : place), this.total);
  }

  get #whole() {
    return this.total !== null && this.#starts.length >= Math.ceil(this.total / PAGE);
  }

  async #step() {
    await this.#fetch(this.#starts.length - 1, STRIDE);
    this.onProgress(Math.min(this.#starts.length * PAGE, this.total), this.total);
  }

  async #load(page) {
    if (page >= this.#starts.length) return undefined;
    if (!this.#pages.has(page)) await this.#fetch(page, 1);
    return this.#used(page);
  }

  #used(page) {
    const entries = this.#pages.get(page);
    this.#pages.delete(page);
    this.#pages.set(page, entries);
    return entries;
  }

  async #pump() {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      while (!this.#gone.signal.aborted) {
        const [first, last] = this.#wanted;
        const ahead = Math.min(last + 1, this.#last); // the page after what is seen comes along
        let page = first;
        while (page <= ahead && this.#pages.has(page)) this.#used(page++);
        if (page > ahead) return;
        if (page < this.#starts.length) await this.#load(page);
        else if (this.#whole) return;
        else await this.#step();
      }
    } catch (error) {
      if (!this.#gone.signal.aborted) this.onProblem(error);
    } finally {
      this.#pumping = false;
    }
  }

  get #last() {
    return this.total === null ? 0 : Math.max(0, Math.ceil(this.total / PAGE) - 1);
  }

  #fetch(page, pages) {
    if (!this.#pending.has(page)) {
      this.#pending.set(page, this.#read(page, pages).finally(() => this.#pending.delete(page)));
    }
    return this.#pending.get(page);
  }

  async #read(page, pages) {
    const query = { ...this.#filter, after: this.#starts[page], limit: pages * PAGE };
    const { assets, next, total } = await json(address([this.#archive, "assets"], query), this.#gone.signal, { patient: true });
    this.total = next === null ? page * PAGE + assets.length : Math.max(total, page * PAGE + assets.length);
    for (let n = 0; n * PAGE < assets.length || n === 0; n++) {
      const entries = assets.slice(n * PAGE, (n + 1) * PAGE);
      this.#pages.delete(page + n);
      this.#pages.set(page + n, entries);
      if (entries.length === PAGE && (page + n + 1) * PAGE < this.total) this.#starts[page + n + 1] = entries.at(-1).key;
    }
    for (const old of this.#pages.keys()) {
      if (this.#pages.size <= KEPT) break;
      if (old < this.#wanted[0] || old > this.#wanted[1] + 1) this.#pages.delete(old);
    }
    this.onChange();
  }
}

/** Whether a key comes before another in the order of their bytes, which is the service's. */
export function before(one, other) {
  const [a, b] = [[...one], [...other]];
  const place = a.findIndex((letter, n) => letter !== b[n]);
  if (place < 0) return a.length < b.length;
  return place < b.length && a[place].codePointAt(0) < b[place].codePointAt(0);
}
