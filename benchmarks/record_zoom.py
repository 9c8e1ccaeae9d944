"""Record what OpenSeadragon asks of an image server while somebody zooms into a large picture, for `benchmarks.zoom`.

    python -m benchmarks.record_zoom                                            # 50 megapixels: benchmarks/zoom_session.txt
    python -m benchmarks.record_zoom --megapixels 3 --output /tmp/session.txt

The viewer is the gallery's own file, in a headless Chromium with a window of 1,280 x 800. It is given the info.json that the
service gives, and a blank JPEG for each tile at once. It zooms in at one place until pixels have their own size, back until the
whole picture is there, and in again at another place: by three notches of the wheel at a time, at once instead of in its
animation, and not before all tiles are there. So what it asks for depends on no clock.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import region as regions
from jobs.web.iiif.documents import ImageFigures, info
from jobs.web.iiif.parameters import Bounds, ImageParameters, understand
from pipeline.core.records import Size
from pipeline.pictures.captions import Caption

SESSION = regions.ROOT / "benchmarks" / "zoom_session.txt"
VIEWER = regions.ROOT / "jobs" / "web" / "gallery" / "openseadragon.min.js"

WINDOW = (1280, 800)
"""Width and height of the viewer."""

PLACES = ((0.3, 0.4), (0.72, 0.61))
"""Where it zooms in, in shares of the height and of the width."""

NOTCHES = 3
"""Notches of the wheel between two looks."""

DEADLINE = 300_000
"""Milliseconds after which a viewer that has not all of its tiles is stuck."""

_SITE = "http://images.example"
_BASE = f"{_SITE}/iiif/3/zoom/large.png"
_PAGE = f"""<!doctype html><style>body {{ margin: 0 }}</style><script src="openseadragon.min.js"></script>
<div id="view" style="width: {WINDOW[0]}px; height: {WINDOW[1]}px"></div>
<script>
const shown = {{ drawer: 'canvas', showNavigationControl: false }};
const viewer = OpenSeadragon({{ id: 'view', tileSources: '{_BASE}/info.json', ...shown }});
const frame = () => new Promise(requestAnimationFrame);
const zoom = () => viewer.viewport.viewportToImageZoom(viewer.viewport.getZoom());
async function settled() {{
  do {{ await frame(); await frame(); }} while (!viewer.isOpen() || !viewer.world.getItemAt(0).getFullyLoaded());
  return zoom();
}}
function turn([x, y, notches]) {{
  const at = viewer.viewport.imageToViewportCoordinates(x, y);
  viewer.viewport.zoomBy(viewer.zoomPerScroll ** notches, at, true).applyConstraints(true);
}}
</script>"""


def main(arguments: list[str] | None = None) -> None:
    """Record a session as the command line asks, into a file."""
    from playwright.sync_api import sync_playwright

    options = parser().parse_args(arguments)
    size = regions.shape_of(options.megapixels)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        paths = recorded(browser, size)
        browser.close()
    command = f"# python -m benchmarks.record_zoom --megapixels {options.megapixels:g} records them anew"
    options.output.write_text("\n".join([header(size), command, *paths, ""]), encoding="ascii")
    print(f"{len(paths)} requests over a picture of {size[1]} x {size[0]} pixels: {options.output}")


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--megapixels", type=float, default=50, help="of the picture, whose size is that of benchmarks.region's")
    found.add_argument("--output", type=Path, default=SESSION)
    return found


def header(size: Size) -> str:
    """Return the first line of a session over a picture of a size."""
    with VIEWER.open(encoding="utf-8") as file:
        version = file.readline().split()[-1]
    return f"# region/size/rotation/quality.format as OpenSeadragon {version} asks for them, over {size[1]} x {size[0]} pixels"


def recorded(browser: Any, size: Size) -> list[str]:
    """Return the paths that a zoom into a picture of a size, (height, width), asks for, in their order."""
    paths: list[str] = []
    told = json.dumps(described(size))

    def answer(route: Any) -> None:
        url = route.request.url
        path = url.removeprefix(f"{_BASE}/")
        if path == "info.json":
            route.fulfill(body=told, content_type="application/ld+json")
        elif path != url:
            paths.append(path)
            route.fulfill(body=blank(understood(path, size, bounds_of(size)).size), content_type="image/jpeg")
        elif url == f"{_SITE}/openseadragon.min.js":
            route.fulfill(body=VIEWER.read_bytes(), content_type="text/javascript")
        else:
            route.fulfill(body=_PAGE, content_type="text/html")

    page = browser.new_page(viewport={"width": WINDOW[0], "height": WINDOW[1]})
    page.route("**/*", answer)
    page.goto(f"{_SITE}/")
    home = settled(page)
    for place in PLACES:
        turn(page, size, place, 1)
        if place != PLACES[-1]:
            turn(page, size, place, home)
    page.close()
    return paths


def turn(page: Any, size: Size, place: tuple[float, float], zoom: float) -> None:
    """Turn the wheel at a place until the picture is shown at a zoom, screen's pixels for one of its own."""
    y, x = (round(share * length) for share, length in zip(place, size, strict=True))
    inwards = settled(page) < zoom
    while True:
        page.evaluate("turn", [x, y, NOTCHES if inwards else -NOTCHES])
        now = settled(page)
        if now >= zoom if inwards else now <= zoom:
            return


def settled(page: Any) -> float:
    """Return the zoom at which the picture is shown, as soon as all of its tiles are there."""
    found: float = page.wait_for_function("settled()", timeout=DEADLINE).json_value()
    return found


def described(size: Size) -> dict[str, Any]:
    """Return the info.json of a picture, whose LR has half of its size."""
    figures = ImageFigures(size=size, lr_size=(-(-size[0] // 2), -(-size[1] // 2)), grey=False)
    return info(_BASE, figures, bounds_of(size), Caption(), lambda *_: True)


def bounds_of(size: Size) -> Bounds:
    """Return what a service gives of a picture: all of it."""
    return Bounds(side=max(size), area=size[0] * size[1])


def understood(path: str, size: Size, bounds: Bounds) -> ImageParameters:
    """Return what the service makes of a recorded path, for a picture of a size; raises InvalidOption."""
    region, sized, rotation, file = path.split("/")
    return understand(region, sized, rotation, *file.split("."), of=size, bounds=bounds)


def blank(size: Size) -> bytes:
    """Return a white JPEG."""
    file = io.BytesIO()
    Image.new("RGB", size[::-1], "white").save(file, "JPEG")
    return file.getvalue()


if __name__ == "__main__":
    main()
