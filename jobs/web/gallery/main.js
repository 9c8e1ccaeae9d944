// The page: which view is shown, what the filter says, where the keys go.

import { FILTER, VIEW, change, href, read } from "./address.js";
import { AssetView } from "./asset.js";
import { bytes, count, name, share } from "./figures.js";
import { Grid } from "./grid.js";
import { Listing } from "./listing.js";
import { address, json, use } from "./service.js";

const $ = (id) => document.getElementById(id);
const CALM = 250; // ms without a further letter before a filter is applied
const NONE = { key: "", shard: "", at: "", ...VIEW }; // the address of all entries
const FIELDS = { kind: "kind", tier: "tier", "psnr-min": "psnr_min", "psnr-max": "psnr_max" };

let archives = [];
let archive = null; // the one that is shown
let listing = null;
let filtered = ""; // the archive and the filter that the listing is of
let opened = ""; // the key of the entry that is shown
let openedOf = ""; // its archive and shard
let place = null; // its index in the listing, once known
const around = {}; // the entries before and after it
let edited = ""; // the field that was changed last: its changes are one step for Back
let calming = 0;
let moving = 0;

const asset = new AssetView({ report, say: (text) => ($("status").textContent = text) });
const grid = new Grid($("grid"), {
  link: (entry) => href(entryState(entry)),
  open: openAsset,
  onMove: (index) => {
    clearTimeout(moving);
    moving = setTimeout(() => opened || change({ at: index ? (listing.peek(index)?.key ?? read().at) : "" }, { replace: true }), 300);
  },
});

/** Show an error as a sentence, with what to do, and a way to try again. */
function report(error, again) {
  if (error.name === "AbortError") return; // of what is no longer shown
  console.debug(error);
  $("problem-text").textContent = error.message;
  $("problem-advice").textContent = error.advice ?? "";
  $("problem").hidden = false;
  $("problem-again").onclick = () => {
    $("problem").hidden = true;
    again();
  };
}

function announce(text) {
  $("announce").textContent = text;
}

async function start() {
  try {
    ({ archives } = await json(address([])));
  } catch (error) {
    report(error, start);
    return;
  }
  $("archive").replaceChildren(...archives.map((each) => new Option(each.name, each.name)));
  $("archive").hidden = archives.length < 2; // it is the title then
  $("archive-name").classList.toggle("away", archives.length > 1);
  await show();
}

/** Bring the page up to its address. */
async function show() {
  const state = read();
  archive = archives.find((each) => each.name === state.archive) ?? archives[0];
  $("problem").hidden = true;
  if (!archive) {
    report(new Error("No archive is served here."), start);
    return;
  }
  if (state.archive && archive.name !== state.archive) {
    report(Object.assign(new Error(`No archive ${state.archive} is served here.`), { advice: `This is ${archive.name}.` }), show);
  }
  list(state);
  const key = state.key;
  $("browse").hidden = key !== "";
  $("asset").hidden = key === "";
  document.title = key ? `${name(key)} – ${archive.name}` : `${archive.name} – gallery`;
  if (key) await showAsset(key);
  else await showGrid(state);
}

/** Take up the listing of an archive under the address's filter; where it is another one, begin it. */
function list(state) {
  const filter = Object.fromEntries(FILTER.map((each) => [each, state[each]]));
  const wanted = JSON.stringify([archive.name, filter]);
  if (wanted === filtered) return;
  listing?.close();
  filtered = wanted;
  place = null;
  listing = new Listing(archive.name, filter);
  listing.onChange = () => {
    grid.update();
    tellCount();
  };
  listing.onProgress = (known, total) => announce(`Looking through the listing: ${count(known)} of ${count(total)}.`);
  listing.onProblem = (error) => report(error, () => grid.update());
  grid.show(listing);
}

async function showGrid(state) {
  const from = opened;
  opened = "";
  asset.close();
  $("archive-name").textContent = archive.name;
  $("archive").value = archive.name;
  const originals = archive.originals ? ` · ${count(archive.originals)} ${archive.originals === 1 ? "original" : "originals"}` : "";
  $("summary").textContent =
    `${bytes(archive.source_bytes)} of images in ${bytes(archive.bytes)} (${share(archive.bytes, archive.source_bytes)})${originals}`;
  for (const [id, field] of Object.entries(FIELDS)) if ($(id) !== document.activeElement) $(id).value = state[field];
  if ($("text") !== document.activeElement) {
    $("match").value = state.prefix ? "prefix" : "contains";
    $("text").value = state.prefix || state.contains;
  }
  $("clear").hidden = FILTER.every((each) => state[each] === "");
  grid.update();
  tellCount();
  try {
    if (from) grid.reveal(place ?? (await listing.find(from)), { focus: true });
    else if (state.at) grid.reveal(await listing.find(state.at), { top: true });
  } catch (error) {
    report(error, show);
  }
}

function tellCount() {
  if (!listing || listing.total === null) return;
  const whole = FILTER.every((each) => read()[each] === "");
  const entries = archive.entries === 1 ? "entry" : "entries";
  const shown = whole ? `${count(listing.total)} ${entries}` : `${count(listing.total)} of ${count(archive.entries)} ${entries}`;
  const cut = grid.cut === null ? "" : `; the first ${count(grid.cut)} are shown, filter to see others`;
  if ($("count").textContent !== shown + cut) tell(shown + cut);
}

