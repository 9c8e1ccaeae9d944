// The grid of LRs: only the rows near the window exist, however many entries there are.

import { follow, picture } from "./service.js";
import { element, line, name } from "./figures.js";

const NARROWEST = { wide: 236, narrow: 144 }; // of a cell, in pixels
const GAP = { wide: 24, narrow: 12 };
const CAPTION = 46;
const BELOW = 22;
const TALLEST = 16_000_000; // pixels; browsers draw nothing far below that
const SETTLED = 70; // ms that a row has to stay before its pictures are fetched

export class Grid {
  #root;
  #rows = new Map();
  #listing = null;
  #columns = 1;
  #rowHeight = 1;
  #active = 0;
  #drawn = 0;

  /** `link` gives an entry's address and `open` shows it; `onMove` gets the index of the first entry in sight. */
  constructor(root, { link, open, onMove }) {
    this.#root = root;
    this.link = link;
    this.onMove = onMove;
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("click", (event) => {
      const cell = event.target.closest("a[data-index]");
      if (!cell || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      event.preventDefault();
      this.#active = Number(cell.dataset.index);
      const asset = this.#listing.peek(this.#active);
      if (asset) open(asset, this.#active);
    });
    root.addEventListener("focusin", (event) => {
      const cell = event.target.closest("a[data-index]");
      if (cell) this.#activate(Number(cell.dataset.index));
    });
    addEventListener("scroll", () => this.#draw(), { passive: true });
    new ResizeObserver(() => this.#measure()).observe(root);
  }

  /** Show a listing from its beginning. */
  show(listing) {
    this.#clear();
    this.#listing = listing;
    this.#active = 0;
    listing.want(0, 0);
    this.update();
  }

  /** Take up what has come of the listing. */
  update() {
    this.#measure();
    for (const [index, row] of this.#rows) if (row.dataset.whole !== "1") this.#fill(row, index);
    this.#draw();
  }

  /** Bring an entry into sight, at the top or as near as it is, and with `focus` put the focus on it. */
  reveal(index, { focus = false, top = false } = {}) {
    this.#activate(Math.max(0, Math.min(index, this.#shown - 1)));
    const row = Math.floor(this.#active / this.#columns);
    const [above, below] = [this.#top + row * this.#rowHeight, this.#top + (row + 1) * this.#rowHeight];
    const bar = this.#covered;
    if (top || above - bar < scrollY) scrollTo(0, Math.max(0, above - bar - 8));
    else if (below > scrollY + innerHeight) scrollTo(0, below - innerHeight);
    this.#render();
    if (focus) this.#cell(this.#active)?.focus({ preventScroll: true });
  }

  get #shown() {
    const most = Math.floor(TALLEST / this.#rowHeight) * this.#columns;
    return Math.min(this.#listing?.total ?? 0, most);
  }

  /** How many entries the page can be tall enough for, where that is fewer than there are. */
  get cut() {
    return this.#shown < (this.#listing?.total ?? 0) ? this.#shown : null;
  }

  get #top() {
    return this.#root.getBoundingClientRect().top + scrollY;
  }

  get #covered() {
    const bar = document.querySelector("#browse .bar");
    return getComputedStyle(bar).position === "sticky" ? bar.offsetHeight : 0;
  }

  #cell(index) {
    return this.#root.querySelector(`a[data-index="${index}"]`);
  }

  #activate(index) {
    this.#cell(this.#active)?.setAttribute("tabindex", "-1");
    this.#active = index;
    this.#cell(index)?.setAttribute("tabindex", "0");
  }

  #measure() {
    const width = this.#root.clientWidth;
    if (!width || !this.#listing) return;
    const form = width < 560 ? "narrow" : "wide";
    const gap = GAP[form];
    const columns = Math.max(1, Math.floor((width + gap) / (NARROWEST[form] + gap)));
    const cell = (width - gap * (columns - 1)) / columns;
    const height = Math.round((cell * 2) / 3) + CAPTION + BELOW;
    const style = this.#root.style;
    if (columns !== this.#columns || height !== this.#rowHeight) {
      const first = this.#columns * Math.max(0, Math.round((scrollY + this.#covered - this.#top) / this.#rowHeight));
      this.#clear();
      [this.#columns, this.#rowHeight] = [columns, height];
      style.setProperty("--columns", columns);
      style.setProperty("--gap", `${gap}px`);
      style.setProperty("--row", `${height - BELOW}px`);
      if (first) scrollTo(0, this.#top + Math.floor(first / columns) * height - this.#covered);
    }
    const rows = Math.ceil(this.#shown / columns);
    style.height = `${rows * height}px`;
    this.#root.setAttribute("aria-rowcount", rows);
    this.#root.setAttribute("aria-colcount", columns);
    this.#draw();
  }

  #draw() {
    this.#drawn ||= requestAnimationFrame(() => this.#render());
  }

  #render() {
    cancelAnimationFrame(this.#drawn);
    this.#drawn = 0;
    if (!this.#listing || !this.#root.clientWidth) return;
    const rows = Math.ceil(this.#shown / this.#columns);
    const top = scrollY - this.#top;
    const first = Math.max(0, Math.floor(top / this.#rowHeight) - 1);
    const last = Math.min(rows - 1, Math.floor((top + innerHeight) / this.#rowHeight) + 1);
    const held = this.#root.contains(document.activeElement) ? Math.floor(this.#active / this.#columns) : -1;
    for (const [index, row] of this.#rows) if ((index < first || index > last) && index !== held) this.#drop(index, row);
    for (let index = first; index <= last; index++) if (!this.#rows.has(index)) this.#add(index);
    if (!this.#root.querySelector('a[tabindex="0"]')) this.#activate(first * this.#columns);
    if (last >= first) this.#listing.want(first * this.#columns, (last + 1) * this.#columns - 1);
    this.onMove(Math.max(0, Math.ceil((top + this.#covered) / this.#rowHeight - 0.5)) * this.#columns);
  }

  #add(index) {
    const row = element("div", { className: "row", role: "row", "aria-rowindex": index + 1 });
    row.style.transform = `translateY(${index * this.#rowHeight}px)`;
    const leaving = new AbortController();
    row.leave = () => leaving.abort(new DOMException("out of sight", "AbortError"));
    row.leaving = leaving.signal;
    for (let column = 0; column < this.#columns && index * this.#columns + column < this.#shown; column++) {
      const at = index * this.#columns + column;
      const link = element("a", { tabIndex: at === this.#active ? 0 : -1, className: "cell waiting" });
      link.dataset.index = at;
      link.append(...["frame", "name", "soft"].map((className) => element("span", { className })));
      row.append(element("div", { role: "gridcell", "aria-colindex": column + 1 }, link));
    }
    const later = [...this.#rows.keys()].filter((each) => each > index).sort((a, b) => a - b)[0];
    this.#root.insertBefore(row, this.#rows.get(later) ?? null); // reading order is the order of the rows
    this.#rows.set(index, row);
    this.#fill(row, index);
  }

  #fill(row, index) {
    let whole = true;
    for (const link of row.querySelectorAll("a.waiting")) {
      const asset = this.#listing.peek(Number(link.dataset.index));
      if (!asset) {
        whole = false;
        continue;
      }
      const [, title, about] = link.children;
      link.classList.remove("waiting");
      link.href = this.link(asset);
      link.title = asset.key;
      title.textContent = name(asset.key);
      about.textContent = line(asset);
      setTimeout(() => row.leaving.aborted || this.#show(link, asset, row.leaving), SETTLED);
    }
    row.dataset.whole = whole ? "1" : "0";
  }

  async #show(link, asset, leaving) {
    const frame = link.firstChild;
    try {
      const { image, release, what } = await thumbnail(asset, leaving);
      leaving.addEventListener("abort", release);
      image.alt = `${asset.key}, ${what}`;
      const wide = image.naturalWidth * 2 >= image.naturalHeight * 3; // small pictures fill the frame as large ones do
      image.className = wide ? "wide" : "high";
      frame.replaceChildren(image);
    } catch (error) {
      if (leaving.aborted) return;
      frame.replaceChildren(element("span", { className: "missing", textContent: "no picture" }));
      link.title = `${asset.key}: ${error.message}`;
    }
  }

  #drop(index, row) {
    row.leave();
    row.remove();
    this.#rows.delete(index);
  }

  #clear() {
    for (const [index, row] of this.#rows) this.#drop(index, row);
  }

  #key(event) {
    if (event.altKey || event.metaKey || !event.target.closest("a[data-index]")) return;
    const column = this.#active % this.#columns;
    const page = this.#columns * Math.max(1, Math.floor((innerHeight - this.#covered) / this.#rowHeight));
    const last = this.#shown - 1;
    const to = {
      ArrowLeft: this.#active - 1,
      ArrowRight: this.#active + 1,
      ArrowUp: this.#active - this.#columns,
      ArrowDown: this.#active + this.#columns,
      PageUp: Math.max(column, this.#active - page),
      PageDown: Math.min(this.#active + page, last),
      Home: event.ctrlKey ? 0 : this.#active - column,
      End: event.ctrlKey ? last : Math.min(last, this.#active - column + this.#columns - 1),
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to >= 0 && to <= last) this.reveal(to, { focus: true });
  }
}

/** Fetch an entry's small picture: its LR as stored, or where there is none, or the browser cannot show it, one restored. */
async function thumbnail(asset, signal) {
  if (asset.kind === "lr") {
    try {
      return { ...(await picture(follow(asset.links.lr), signal)), what: "LR" };
    } catch (error) {
      if (error.kind !== "not-shown") throw error;
      const size = `${asset.lr_width}x${asset.lr_height}`;
      const restored = await picture(follow(asset.links.image, { size, latent: 0, format: "webp" }), signal);
      return { ...restored, what: "restored small" };
    }
  }
  const original = await picture(follow(asset.links.image, { max_side: 480, format: "webp", quality: 85 }), signal);
  return { ...original, what: "original" };
}
