"""One entry in the gallery: figures, divider, zoom, difference, other sizes, downloads."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.gallery_visit import ODD, Visit, asset_url, both_there, fetched, open_entry, pixels, plain, until


def test_an_entry_tells_its_figures(visit: Callable[..., Visit], service: str) -> None:
    """Protects the numbers: quality, sizes and bytes of each part are the service's; a key of any letters opens."""
    here = visit()
    for key in ("trips/mural.png", ODD):
        page = open_entry(here, key)
        told = json.loads(fetched(asset_url(service, key)))
        text = plain(page.locator("#panel").inner_text())
        for figure in (f"{told['psnr']:.2f} dB", f"{told['psnr_y']:.2f} dB", f"{told['ssim']:.4f}", "balanced"):
            assert figure in text
        assert f"{told['width']} x {told['height']} pixels" in text
        cells = "row => [row.cells[0].textContent, row.cells[1].textContent]"
        rows = dict(page.evaluate(f"[...document.querySelectorAll('#bytes tr')].map({cells})"))
        wanted = {"source": told["source_bytes"], "stored": told["stored_bytes"]}
        wanted |= {"LR": told["bytes"]["lr"], "latent": told["bytes"]["latent"]}
        for name, value in wanted.items():
            shown = f"{value} B" if value < 1000 else f"{value / 1000:.1f} kB"
            assert plain(rows[name]) == shown
        widths = page.evaluate("[...document.querySelectorAll('#bytes-bar span')].map(part => part.offsetWidth)")
        assert widths[0] == pytest.approx(widths[1] * told["source_bytes"] / told["bytes"]["lr"], rel=0.1) or min(widths) <= 3
    here.calm()


def test_the_divider_by_keyboard_and_mouse(visit: Callable[..., Visit]) -> None:
    """Protects the comparison: the divider is a slider to keys and screen readers, follows the mouse, clips both sides."""
    here = visit()
    page = open_entry(here, "trips/skyline.png")
    divider = page.locator("#divider")
    value = lambda: int(divider.get_attribute("aria-valuenow"))  # noqa: E731
    assert divider.get_attribute("role") == "slider"
    assert value() == 50
    divider.focus()
    for key, wanted in (("ArrowLeft", 49), ("Shift+ArrowRight", 59), ("PageUp", 69), ("Home", 0), ("End", 100)):
        page.keyboard.press(key)
        assert value() == wanted
    assert "100 percent LR" in divider.get_attribute("aria-valuetext")
    box = page.locator("#stage").bounding_box()
    knob = page.locator("#divider span").bounding_box()
    page.mouse.move(knob["x"] + 10, knob["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 50, steps=4)
    page.mouse.up()
    left, right = (page.locator(f"[data-side={side}]").evaluate("layer => layer.style.clipPath") for side in ("left", "right"))
    at = float(re.search(r"([\d.]+)px", right.split("inset(")[1].split(")")[0].split()[-1])[1])  # type: ignore[index]
    assert at == pytest.approx(box["width"] / 4, abs=2)
    assert f"{at:g}"[:5] in left
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)  # anywhere, while nothing is zoomed
    assert value() > 60
    until(page, "location.search.includes('split=7')")
    page.reload()
    both_there(page)
    assert value() > 60
    here.calm()


def test_zoom_to_single_pixels(visit: Callable[..., Visit], service: str) -> None:
    """Protects what one zooms in for: a pixel is a crisp square of its very colour, at the same place on both sides."""
    here = visit()
    page = open_entry(here, "trips/budgie.png", zoom=32, x=100.5, y=60.5, split=0)
    until(page, "document.querySelector('#stage').classList.contains('crisp')")
    assert page.locator("[data-side=right] img").evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    transforms = page.evaluate("[...document.querySelectorAll('.layer > *')].map(each => each.style.transform)")
    assert transforms[0] == transforms[1]
    restored = pixels(fetched(asset_url(service, "trips/budgie.png", "/image?format=png")))
    shot = pixels(page.locator("#stage").screenshot())
    middle_y, middle_x = shot.shape[0] // 2, shot.shape[1] // 2
    for dx, dy in ((0, 0), (3, 0), (-4, 2)):
        around = shot[middle_y + 32 * dy - 10 : middle_y + 32 * dy + 10, middle_x + 32 * dx - 10 : middle_x + 32 * dx + 10]
        if dx or dy:  # the divider's knob is in the middle of its line at the left, the centre may be below nothing
            assert np.abs(around - restored[60 + dy, 100 + dx]).max() <= 1
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("-")
    assert page.locator("#zoom").inner_text().startswith("1600")
    page.keyboard.press("+")
    until(page, "!location.search.includes('x=100.5') && location.search.includes('zoom=32')")  # it follows with a delay
    assert float(here.state()["x"]) == pytest.approx(100.5 + 40 / 32, abs=0.1)
    page.keyboard.press("0")
    until(page, "!location.search.includes('zoom')")
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -1500)
    until(page, "location.search.includes('zoom=')")
    assert float(here.state()["x"]) < 60  # about where the mouse is, not about the middle
    x = float(here.state()["x"])
    page.mouse.down()
    page.mouse.move(box["x"] + 10, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    until(page, f"Number(new URLSearchParams(location.search).get('x')) !== {x}")
    page.click("#zoom-one")
    assert page.locator("#zoom").inner_text().startswith("100")
    here.calm()


def test_two_fingers_zoom(visit: Callable[..., Visit]) -> None:
    """Protects phones: one finger moves the divider, two zoom about where they are, and the page does not zoom instead."""
    here = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = open_entry(here, "trips/kitten.png")
    fit = page.locator("#zoom").inner_text()
    box = page.locator("#stage").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    touches = page.context.new_cdp_session(page)

    def touch(kind: str, *offsets: float) -> None:
        points = [{"x": middle[0] + offset, "y": middle[1], "id": number} for number, offset in enumerate(offsets)]
        touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 60)
    for offset in (40, 0, -40, -80):
        touch("touchMove", offset)
    touch("touchEnd")
    assert 20 < int(page.get_attribute("#divider", "aria-valuenow")) < 35
    touch("touchStart", -20)
    touch("touchStart", -20, 20)
    for apart in (30, 45, 60, 80):
        touch("touchMove", -apart, apart)
    touch("touchEnd")
    until(page, "location.search.includes('zoom=')")
    assert page.locator("#zoom").inner_text() != fit
    assert page.evaluate("visualViewport.scale") == 1
    here.calm()


