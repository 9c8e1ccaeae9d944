// A large picture in tiles: OpenSeadragon fetches and draws those in sight, where the stage has them.
//
// It draws a level at its own pixels, one for one, and the page scales what it has drawn: so pixels stay what they are, and
// tiles meet without a seam at any zoom. What is asked of the service, and how, is as for whole pictures.

import { follow, json, request, script, viewed } from "./service.js";

const LARGE = 8_000_000; // pixels; with fewer the whole picture is about as soon there
const AT_ONCE = 4; // requests of one picture
const KEPT = 100; // tiles
const PATIENCE = 600_000; // ms; the service itself gives up before

/**
 * Return how a large entry is parted: the side of its tiles, and by what its coarsest level is shrunk.
 *
 * null where the whole picture is shown instead: where it is not large, where its picture or its file is kept, which is
 * decoded whole for any part of it, and where the service gives no tiles.
 */
export async function tiling(archive, asset, signal) {
  const kept = asset.kind !== "lr" || asset.links.original || asset.tier === "exact-pixels";
  if (kept || !(asset.width * asset.height > LARGE)) return null;
  try {
    const [{ tiles: [{ width: side, scaleFactors }] }] = await Promise.all([
      json(viewed(archive, asset.key), signal),
      script("openseadragon.min.js"),
    ]);
    return { side, coarsest: Math.max(...scaleFactors) };
  } catch (error) {
    if (error.status === 404 || error.status === 409) return null; // too large even for a part, or one of several of its key
    throw error;
  }
}

export class Tiles {
  #asset;
  #viewer;
  #coarsest;
  #image = null; // once it is open
  #view = null;
  #gone = new AbortController();

  /**
   * Show the picture that `url` gives, parted as `tiling` told; `element` has it, and `place` says where.
   *
   * `onLoaded` is told whether all that is in sight is there; `onProblem` of a tile that does not come.
   */
  constructor(asset, url, { side, coarsest }, { onLoaded, onProblem }) {
    const { OpenSeadragon } = window;
    this.#asset = asset;
    this.#coarsest = coarsest;
    this.element = document.createElement("div");
    this.element.className = "tiles";
    this.element.setAttribute("role", "img");
    this.#viewer = new OpenSeadragon.Viewer({
      element: this.element, drawer: "canvas", autoResize: false, tabIndex: -1, mouseNavEnabled: false, showNavigationControl: false,
      imageLoaderLimit: AT_ONCE, maxImageCacheCount: KEPT, timeout: PATIENCE, smoothTileEdgesMinZoom: Infinity,
      immediateRender: true, // levels in between first would cost more than the one that is looked at
    });
    this.#viewer.drawer.minimumOverlapRequired = () => false; // it would stretch tiles by a pixel, against seams
    this.#viewer.addTiledImage({
      tileSource: {
        width: asset.width, height: asset.height, tileSize: side, minLevel: 0, maxLevel: Math.log2(coarsest),
        getTileUrl: (level, x, y) => follow(url, this.#part(side, coarsest / 2 ** level, x, y)),
        downloadTileStart: (job) => this.#fetch(job, onProblem),
        downloadTileAbort: () => {},
      },
      success: ({ item }) => {
        if (this.#gone.signal.aborted) return;
        this.#image = item;
        item.addHandler("fully-loaded-change", ({ fullyLoaded }) => {
          if (fullyLoaded) this.element.classList.add("begun");
          onLoaded(fullyLoaded);
        });
        if (this.#view) this.place(this.#view);
      },
    });
  }

  /** Lay the image's corner at (x, y) of a window that is so wide and high, each of its pixels `zoom` wide. */
  place(view) {
    this.#view = view;
    if (!this.#image) return;
    const { OpenSeadragon: { Point, Rect, pixelDensityRatio: density } } = window;
    const { x, y, zoom, width, height } = view;
    let factor = 1; // of the level that has a pixel or up to two for one of the screen
    while (factor < this.#coarsest && 2 * factor * zoom * density <= 1) factor *= 2;
    const scale = factor * zoom;
    const [left, columns] = seen(x, width, scale, this.#asset.width / factor);
    const [top, rows] = seen(y, height, scale, this.#asset.height / factor);
    Object.assign(this.element.style, { width: `${columns}px`, height: `${rows}px` });
    this.element.style.transform = `translate(${x + left * scale}px, ${y + top * scale}px) scale(${scale})`;
    const { viewport } = this.#viewer;
    const container = new Point(columns / density, rows / density);
    if (!viewport.getContainerSize().equals(container)) viewport.resize(container);
    this.#image.minPixelRatio = 0.75 / density; // less than this level has, more than the next
    const unit = factor / this.#asset.width; // OpenSeadragon measures in widths of the image
    viewport.fitBounds(new Rect(left * unit, top * unit, columns * unit, rows * unit), true);
  }

  close() {
    this.#gone.abort(new DOMException("no longer wanted", "AbortError"));
    this.#viewer.destroy();
  }

  #part(side, factor, column, row) {
    const [x, y, step] = [column * side * factor, row * side * factor, side * factor];
    const [width, height] = [Math.min(step, this.#asset.width - x), Math.min(step, this.#asset.height - y)];
    const size = `${Math.ceil(width / factor)}x${Math.ceil(height / factor)}`;
    return { region: [x, y, width, height].join(), size };
  }

  async #fetch(job, onProblem) {
    const { signal } = this.#gone;
    try {
      const tile = await (await request(job.src, signal)).blob();
      if (!signal.aborted) job.finish(tile, null, "rasterBlob");
    } catch (error) {
      if (signal.aborted) return;
      onProblem(error);
      job.fail(error.message, null);
    }
  }
}

/** Return the first pixel of a level that is in sight along one side, and how many are. */
function seen(offset, window, scale, length) {
  const first = Math.floor(Math.max(0, -offset) / scale);
  return [first, Math.max(1, Math.ceil(Math.min((window - offset) / scale, length)) - first)];
}
