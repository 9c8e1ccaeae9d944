"""Zooming into an entry of 50 megapixels, in a headless Chromium: OpenSeadragon by itself, the gallery, Mirador."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from pipeline.core.records import Tier, Verification
from pipeline.core.target import TargetSize
from tests.support.commands import GUARD
from tests.support.gallery_service import served
from tests.support.gallery_visit import ROOT, Visit, asset_url, both_there, fetched, pixels, plain, until
from tests.support.path_proxy import path_proxy
from tests.support.viewer_site import MIRADOR, packed, viewer_site
from tests.support.workshop import Sample, as_tar, rescale

KEY = "wall/ä b#%?&+ large.jpg"
WIDTH, HEIGHT = 8192, 6144
WINDOW = (900, 600)
OPENSEADRAGON = ROOT / "jobs" / "web" / "gallery" / "openseadragon.min.js"

_ZOOMING = f"""<!doctype html><title>OpenSeadragon</title><style>body {{ margin: 0 }}</style>
<div id="view" style="width: {WINDOW[0]}px; height: {WINDOW[1]}px"></div><script src="openseadragon.min.js"></script>"""
_MIRADOR = '<!doctype html><title>Mirador</title><div id="view"></div><script src="mirador.min.js"></script>'
_MANIFEST = """address => Mirador.viewer({
  id: 'view', osdConfig: { crossOriginPolicy: 'Anonymous' }, windows: [{ manifestId: address }],
})"""

_OPEN = """async address => {
  const told = await (await fetch(address)).json();
  window.viewer = OpenSeadragon({
    id: 'view', drawer: 'canvas', crossOriginPolicy: 'Anonymous', showNavigationControl: false, timeout: 600_000,
    tileSources: { ...told, preferredFormats: ['png'] }, imageSmoothingEnabled: false, smoothTileEdgesMinZoom: Infinity,
  });
  viewer.drawer.minimumOverlapRequired = () => false;
}"""
"""Opens an entry by its info.json, in tiles that lose nothing, drawn as they are: not smoothed, nor widened against seams."""

_SHOW = """async ([x, y, width, height]) => {
  const frame = () => new Promise(requestAnimationFrame);
  while (!viewer.isOpen()) await frame();
  const unit = 1 / viewer.world.getItemAt(0).getContentSize().x;
  viewer.viewport.fitBounds(new OpenSeadragon.Rect(x * unit, y * unit, width * unit, height * unit), true);
  do { await frame(); await frame(); } while (!viewer.world.getItemAt(0).getFullyLoaded());
}"""
"""Shows a part of the image, and waits for it."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of an archive of that entry: a photograph side by side with itself, whose LR has an eighth of its size."""
    folder = tmp_path_factory.mktemp("large")
    with Image.open(ROOT / "samples" / "mural.jpg") as photo:
        wall = np.tile(np.array(photo.convert("RGB")), (6, 6, 1))[:HEIGHT, :WIDTH]
    file = io.BytesIO()
    Image.fromarray(wall).save(file, "JPEG", quality=90)
    source = as_tar(folder / "source", [Sample(key=KEY, data=file.getvalue())])
    target, few = TargetSize(scale=(8, 8)), Verification.NONE
    return rescale(source, folder / "archive", tier=Tier.LEAN, target=target, verify=few, pixel_limit=60_000_000).uri


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of a site with viewers."""
    files = {
        "zoom.html": _ZOOMING.encode(),
        "openseadragon.min.js": OPENSEADRAGON.read_bytes(),
        "mirador.html": _MIRADOR.encode(),
    }
    with viewer_site(files) as address:
        yield address


@pytest.fixture(scope="module")
def service(archive: str, site: str) -> Iterator[str]:
    """The address of a service of the archive, which lets pages of that site in."""
    with served({"photos": archive}, origin=site) as address:
        yield address


def part(service: str, x: int, y: int, width: int, height: int) -> np.ndarray[Any, Any]:
    """Return the pixels of a part of the entry, as the service restores it in one piece."""
    return pixels(fetched(asset_url(service, KEY, f"/image?format=png&region={x},{y},{width},{height}")))


def same(shown: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> bool:
    """Tell whether pixels are those of the restore; its parts are equal but for a level here or there, by the order of sums."""
    off = np.abs(shown - wanted)
    return shown.shape == wanted.shape and off.max() <= 1 and (off > 0).mean() < 1e-4


def document(service: str, name: str) -> str:
    """Return the address of one of the entry's documents."""
    return f"{service}/iiif/3/photos/{quote(KEY, safe='')}/{name}"


def test_openseadragon_is_as_it_is_published() -> None:
    """Protects what is not ours: the package has the very file that was published, and its licence."""
    data = OPENSEADRAGON.read_bytes()
    assert data.startswith(b"//! openseadragon 6.1.1\n")
    assert hashlib.sha256(data).hexdigest() == "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad"
    assert "OpenSeadragon contributors" in OPENSEADRAGON.with_name("openseadragon.LICENSE.txt").read_text()


