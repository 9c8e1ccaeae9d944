"""Makes the picture of docs/gallery.md: the samples rescaled x4, all of them and one of them, as a browser shows them."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from iarn import pretrained
from pipeline.core.target import TargetSize
from tests.support.gallery_service import served
from tests.support.workshop import rescale

SAMPLES = Path(__file__).parents[2] / "samples"
SIZE = {"width": 1240, "height": 780}
GAP = 24


def main() -> None:
    """Write the picture as WebP."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        source = Path(folder, "source")
        source.mkdir()
        for path in SAMPLES.glob("*.jpg"):
            shutil.copy(path, source)
        Path(folder, "tiny.safetensors").write_bytes(pretrained.shipped())  # in the place of the tests' own small network
        archive = rescale(str(source), Path(folder, "photos"), target=TargetSize(scale=(4, 4)), pixel_limit=10_000_000)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        with served({"photos": archive.uri}) as address:
            page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
            page.goto(f"{address}/gallery/")
            page.locator("#grid img").nth(7).wait_for()
            page.wait_for_timeout(500)
            page.screenshot(path=Path(folder, "all.png"))
            page.goto(f"{address}/gallery/?key=budgie.jpg&zoom=3&x=770&y=330")
            page.locator("#stage img").nth(1).wait_for(timeout=120_000)
            page.wait_for_timeout(500)
            page.screenshot(path=Path(folder, "one.png"))
        browser.close()
        shots = [np.array(Image.open(Path(folder, f"{name}.png")).convert("RGB")) for name in ("all", "one")]
        gap = np.full((GAP, SIZE["width"], 3), 128, np.uint8)
        Image.fromarray(np.concatenate([shots[0], gap, shots[1]])).save(out, "WEBP", quality=78, method=6)


if __name__ == "__main__":
    main()