function tell(text) {
  $("count").textContent = text;
  announce(text);
}

/** What the address has of an entry; its shard where several have the key, as its links tell. */
function entryState(entry) {
  const shard = new URL(entry.links.image).searchParams.get("shard") ?? "";
  return { key: entry.key, shard, at: "", ...VIEW };
}

function openAsset(entry, index) {
  place = index;
  change(entryState(entry));
  show();
}

async function showAsset(key) {
  const of = `${archive.name}/${read().shard}`;
  if (opened === key && openedOf === of) {
    asset.update();
    return;
  }
  [opened, openedOf] = [key, of];
  if (place !== null && listing.peek(place)?.key !== key) place = null;
  $("back").href = href(NONE);
  $("back-name").textContent = archive.name;
  neighbours();
  scrollTo(0, 0);
  const opening = asset.open(archive.name, key);
  $("asset-key").focus({ preventScroll: true });
  await opening;
  await findPlace(key).catch(() => {}); // its neighbours are an extra: the entry itself has told what is wrong
}

async function findPlace(key) {
  if (place === null) {
    const found = await listing.find(key);
    if (opened !== key) return;
    if ((await listing.at(found))?.key !== key) return; // not under this filter
    place = found;
  }
  const beside = await Promise.all([listing.at(place - 1), listing.at(place + 1)]);
  if (opened === key) neighbours(...beside);
}

function neighbours(before, after) {
  $("position").textContent = place === null || listing.total === null ? "" : `${count(place + 1)} of ${count(listing.total)}`;
  for (const [id, entry] of [["previous", before], ["next", after]]) {
    if (entry) $(id).href = href(entryState(entry));
    else $(id).removeAttribute("href");
    around[id] = entry;
  }
}

function step(id) {
  if (around[id]) openAsset(around[id], place + (id === "next" ? 1 : -1));
}

/** Take a change of the filter into the address; changes of one field in a row are one step for Back. */
function filter(field, changes) {
  change({ ...changes, at: "" }, { replace: edited === field });
  edited = field;
  scrollTo(0, 0);
  show();
}

function filterText() {
  const [text, match] = [$("text").value, $("match").value];
  filter("text", { contains: match === "contains" ? text : "", prefix: match === "prefix" ? text : "" });
}

async function jump() {
  const key = $("jump").value;
  if (!key) return;
  try {
    const index = await listing.find(key);
    grid.reveal(index, { focus: true, top: true });
    const found = listing.peek(index)?.key;
    announce(found ? `At ${found}.` : "No key comes after that; this is the last.");
  } catch (error) {
    report(error, jump);
  }
}

function plainLink(event, act) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // another tab is the browser's own affair
  event.preventDefault();
  act();
}

function toGrid() {
  change(NONE);
  show();
}

function calm(act) {
  clearTimeout(calming);
  calming = setTimeout(act, CALM);
}

function keys(event) {
  const typing = event.target.closest("input:not([type=range], [type=checkbox]), select, textarea, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "?") return $("help").showModal();
  if (!opened) {
    if (event.key === "/") {
      event.preventDefault();
      $("text").focus();
    }
    return undefined;
  }
  if (event.key === "Escape") return toGrid();
  if (event.key === "n") return step("next");
  if (event.key === "p") return step("previous");
  return asset.key(event);
}

/** Ask a person for the token of the service; null where the dialog is closed without one. */
function askForToken(refused) {
  $("token-why").textContent = refused
    ? "The service did not take that one. Whoever runs it can give you the right one."
    : "Whoever runs it can give you one. It is kept until this tab is closed.";
  $("token-text").value = "";
  $("token").returnValue = "";
  $("token").showModal();
  return new Promise((resolve) => ($("token").onclose = () => resolve($("token-text").value || null)));
}

use({ askForToken, onWait: (text) => (opened ? asset.waits(text) : text ? tell(text) : tellCount()) });
history.scrollRestoration = "manual";
addEventListener("popstate", () => ((edited = ""), show()));
document.addEventListener("keydown", keys);
for (const button of document.querySelectorAll(".help")) button.onclick = () => $("help").showModal();
$("filter").onsubmit = (event) => event.preventDefault();
$("text").oninput = () => calm(filterText);
$("match").onchange = filterText;
for (const [id, field] of Object.entries(FIELDS)) {
  $(id)[id.startsWith("psnr") ? "oninput" : "onchange"] = () => calm(() => filter(id, { [field]: $(id).value }));
}
$("jump").onkeydown = (event) => event.key === "Enter" && jump();
$("clear").onclick = () => {
  $("text").value = "";
  filter("clear", Object.fromEntries(FILTER.map((each) => [each, ""])));
};
$("archive").onchange = () => {
  change({ ...Object.fromEntries(FILTER.map((each) => [each, ""])), archive: $("archive").value, at: "" });
  show();
};
$("more").onclick = () => {
  const open = $("filters").classList.toggle("open");
  $("more").setAttribute("aria-expanded", open);
};
$("back").onclick = (event) => plainLink(event, toGrid);
$("previous").onclick = (event) => plainLink(event, () => step("previous"));
$("next").onclick = (event) => plainLink(event, () => step("next"));
start();