def test_openseadragon_zooms_down_to_pixels(visit: Callable[..., Visit], site: str, service: str) -> None:
    """Protects viewers of other sites: each pixel is that of the restore, in few requests, none of which is refused."""
    here = visit()
    answers: list[Any] = []
    here.page.on("requestfinished", lambda request: answers.append(request) if request.url.startswith(service) else None)
    here.page.goto(f"{site}/zoom.html")
    here.page.evaluate(_OPEN, document(service, "info.json"))

    def shown(*region: int) -> np.ndarray[Any, Any]:
        here.page.evaluate(_SHOW, region)
        return pixels(here.page.locator("#view").screenshot())

    whole = shown(0, 0, WIDTH, HEIGHT)
    assert whole[:, 50:850].std() > 40
    assert (whole[:, 0] == 255).all(), "the window is wider than the picture"
    x, y = 4096 - 500, 3072 - 200  # four tiles meet in it
    assert same(shown(x, y, *WINDOW), part(service, x, y, *WINDOW))
    x, y, width, height = 4096 - 45, 3072 - 20, WINDOW[0] // 10, WINDOW[1] // 10
    assert same(shown(x, y, width, height), part(service, x, y, width, height).repeat(10, 0).repeat(10, 1))
    assert {request.response().status for request in answers} == {200}
    tiles = [request.url for request in answers if request.url.endswith(".png")]
    assert len(tiles) == len(set(tiles))
    assert len(tiles) < 40
    assert here.complaints == []


