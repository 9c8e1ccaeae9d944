// Two pictures in one place, with a divider between them: zoomed and moved together, down to single pixels.

const DEEPEST = 64; // pixels of the screen for one of the image
const STOPS = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 32, 64];

export class Stage {
  #root;
  #divider;
  #layers;
  #places = {}; // side -> what lays its element by itself
  #frame = null; // width and height of the image, in its pixels
  #zoom = null; // null: as large as fits
  #centre = { x: 0, y: 0 };
  #split = 50;
  #names = null; // what the sides show
  #pointers = new Map();
  #drag = null;

  /** `onChange` is told after each move of the picture or the divider. */
  constructor(root, onChange) {
    this.#root = root;
    this.#divider = root.querySelector("[role=slider]");
    this.#layers = { left: root.querySelector("[data-side=left]"), right: root.querySelector("[data-side=right]") };
    this.onChange = onChange;
    root.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    root.addEventListener("pointerdown", (event) => this.#down(event));
    root.addEventListener("pointermove", (event) => this.#move(event));
    root.addEventListener("pointerup", (event) => this.#up(event));
    root.addEventListener("pointercancel", (event) => this.#release(event));
    root.addEventListener("dblclick", (event) => {
      if (this.#zoom === null || this.zoom < 1) this.#zoomAt(Math.max(1, 4 * this.#fit), this.#point(event));
      else this.fit();
    });
    root.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(root);
  }

  /** Say how large the image is, in its pixels. */
  set frame(frame) {
    if (frame && this.#frame && frame.width === this.#frame.width && frame.height === this.#frame.height) return;
    this.#frame = frame;
    if (frame) this.#root.style.setProperty("--aspect", frame.width / frame.height);
    if (frame && this.#zoom === null) this.#centre = { x: frame.width / 2, y: frame.height / 2 };
    this.#draw();
  }

  /** Put an element on one side, null for none; `place`, where given, is told where the picture lies and lays it there. */
  put(side, shown, place = null) {
    this.#layers[side].replaceChildren(...(shown ? [shown] : []));
    this.#places[side] = place;
    this.#draw();
  }

  /** Say that a side is under way, or no longer. */
  busy(side, whether) {
    this.#layers[side].classList.toggle("busy", whether);
  }

  /** Name the sides; with null there is one picture and no divider. */
  set pair(names) {
    this.#divider.hidden = !names;
    this.#names = names;
    this.#draw();
  }

  get zoom() {
    return this.#zoom ?? this.#fit;
  }

  /** What the address has of this: divider, zoom and centre. */
  get view() {
    const { x, y } = this.#centre;
    const zoomed = this.#zoom !== null;
    const short = (value) => String(Number(value.toFixed(2)));
    return { split: short(this.#split), zoom: zoomed ? short(this.#zoom) : "", x: zoomed ? short(x) : "", y: zoomed ? short(y) : "" };
  }

  set view({ split, zoom, x, y }) {
    this.#split = within(Number(split), 0, 100, 50);
    this.#zoom = zoom === "" ? null : within(Number(zoom), 1 / 32, DEEPEST, 1);
    if (this.#zoom !== null) this.#centre = { x: Number(x) || 0, y: Number(y) || 0 };
    this.#draw();
  }

  fit() {
    this.#zoom = null;
    this.#changed();
  }

  /** Zoom to so many pixels of the screen for one of the image, about the middle. */
  zoomTo(zoom) {
    this.#zoomAt(zoom, this.#middle);
  }

  zoomIn() {
    this.zoomTo(STOPS.find((stop) => stop > this.zoom * 1.01) ?? DEEPEST);
  }

  zoomOut() {
    const smaller = STOPS.findLast((stop) => stop < this.zoom / 1.01) ?? 0;
    if (smaller <= this.#fit && this.zoom > this.#fit) this.fit();
    else this.zoomTo(smaller);
  }

  get #middle() {
    return { x: this.#root.clientWidth / 2, y: this.#root.clientHeight / 2 };
  }

  get #fit() {
    if (!this.#frame) return 1;
    const { width, height } = this.#frame;
    return Math.min(this.#root.clientWidth / width, this.#root.clientHeight / height, 8) || 1;
  }

  get #offset() {
    const { x, y } = this.#middle;
    const whole = this.zoom >= 1 ? Math.round : (value) => value;
    return { x: whole(x - this.#centre.x * this.zoom), y: whole(y - this.#centre.y * this.zoom) };
  }

  #zoomAt(zoom, at) {
    if (!this.#frame) return;
    const { x, y } = this.#offset;
    const [fx, fy] = [(at.x - x) / this.zoom, (at.y - y) / this.zoom];
    const next = Math.max(Math.min(zoom, DEEPEST), Math.min(this.#fit, 1)); // small pictures fit enlarged: 1:1 is less
    this.#zoom = next === this.#fit ? null : next;
    const middle = this.#middle;
    this.#centre = { x: fx - (at.x - middle.x) / this.zoom, y: fy - (at.y - middle.y) / this.zoom };
    this.#changed();
  }

  #pan(dx, dy) {
    this.#centre = { x: this.#centre.x - dx / this.zoom, y: this.#centre.y - dy / this.zoom };
    this.#changed();
  }

  #splitTo(value) {
    this.#split = Math.min(100, Math.max(0, value));
    this.#changed();
  }

  #changed() {
    this.#draw();
    this.onChange();
  }

  /** Where the picture lies in the window: it is as wide there as the divider goes. */
  get #box() {
    const { x, y } = this.#offset;
    const [width, height] = [this.#frame.width * this.zoom, this.#frame.height * this.zoom];
    return {
      left: Math.max(0, x), right: Math.min(this.#root.clientWidth, x + width),
      top: Math.max(0, y), bottom: Math.min(this.#root.clientHeight, y + height),
    };
  }

  #draw() {
    if (!this.#frame || !this.#root.clientWidth) return;
    const { width, height } = this.#frame;
    this.#centre.x = held(this.#centre.x, width, this.#root.clientWidth / this.zoom);
    this.#centre.y = held(this.#centre.y, height, this.#root.clientHeight / this.zoom);
    const { x, y } = this.#offset;
    const box = this.#box;
    const at = box.left + ((box.right - box.left) * this.#split) / 100;
    for (const [side, layer] of Object.entries(this.#layers)) {
      const shown = layer.firstElementChild;
      const middle = side === "left" ? (box.left + at) / 2 : (at + box.right) / 2;
      layer.style.setProperty("--middle", `${this.#names ? middle : (box.left + box.right) / 2}px`);
      if (this.#names === null) layer.style.clipPath = "none";
      else layer.style.clipPath = side === "left" ? `inset(0 calc(100% - ${at}px) 0 0)` : `inset(0 0 0 ${at}px)`;
      if (!shown) continue;
      if (this.#places[side]) {
        this.#places[side]({ x, y, zoom: this.zoom, width: this.#root.clientWidth, height: this.#root.clientHeight });
        continue;
      }
      Object.assign(shown.style, { width: `${width}px`, height: `${height}px` });
      shown.style.transform = `translate(${x}px, ${y}px) scale(${this.zoom})`;
    }
    this.#root.classList.toggle("crisp", this.zoom >= 1);
    this.#root.classList.toggle("zoomed", this.#zoom !== null);
    const divider = this.#divider;
    Object.assign(divider.style, { left: `${at}px`, top: `${box.top}px`, height: `${box.bottom - box.top}px` });
    const percent = Math.round(this.#split);
    divider.setAttribute("aria-valuenow", percent);
    if (this.#names) divider.setAttribute("aria-valuetext", `${percent} percent ${this.#names.left}, the rest ${this.#names.right}`);
  }

  #point(event) {
    const { left, top } = this.#root.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.002; // browsers send pinches on a touch pad as Ctrl and small steps
    this.#zoomAt(this.zoom * Math.exp(-event.deltaY * lines * speed), this.#point(event));
  }

  #down(event) {
    if (event.button) return;
    this.#root.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, this.#point(event));
    const divides = this.#names && (this.#divider.contains(event.target) || this.#zoom === null);
    this.#drag = this.#pointers.size > 1 ? "pinch" : divides ? "split" : "pan";
    if (this.#drag === "split") {
      this.#divider.focus({ preventScroll: true });
      event.preventDefault();
    }
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before || !this.#frame) return;
    const now = this.#point(event);
    if (this.#drag === "pinch") this.#pinch(event.pointerId, before, now);
    else if (this.#drag === "split") this.#splitAt(now.x);
    else this.#pan(now.x - before.x, now.y - before.y);
    this.#pointers.set(event.pointerId, now);
  }

  #up(event) {
    const at = this.#pointers.get(event.pointerId);
    if (at && this.#drag === "split" && this.#frame) this.#splitAt(at.x);
    this.#release(event);
  }

  #release(event) {
    this.#pointers.delete(event.pointerId);
    this.#drag = this.#pointers.size ? "pan" : null;
  }

  #splitAt(x) {
    const { left, right } = this.#box;
    this.#splitTo((100 * (x - left)) / (right - left));
  }

  #pinch(id, before, now) {
    const other = [...this.#pointers].find(([each]) => each !== id)?.[1];
    if (!other) return;
    const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
    this.#pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    this.#zoomAt((this.zoom * apart(now)) / apart(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const divides = this.#names && (event.target === this.#divider || this.#zoom === null);
    const far = event.shiftKey ? 10 : 1;
    const moves = divides
      ? { ArrowLeft: -far, ArrowRight: far, ArrowDown: -far, ArrowUp: far, PageDown: -10, PageUp: 10, Home: -100, End: 100 }
      : { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const move = moves[event.key];
    if (move === undefined) return;
    event.preventDefault();
    if (divides) this.#splitTo(this.#split + move);
    else this.#pan(move[0] * 40 * far, move[1] * 40 * far);
  }
}

function within(value, least, most, otherwise) {
  return Number.isFinite(value) ? Math.min(most, Math.max(least, value)) : otherwise;
}

/** Hold a centre so that no edge of the picture comes into a window that it is larger than. */
function held(centre, length, seen) {
  return length <= seen ? length / 2 : Math.min(length - seen / 2, Math.max(seen / 2, centre));
}
