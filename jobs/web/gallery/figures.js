// Figures as people read them.

const NBSP = "\u00a0";

/** Bytes in a person's unit, powers of 1000, as the reports have them. */
export function bytes(count) {
  let value = count;
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (value < 1000 || unit === "TB") return `${unit === "B" ? value : value.toFixed(1)}${NBSP}${unit}`;
    value /= 1000;
  }
  return "";
}

export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

export function share(part, whole) {
  if (!whole) return "–";
  const percent = (100 * part) / whole;
  if (percent > 0 && percent < 0.1) return `<${NBSP}0.1${NBSP}%`;
  return `${percent.toFixed(percent > 0 && percent < 99.5 ? 1 : 0)}${NBSP}%`;
}

export function side(width, height) {
  return `${width}${NBSP}×${NBSP}${height}`;
}

/** A PSNR; a rescaled entry without one comes back exactly, or was not measured, and then has no SSIM either. */
export function decibels(value, ssim) {
  if (typeof value === "number") return `${value.toFixed(2)}${NBSP}dB`;
  return ssim === null ? "not measured" : "exact";
}

/** Where an asset's name ends: its key without the folders. */
export function name(key) {
  return key.slice(key.lastIndexOf("/") + 1);
}

/** One line on an entry, below its picture. */
export function line(asset) {
  if (asset.kind === "original") return `original, ${bytes(asset.source_bytes)}`;
  return `${decibels(asset.psnr, asset.ssim)} · ${side(asset.width, asset.height)}`;
}

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [property, value] of Object.entries(properties)) {
    if (property in made) made[property] = value;
    else made.setAttribute(property, value);
  }
  made.append(...children);
  return made;
}
