// What is shown is in the page's address, so that a link shows the same to another person, and Back goes back.

const DEFAULTS = {
  archive: "", contains: "", prefix: "", kind: "", tier: "", psnr_min: "", psnr_max: "", at: "",
  key: "", shard: "", left: "lr", right: "restored", first: "lr", second: "restored", gain: "8", scale: "1", latent: "1",
  split: "50", zoom: "", x: "", y: "",
};

export const FILTER = ["contains", "prefix", "kind", "tier", "psnr_min", "psnr_max"];
export const VIEW = { split: "50", zoom: "", x: "", y: "" }; // what does not go along to another entry

/** Return what the address says, every name with its value or its default. */
export function read() {
  const query = new URLSearchParams(location.search);
  return Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, query.get(name) ?? value]));
}

/** Return the address of what is shown now but for some changes. */
export function href(change) {
  const state = { ...read(), ...change };
  const query = new URLSearchParams(Object.entries(state).filter(([name, value]) => `${value}` !== DEFAULTS[name]));
  return `./${query.size ? `?${query}` : ""}`;
}

/** Change the address: a step for Back, unless it takes the place of the last. */
export function change(to, { replace = false } = {}) {
  const target = href(to);
  if (new URL(target, location).href === location.href) return;
  history[replace ? "replaceState" : "pushState"](null, "", target);
}
