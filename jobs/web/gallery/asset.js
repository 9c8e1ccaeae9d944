// One entry: its pictures side by side, its figures, its size by a slider, its downloads.

import { VIEW, change, href, read } from "./address.js";
import { side } from "./figures.js";
import { showDownloads, showFigures, showLrFile } from "./panel.js";
import { LARGEST, Pictures, choices, difference, source } from "./pictures.js";
import { address, hasToken, json, save } from "./service.js";
import { Stage } from "./stage.js";
import { Tiles, tiling } from "./tiles.js";

const $ = (id) => document.getElementById(id);
const TILED = ["restored", "alone"]; // what the service gives in tiles
const GAINS = ["1", "2", "4", "8", "16", "32"];
const CALM = 250; // ms without a further change before a restore is asked for

export class AssetView {
  #stage;
  #pictures = new Pictures();
  #asset = null;
  #tiling = null; // of a large one
  #leaving = new AbortController();
  #tiles = {}; // side -> those that are there
  #shown = {}; // side -> what was asked for last
  #told = { left: "", right: "" };
  #wait = "";
  #calming = 0;
  #writing = 0;

  /** `report` shows an error with a way to try again; `say` tells what happens. */
  constructor({ report, say }) {
    Object.assign(this, { report, say });
    this.#stage = new Stage($("stage"), () => this.#moved());
    $("zoom-in").onclick = () => this.#stage.zoomIn();
    $("zoom-out").onclick = () => this.#stage.zoomOut();
    $("zoom-fit").onclick = () => this.#stage.fit();
    $("zoom-one").onclick = () => this.#stage.zoomTo(1);
    for (const which of ["left", "right", "first", "second", "gain"]) {
      $(which).onchange = () => this.#set({ [which]: $(which).value });
    }
    $("scale").oninput = () => {
      this.#tellScale(Number($("scale").value));
      clearTimeout(this.#calming);
      this.#calming = setTimeout(() => this.#set({ scale: $("scale").value }), CALM);
    };
    $("latent").onchange = () => this.#set({ latent: $("latent").checked ? "1" : "0" });
    $("format").onchange = $("quality").oninput = () => this.#asset && showDownloads(this.#asset, this.#state());
    for (const which of ["lr", "restored", "original"]) {
      const link = $(`download-${which}`);
      link.onclick = (event) => {
        if (!hasToken()) return; // a link is enough, and can be copied
        event.preventDefault();
        save(link.href, link.download).catch((error) => this.report(error, () => link.click()));
      };
    }
  }

  /** Show an entry; resolves when its figures are there. */
  async open(archive, key) {
    this.close();
    this.#leaving = new AbortController();
    const { signal } = this.#leaving;
    $("asset-key").textContent = key;
    $("asset").classList.add("waiting");
    try {
      const asset = await json(address([archive, "assets", key], { shard: read().shard }), signal);
      this.#tiling = await tiling(archive, asset, signal);
      if (!signal.aborted) this.#asset = asset;
    } catch (error) {
      if (!signal.aborted) this.report(error, () => this.open(archive, key));
      return;
    }
    if (signal.aborted) return;
    $("asset").classList.remove("waiting");
    this.#stage.view = read();
    showFigures(this.#asset);
    this.update();
  }

  close() {
    this.#leaving.abort(new DOMException("left", "AbortError"));
    clearTimeout(this.#calming);
    clearTimeout(this.#writing);
    this.#pictures.close();
    this.#pictures = new Pictures();
    this.#asset = null;
    this.#shown = {};
    this.#nothing("");
    this.#stage.frame = null;
    for (const each of ["left", "right"]) {
      this.#put(each, null);
      this.#tell(each, "");
    }
  }

  /** Bring everything up to what the address says. */
  update() {
    const asset = this.#asset;
    if (!asset) return;
    const state = this.#state();
    const there = choices(asset);
    const both = new Map([...there, ...(there.size > 1 ? [["difference", "Difference"]] : [])]);
    for (const which of ["left", "right"]) offer($(which), both, state[which]);
    for (const which of ["first", "second"]) offer($(which), there, state[which]);
    $("gain").value = state.gain;
    $("scale").value = state.scale;
    $("latent").checked = state.latent;
    this.#tellScale(state.scale);
    $("differing").hidden = ![state.left, state.right].includes("difference");
    $("asset").classList.toggle("single", there.size < 2);
    this.#stage.pair = there.size < 2 ? null : { left: both.get(state.left), right: both.get(state.right) };
    if (asset.width) this.#stage.frame = asset;
    showDownloads(asset, state);
    for (const which of there.size < 2 ? ["right"] : ["left", "right"]) this.#show(which, state);
    if (there.size < 2) {
      this.#put("left", null);
      this.#tell("left", "");
    }
    this.#moved();
  }

  key(event) {
    const keys = {
      "+": () => this.#stage.zoomIn(),
      "=": () => this.#stage.zoomIn(),
      "-": () => this.#stage.zoomOut(),
      0: () => this.#stage.fit(),
      1: () => this.#stage.zoomTo(1),
      d: () => this.#toggleDifference(),
    };
    const act = keys[event.key.toLowerCase()];
    if (act) event.preventDefault();
    act?.();
  }

  /** What the address asks for, of what this entry has. */
  #state() {
    const asked = read();
    const there = [...choices(this.#asset).keys()];
    const one = (value, allowed, otherwise) => (allowed.includes(value) ? value : otherwise);
    const sides = there.length > 1 ? [...there, "difference"] : there;
    const scale = Number(asked.scale);
    return {
      left: one(asked.left, sides, there[0]),
      right: one(asked.right, sides, there.at(there.length > 1 ? 1 : 0)),
      first: one(asked.first, there, there[0]),
      second: one(asked.second, there, there[1]),
      gain: one(asked.gain, GAINS, "8"),
      scale: scale > 0 && scale <= 4 ? scale : 1,
      latent: asked.latent !== "0",
    };
  }

  #set(changes) {
    change(changes, { replace: true });
    this.update();
  }

  #toggleDifference() {
    const { left, right, first, second } = this.#state();
    if (right === "difference") this.#set({ left: first, right: second });
    else if (left !== right && left !== "difference") this.#set({ first: left, second: right, right: "difference" });
    else this.#set({ right: "difference" });
  }

  #show(which, state) {
    const wanted = state[which];
    const scale = this.#tiling ? Math.min(state.scale, smaller(this.#asset)) : state.scale; // its difference is no larger
    const ask = (one, more) => source(this.#asset, one, { ...state, ...more });
    const urls = wanted === "difference" ? [ask(state.first, { scale }), ask(state.second, { scale })] : [ask(wanted)];
    const what = [wanted, ...urls, wanted === "difference" ? state.gain : ""].join(" ");
    if (this.#shown[which]?.what === what) return;
    const old = this.#shown[which]?.urls ?? [];
    const mine = (this.#shown[which] = { what, urls });
    this.#tell(which, null);
    if (this.#tiling && TILED.includes(wanted) && state.scale === 1) this.#showTiles(which, wanted, mine);
    else this.#showPicture(which, state, mine, old);
  }

  async #showPicture(which, state, mine, old) {
    const [wanted, asset] = [state[which], this.#asset];
    const others = which === "left" ? this.#shown.right : this.#shown.left;
    const stale = old.find((url) => !mine.urls.includes(url) && !others?.urls.includes(url));
    try {
      const parts = await Promise.all(mine.urls.map((url) => this.#pictures.get(url, stale)));
      if (this.#shown[which] !== mine) return;
      const [{ image, size, type }] = parts;
      const named = choices(asset);
      if (!asset.width) this.#stage.frame = { width: image.naturalWidth / state.scale, height: image.naturalHeight / state.scale };
      if (wanted === "difference") {
        const canvas = difference(parts[0].image, parts[1].image, Number(state.gain));
        const between = `Difference of ${named.get(state.first)} and ${named.get(state.second)}, times ${state.gain}`;
        canvas.setAttribute("aria-label", `${between}: ${asset.key}`);
        this.#put(which, canvas);
        this.#tell(which, `${between}: ${canvas.dataset.size}`);
      } else {
        const shown = image.parentElement ? image.cloneNode() : image; // one picture may be on both sides
        shown.alt = `${asset.key}, ${named.get(wanted)}, ${image.naturalWidth} by ${image.naturalHeight} pixels`;
        this.#put(which, shown);
        if (wanted === "lr") showLrFile(asset, type, size);
        this.#tell(which, `${named.get(wanted)}: ${side(image.naturalWidth, image.naturalHeight)}`);
      }
    } catch (error) {
      if (this.#shown[which] !== mine || error.name === "AbortError") return;
      this.#put(which, null);
      this.#failed(which, error);
    }
  }

  #showTiles(which, wanted, mine) {
    const asset = this.#asset;
    const title = choices(asset).get(wanted);
    const current = () => this.#shown[which] === mine;
    const tiles = new Tiles(asset, mine.urls[0], this.#tiling, {
      onLoaded: (all) => current() && this.#tell(which, all ? `${title}: ${side(asset.width, asset.height)}` : null),
      onProblem: (error) => current() && this.#failed(which, error),
    });
    tiles.element.setAttribute("aria-label", `${asset.key}, ${title}, ${asset.width} by ${asset.height} pixels`);
    this.#put(which, tiles.element, tiles);
  }

  /** Put an element on a side in the place of what is there, null for none; `tiles`, where it is of some, lay it. */
  #put(which, shown, tiles = null) {
    this.#tiles[which]?.close();
    this.#tiles[which] = tiles;
    this.#stage.put(which, shown, tiles && ((view) => tiles.place(view)));
  }

  /** Say what is wrong with a side, which is asked for anew when it is tried again. */
  #failed(which, error) {
    this.#shown[which] = undefined;
    this.#tell(which, "");
    if (error.status === 422 && this.#asset.kind === "original") this.#nothing(error.message);
    else this.report(error, () => this.update());
  }

  /** Say what a side shows; null while it is under way. */
  #tell(which, text) {
    this.#told[which] = text;
    this.#stage.busy(which, text === null);
    const both = Object.values(this.#told);
    if (!both.includes(null)) this.#wait = "";
    this.say(both.includes(null) ? this.#wait || "Restoring…" : [...new Set(both)].filter(Boolean).join(" · "));
  }

  /** Say what it is that takes so long. */
  waits(text) {
    this.#wait = text;
    if (Object.values(this.#told).includes(null)) this.say(text || "Restoring…");
  }

  /** Say in its place why there is no picture; with no reason there is one again. */
  #nothing(reason) {
    $("nothing").hidden = !reason;
    $("nothing").textContent = `It cannot be shown (${reason}); its file can be downloaded.`;
    $("asset").classList.toggle("unseen", reason !== "");
  }

  #moved() {
    $("zoom").textContent = `${Number((100 * this.#stage.zoom).toPrecision(this.#stage.zoom < 1 ? 2 : 4))}\u00a0%`;
    clearTimeout(this.#writing);
    this.#writing = setTimeout(() => change(this.#asset ? this.#stage.view : VIEW, { replace: true }), 200);
  }

  #tellScale(scale) {
    const { width, height } = this.#asset ?? {};
    const pixels = width ? ` · ${side(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)))}` : "";
    const times = `× ${Number(scale.toFixed(2))}`;
    $("scale-text").textContent = times + pixels;
    $("scale").setAttribute("aria-valuetext", `${scale} times the original size${pixels}`);
  }
}

/** Return the largest scale at which the difference of an entry's pictures can be drawn. */
function smaller({ width, height }) {
  return Math.floor(1000 * Math.sqrt(LARGEST / (width * height))) / 1000;
}

/** Fill a select with options, by value, and choose one. */
function offer(select, options, chosen) {
  const now = [...select.options].map((option) => `${option.value} ${option.text}`).join();
  const wanted = [...options].map((option) => option.join(" ")).join();
  if (now !== wanted) select.replaceChildren(...[...options].map(([value, text]) => new Option(text, value)));
  select.value = chosen;
}