def test_the_difference_is_exact(visit: Callable[..., Visit], service: str) -> None:
    """Protects judgement: the difference of the two chosen pictures, level by level, times the chosen factor, cut at white."""
    here = visit()
    key = "trips/kitten.png"
    page = open_entry(here, key, left="alone", right="restored")
    page.keyboard.press("d")
    page.wait_for_selector("[data-side=right] canvas")
    assert here.state()["right"] == "difference"
    one, other = (pixels(fetched(asset_url(service, key, f"/image?format=png&latent={latent}"))) for latent in (0, 1))
    for gain in (8, 1, 32):
        page.select_option("#gain", str(gain))
        until(page, f"document.querySelector('canvas').getAttribute('aria-label').includes('times {gain}:')")
        drawn = page.locator("[data-side=right] canvas").evaluate("canvas => canvas.toDataURL('image/png')")
        assert np.array_equal(pixels(base64.b64decode(drawn.split(",")[1])), np.minimum(255, np.abs(one - other) * gain))
    page.select_option("#first", "lr")
    until(page, "document.querySelector('canvas').getAttribute('aria-label').startsWith('Difference of LR and')")
    here.calm()


def test_restored_at_another_size(visit: Callable[..., Visit], service: str) -> None:
    """Protects restores by the slider: only the last size is waited for, and the latent can be left out."""
    here = visit()
    page = open_entry(here, "trips/spices.png")
    told = json.loads(fetched(asset_url(service, "trips/spices.png")))
    page.locator("#scale").focus()
    page.keyboard.press("ArrowLeft")
    step = "scale.stepDown(); scale.dispatchEvent(new Event('input', {bubbles: true}))"
    page.locator("#scale").evaluate(f"scale => {{ for (let i = 1; i < 10; i++) {{ {step} }} }}")  # with no rest between them
    assert "0.5 times" in page.get_attribute("#scale", "aria-valuetext")
    natural = "document.querySelector('[data-side=right] img')?.naturalWidth"
    until(page, f"{natural} === {round(told['width'] / 2)}")
    assert len([url for url in here.asked if "scale=" in url]) <= 3  # the slider rests before anything is asked for
    assert here.state()["scale"] == "0.5"
    page.uncheck("#latent")
    until(page, "location.search.includes('latent=0')")
    both_there(page)
    assert any("scale=0.5" in url and "latent=0" in url for url in here.asked)
    waiting: list[Any] = []
    page.route(re.compile(r"scale=2(&|$)"), lambda route: waiting.append(route))
    aborted: list[str] = []
    page.on("requestfailed", lambda request: aborted.append(request.url))
    page.locator("#scale").fill("2")
    until(page, "location.search.includes('scale=2')")
    page.locator("#scale").fill("1.5")
    until(page, f"{natural} === {round(told['width'] * 1.5)}")
    assert [url for url in aborted if "scale=2" in url], "what is no longer wanted is aborted"
    size = f"{round(told['width'] * 1.5)} x {round(told['height'] * 1.5)}"
    assert plain(page.locator("#status").inner_text()).endswith(size)
    here.calm()


def test_downloads_are_the_bytes_served(visit: Callable[..., Visit], service: str) -> None:
    """Protects what people take along: LR, restored image in a chosen format and original are the service's bytes."""
    here = visit(accept_downloads=True)
    page = open_entry(here, "trips/canyon.png", scale="0.5")

    def downloaded(link: str) -> bytes:
        with page.expect_download() as download:
            page.click(link)
        return Path(download.value.path()).read_bytes()

    assert downloaded("#download-lr") == fetched(asset_url(service, "trips/canyon.png", "/lr"))
    page.select_option("#format", "webp")
    page.fill("#quality", "70")
    wanted = fetched(asset_url(service, "trips/canyon.png", "/image?scale=0.5&format=webp&quality=70&latent=1"))
    assert downloaded("#download-restored") == wanted
    assert page.locator("#download-original").is_hidden()
    page = here.go(archive="masters", key="mural.png")
    both_there(page)
    assert page.locator("#left option").all_inner_texts() == ["LR", "Restored", "Original", "Difference"]
    assert downloaded("#download-original") == fetched(asset_url(service, "mural.png", "/original", "masters"))
