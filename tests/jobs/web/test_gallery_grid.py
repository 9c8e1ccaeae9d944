"""The gallery's grid in a headless Chromium, before the real service: every entry, by keyboard, filtered."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.gallery_service import served
from tests.support.gallery_visit import Visit, both_there, fetched, until

MANY = 100_000
NODES = 1200
"""More elements than any window needs, far fewer than there are entries."""


def test_the_grid_shows_every_entry(visit: Callable[..., Visit], service: str) -> None:
    """Protects the first look: each entry with its LR, its name and its figures; nothing from elsewhere, no complaint."""
    here = visit()
    page = here.go(archive="photos")
    until(page, "document.querySelectorAll('#grid img').length === 9 && document.querySelector('#grid .missing')")
    listed = json.loads(fetched(f"{service}/archives/photos/assets"))["assets"]
    assert page.locator("#grid [role=gridcell] .name").all_inner_texts() == [each["key"].split("/")[-1] for each in listed]
    assert page.evaluate("[...document.querySelectorAll('#grid img')].every(image => image.naturalWidth && image.alt)")
    assert page.locator("#count").inner_text() == "10 entries"
    budgie = page.locator("#grid a[title='trips/budgie.png']")
    shown = next(each for each in listed if each["key"] == "trips/budgie.png")
    assert f"{shown['psnr']:.2f}" in budgie.inner_text()
    assert budgie.locator("img").evaluate("image => image.naturalWidth") == shown["lr_width"]
    here.calm(but="422")  # Chromium itself tells of the broken one's picture


def test_a_hundred_thousand_entries(browser: Any, archives: dict[str, str]) -> None:
    """Protects large archives: few elements wherever one is, the end within reach, keys found, the place in the address."""
    with served({"photos": archives["photos"]}, count=MANY) as address:
        here = Visit(browser, address)
        page = here.go()
        nodes = "document.querySelectorAll('#grid *').length"
        page.wait_for_selector("#grid img")
        assert page.evaluate(nodes) < NODES
        assert page.locator("#count").inner_text().replace("\N{NARROW NO-BREAK SPACE}", "") == f"{MANY} entries"
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.locator(f"#grid a[title='099/{MANY - 1:06d}.jpg'] img").wait_for()
        assert page.evaluate(nodes) < NODES
        page.mouse.move(600, 500)
        for _ in range(12):  # by the wheel, back up
            page.mouse.wheel(0, -30000)
        until(page, "document.querySelectorAll('#grid img').length && !document.querySelector('#grid .waiting')")
        assert page.evaluate(nodes) < NODES
        page.fill("#jump", "011/0114")
        page.press("#jump", "Enter")
        until(page, "document.activeElement.title === '011/011400.jpg'")
        until(page, "location.search.includes('at=011')")
        page.reload()
        page.locator("#grid a[title='011/011400.jpg'] img").wait_for()
        assert page.evaluate(nodes) < NODES
        assert sum("/lr" in url for url in here.asked) < 2000, "pictures are fetched for what is seen alone"
        assert all(1 <= int(parse_qs(urlsplit(url).query)["limit"][0]) <= 1000 for url in here.asked if "/assets?" in url)
        here.calm()
        page.close()


def test_the_keyboard_walks_the_grid(visit: Callable[..., Visit]) -> None:
    """Protects those without a mouse: one stop for Tab, arrows in two directions, Enter opens, Escape comes back."""
    here = visit()
    page = here.go(archive="photos", prefix="trips/")
    page.wait_for_selector("#grid img")
    columns = int(page.get_attribute("#grid", "aria-colcount"))
    page.locator("#grid a[tabindex='0']").focus()
    index = "Number(document.activeElement.dataset.index)"
    walked = []
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "End", "Control+End", "Home", "Control+Home", "ArrowUp"):
        page.keyboard.press(key)
        walked.append(page.evaluate(index))
    row = 8 // columns if 8 % columns else 8 // columns - 1
    assert walked == [1, 1 + columns, columns, min(2 * columns - 1, 7), 7, row * columns, 0, 0]
    assert page.locator("#grid a[tabindex='0']").count() == 1
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#asset:not([hidden])")
    both_there(page)
    assert page.locator("#asset-key").inner_text() == "trips/canyon.png"
    assert page.evaluate("document.activeElement.id") == "asset-key"
    page.wait_for_selector("#next[href]")
    page.keyboard.press("n")
    until(page, "document.querySelector('#asset-key').textContent === 'trips/circuits.png'")
    assert page.locator("#position").inner_text() == "3 of 8"
    page.keyboard.press("Escape")
    until(page, "document.activeElement.title === 'trips/circuits.png'")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "text"
    here.calm()


def test_filters_are_in_the_address(visit: Callable[..., Visit], service: str) -> None:
    """Protects shared links and Back: each filter narrows the grid as the service does, and the address has it."""
    here = visit()
    page = here.go(archive="photos")
    page.wait_for_selector("#grid img")
    page.fill("#text", "co")
    until(page, "document.querySelectorAll('#grid [role=gridcell]').length === 1")
    assert here.state() == {"archive": "photos", "contains": "co"}
    assert page.locator("#count").inner_text() == "1 of 10 entries"
    page.click("#clear")
    page.select_option("#kind", "original")
    until(page, "document.querySelectorAll('#grid a').length === 1")
    assert page.locator("#grid a .name").inner_text() == "broken.jpg"
    page.go_back()
    until(page, "document.querySelectorAll('#grid a').length === 10")
    page.go_back()
    until(page, "document.querySelectorAll('#grid a').length === 1")
    assert page.input_value("#text") == "co"
    page.go_forward()
    until(page, "document.querySelectorAll('#grid a').length === 10")
    listed = json.loads(fetched(f"{service}/archives/photos/assets"))
    figures = sorted(each["psnr"] for each in listed["assets"] if each["psnr"])
    middle = round((figures[3] + figures[4]) / 2, 3)
    page = here.go(archive="photos", psnr_min=middle, tier="balanced", prefix="trips/")
    listed = json.loads(fetched(f"{service}/archives/photos/assets?psnr_min={middle}&tier=balanced&prefix=trips/"))
    assert 0 < listed["total"] < 8
    until(page, f"document.querySelectorAll('#grid a').length === {listed['total']}")
    assert page.input_value("#psnr-min") == str(middle)
    page.fill("#psnr-min", "119")
    until(page, "document.querySelector('#count').textContent === '0 of 10 entries'")
    assert page.locator("#grid a").count() == 0
    page.select_option("#archive", "masters")
    until(page, "document.querySelectorAll('#grid a').length === 2")
    here.calm(but="422")
