// What is told of an entry beside its pictures: figures, bytes of each part, files to download.

import { bytes, decibels, element, name, share, side } from "./figures.js";
import { source } from "./pictures.js";

const $ = (id) => document.getElementById(id);
const PARTS = { lr: "LR", latent: "latent", alpha: "alpha", original: "original", other: "metadata, sidecars" };

export function showFigures(asset) {
  const rescaled = asset.kind === "lr";
  const measured = typeof asset.psnr === "number" || asset.ssim !== null;
  const quality = [["PSNR", decibels(asset.psnr, asset.ssim)], ["PSNR-Y", decibels(asset.psnr_y, asset.ssim)], ["SSIM", asset.ssim?.toFixed(4) ?? "–"]];
  $("key-figures").replaceChildren(...(rescaled && measured ? quality.map(pair) : []));
  const about = [["Kind", rescaled ? "LR" : "original, kept as it was"]];
  if (rescaled) about.push(["Tier", asset.tier]);
  if (rescaled && !measured) about.push(["Quality", "not measured"]);
  if (asset.width) about.push(["Size", `${side(asset.width, asset.height)} pixels`]);
  if (asset.lr_width) about.push(["LR", `${side(asset.lr_width, asset.lr_height)} pixels`]);
  if (asset.lost?.length) about.push(["Restored without", asset.lost.join(", ")]);
  $("figures").replaceChildren(...about.map(pair));
  $("reason").hidden = !asset.reason;
  $("reason").textContent = asset.reason ?? "";
  $("latent-line").hidden = !asset.has_latent;
  $("restoring-title").textContent = rescaled ? "Restore" : "Show at another size";
  showBytes(asset);
  $("download-lr").download = `${stem(asset)}-lr`; // until it is known what the file is
  $("download-lr-size").textContent = asset.bytes.lr ? bytes(asset.bytes.lr) : "";
}

function pair([term, value]) {
  return element("div", {}, element("dt", { textContent: term }), element("dd", { textContent: value }));
}

function showBytes({ bytes: parts, stored_bytes: stored, source_bytes: before }) {
  const there = Object.entries(PARTS).filter(([part]) => parts[part]);
  const longest = Math.max(stored, before, 1);
  const piece = (part, value) => {
    const drawn = element("span", { className: `fill-${part}` });
    drawn.style.width = `${(100 * value) / longest}%`;
    return drawn;
  };
  const bar = element("div", {}, ...there.map(([part]) => piece(part, parts[part])));
  $("bytes-bar").replaceChildren(element("div", {}, piece("source", before)), bar);
  const told = there.map(([part, title]) => `${title} ${bytes(parts[part])}`).join(", ");
  $("bytes-bar").setAttribute("aria-label", `${bytes(stored)} stored, ${bytes(before)} in the source: ${told}`);
  const row = (part, title, value) => {
    const head = element("th", { scope: "row" }, element("i", { className: `fill-${part}` }), title);
    const cells = [bytes(value), share(value, before)].map((text) => element("td", { textContent: text }));
    return element("tr", { className: part }, head, ...cells);
  };
  const rows = there.map(([part, title]) => row(part, title, parts[part]));
  $("bytes").tBodies[0].replaceChildren(row("source", "source", before), ...rows, row("total", "stored", stored));
}

/** Lead the links to the files: the restored one as `asked` (scale, latent) and in the format that is chosen. */
export function showDownloads(asset, asked) {
  const format = $("format").value;
  $("quality").hidden = format === "png";
  const quality = format === "png" ? "" : $("quality").value;
  const scaled = asked.scale === 1 ? "" : `-x${asked.scale}`;
  lead("lr", source(asset, "lr", asked), $("download-lr").download);
  lead("restored", source(asset, "restored", { ...asked, format, quality }), `${stem(asset)}${scaled}.${ending(format)}`);
  lead("original", source(asset, "original", asked), name(asset.key));
  $("download-restored").textContent = asset.kind === "lr" ? "Restored" : "Picture";
  $("download-original-size").textContent = bytes(asset.source_bytes);
}

/** Tell what file an LR is, once it has been read. */
export function showLrFile(asset, type, size) {
  const format = type.split("/")[1];
  $("download-lr").download = `${stem(asset)}-lr.${ending(format)}`;
  $("download-lr-size").textContent = `${format.toUpperCase()}, ${bytes(size)}`;
}

function lead(which, href, download) {
  $(`download-${which}-line`).hidden = !href;
  if (href) Object.assign($(`download-${which}`), { href, download });
}

function stem(asset) {
  return name(asset.key).replace(/\.[^.]*$/, "");
}

function ending(format) {
  return format === "jpeg" ? "jpg" : format;
}