def test_mirador_opens_the_manifest(visit: Callable[..., Visit], site: str, service: str) -> None:
    """Protects libraries and museums: their viewer shows the entry, under its name, and nothing is refused to it."""
    script = packed(MIRADOR, "dist/mirador.min.js")
    here = visit()
    answers: list[Any] = []
    here.page.on("response", lambda answer: answers.append(answer) if answer.url.startswith(service) else None)
    here.page.route("**/mirador.min.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    here.page.goto(f"{site}/mirador.html")
    here.page.evaluate(_MANIFEST, document(service, "manifest.json"))
    here.page.wait_for_selector("canvas")
    box = here.page.locator("canvas").bounding_box()
    height = int(box["height"])
    wanted = pixels(fetched(asset_url(service, KEY, f"/image?format=png&size={height * 4 // 3}x{height}")))
    clip = {"x": box["x"] + (box["width"] - wanted.shape[1]) // 2, "y": box["y"], "width": wanted.shape[1], "height": height}
    seen = slice(None, 4 * height // 5)  # its buttons are below

    def off() -> float:
        shot = pixels(here.page.screenshot(clip=clip))
        return float(np.abs(shot - wanted)[seen].mean())

    end = time.monotonic() + GUARD
    while off() > 8:
        assert time.monotonic() < end
        here.page.wait_for_timeout(500)
    text = here.page.locator("body").inner_text()
    assert KEY.rpartition("/")[2] in text
    assert f"1 of 1 • {KEY}" in text
    assert {answer.status for answer in answers} == {200}
    tiles = [answer.url for answer in answers if answer.url.endswith(".webp")]
    assert 1 <= len(tiles) < 20


def shot_at(page: Any, service: str, x: float, y: float, zoom: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return what the gallery's stage shows to the right of the divider's knob, and what it should show around a place."""
    shot = pixels(page.locator("#stage").screenshot())
    (height, width), knob = shot.shape[:2], 64
    left, top = (-math.floor(length / 2 - zoom * at + 0.5) for at, length in ((x, width), (y, height)))
    first, above = left // zoom, top // zoom
    columns, rows = -(-(left + width) // zoom) - first, -(-(top + height) // zoom) - above
    wanted = part(service, first, above, columns, rows).repeat(zoom, 0).repeat(zoom, 1)
    wanted = wanted[top - above * zoom :, left - first * zoom :][:height, :width]
    return shot[:, knob:], wanted[:, knob:]


def test_the_gallery_zooms_by_tiles(visit: Callable[..., Visit], service: str) -> None:
    """Protects what one zooms in for: pixels of the restore, beside the LR, of which no more is asked for than is seen."""
    here = visit()
    for zoom in (1, 32):
        page = here.go(archive="photos", key=KEY, zoom=zoom, x=4096.5, y=3072, split=0)
        both_there(page)
        shown, wanted = shot_at(page, service, 4096.5, 3072, zoom)
        assert same(shown, wanted)
    assert page.locator("#stage [role=img]").get_attribute("aria-label") == f"{KEY}, Restored, {WIDTH} by {HEIGHT} pixels"
    assert plain(page.locator("#status").inner_text()) == "LR: 1024 x 768 · Restored: 8192 x 6144"
    assert page.locator("[data-side=left] img").get_attribute("alt") == f"{KEY}, LR, 1024 by 768 pixels"
    images = [url for url in here.asked if "/image?" in url]
    assert images
    assert all("&region=" in url for url in images)
    here.calm()


def test_the_zoom_has_its_place_in_the_address(visit: Callable[..., Visit], service: str) -> None:
    """Protects links and habits: keys zoom and move, the address says where, a reload shows the same, Back is all entries."""
    here = visit()
    page = here.go(archive="photos")
    page.locator("#grid a").click()
    both_there(page)
    page.locator("#stage").focus()
    page.keyboard.press("1")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowUp")
    until(page, "location.search.includes('zoom=1&x=4496&y=3032')")
    page.reload()
    both_there(page)
    page.locator("#divider").focus()
    page.keyboard.press("Home")
    shown, wanted = shot_at(page, service, 4496, 3032, 1)
    assert same(shown, wanted)
    page.go_back()
    page.wait_for_selector("#grid img")
    assert page.locator("#asset").is_hidden()
    here.calm()


def test_tiles_come_below_a_path_and_with_a_token(browser: Any, archive: str) -> None:
    """Protects services behind a proxy and with a token: tiles are asked for below the same path, and bear it."""
    with served({"photos": archive}, token="correct-horse-battery") as address, path_proxy(address) as proxied:
        here = Visit(browser, proxied)
        page = here.go(archive="photos", key=KEY)
        page.fill("#token-text", "correct-horse-battery")
        page.keyboard.press("Enter")
        both_there(page)
        assert len([url for url in here.asked if "&region=" in url]) >= 4
        assert page.locator("#problem").is_hidden()
        assert [said for said in here.complaints if "401" not in said] == []
        assert not [url for url in here.asked if not url.startswith((f"{proxied}/", "blob:"))]
        page.close()


def test_a_tile_that_does_not_come_is_said(visit: Callable[..., Visit]) -> None:
    """Protects people from holes in a picture: what is wrong with a part of it is a sentence, and it can be tried again."""
    here = visit()
    body = json.dumps({"error": {"kind": "damaged", "message": "The entry is damaged there."}})
    here.page.route("**/image?*", lambda route: route.fulfill(status=502, content_type="application/json", body=body))
    page = here.go(archive="photos", key=KEY)
    page.wait_for_selector("#problem:not([hidden])")
    assert page.locator("#problem p").inner_text().startswith("The entry is damaged there. “iarn verify”")
    page.unroute("**/image?*")
    page.click("#problem-again")
    until(page, "document.querySelector('#stage .tiles.begun') && !document.querySelector('.busy')")
    assert page.locator("#problem").is_hidden()
    assert pixels(page.locator("#stage").screenshot())[:, -300:-100].std() > 40
    here.calm(but="")


def test_tiles_of_before_say_nothing(visit: Callable[..., Visit]) -> None:
    """Protects the status line: while a picture is on its way that takes the place of tiles, what becomes of those is not told
    as that picture's."""
    here = visit()
    page = here.go(archive="photos", key=KEY)
    both_there(page)
    page.route("**/image?*", lambda route: route.continue_() if "&region=" in route.request.url else None)
    page.select_option("#right", "difference")
    until(page, "document.querySelector('.busy')")
    tiles: list[str] = []
    page.on("requestfinished", lambda request: tiles.append(request.url))
    page.locator("#stage").focus()
    page.keyboard.press("1")
    end = time.monotonic() + GUARD
    while not tiles and time.monotonic() < end:
        page.wait_for_timeout(100)
    page.wait_for_timeout(2000)  # for the others in sight
    assert tiles
    assert page.locator("#status").inner_text() == "Restoring…"
    page.unroute("**/image?*")


def test_two_fingers_zoom_into_tiles(visit: Callable[..., Visit]) -> None:
    """Protects phones: fingers reach the stage through the tiles, and they are drawn where it has them."""
    here = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, device_scale_factor=2)
    page = here.go(archive="photos", key=KEY)
    both_there(page)
    box = page.locator("#stage").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    touches = page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", 20), ("touchMove", 23), ("touchMove", 27), ("touchEnd", 0)):
        points = [{"x": middle[0] + apart * sign, "y": middle[1], "id": sign} for sign in (-1, 1)] if apart else []
        touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    until(page, "location.search.includes('zoom=')")
    drawn = page.locator("#stage .tiles").bounding_box()
    assert drawn["x"] <= box["x"] + 1
    assert drawn["x"] + drawn["width"] >= box["x"] + box["width"] - 1
    assert page.evaluate("[visualViewport.scale, document.documentElement.scrollWidth]") == [1, 360]
    here.calm()
