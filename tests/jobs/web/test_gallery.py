"""The gallery in a headless Chromium, before the real service: what is seen, by mouse, by keyboard, on a phone, in failure."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import numpy as np
import pytest
from PIL import Image

from pipeline.core.records import Tier
from tests.support.pictures import saved
from tests.support.workshop import Sample, as_tar, rescale

pytest.importorskip("jobs.web.http", reason="the service is not there")
from tests.support.commands import GUARD
from tests.support.gallery_service import served

ROOT = Path(__file__).parents[3]
ODD = "odd/ä b#%?&+.png"
MANY = 100_000
NODES = 1200
"""More elements than any window needs, far fewer than there are entries."""


def sample(name: str, side: int = 240) -> np.ndarray[Any, Any]:
    """Return one of the sample photographs, reduced."""
    with Image.open(ROOT / "samples" / f"{name}.jpg") as photo:
        photo.thumbnail((side, side))
        return np.array(photo.convert("RGB"))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Archives by name: photographs with a latent, one of them kept as it was; masters kept exactly; a damaged one."""
    folder = tmp_path_factory.mktemp("gallery")
    names = ("budgie", "canyon", "circuits", "colosseum", "kitten", "mural", "skyline", "spices")
    photos = [Sample(key=f"trips/{name}.png", data=saved(sample(name), "PNG")) for name in names]
    photos += [Sample(key=ODD, data=saved(sample("kitten", 90), "PNG")), Sample(key="broken.jpg", data=b"no picture at all")]
    masters = [Sample(key=f"{name}.png", data=saved(sample(name, 120), "PNG")) for name in ("mural", "spices")]
    made = {
        "photos": rescale(as_tar(folder / "a", photos), folder / "photos").uri,
        "masters": rescale(as_tar(folder / "b", masters), folder / "masters", tier=Tier.EXACT).uri,
        "damaged": rescale(as_tar(folder / "c", masters), folder / "damaged", tier=Tier.LEAN).uri,
    }
    (shard,) = (folder / "damaged" / "shards").glob("*.parquet")
    data = bytearray(shard.read_bytes())
    data[2000:2400] = bytes(400)
    shard.write_bytes(data)
    return made


@pytest.fixture(scope="module")
def service(archives: dict[str, str]) -> Iterator[str]:
    """The address of a service without a token."""
    with served(archives) as address:
        yield address


class Visit:
    """A page of the gallery, and what it complained of and asked for."""

    def __init__(self, browser: Any, service: str, **options: Any) -> None:
        self.page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}, **options})
        self.page.set_default_timeout(1000 * GUARD)
        self.service = service
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def go(self, **state: Any) -> Any:
        """Open the gallery at an address that says so much; return the page."""
        self.page.goto(f"{self.service}/gallery/?{urlencode(state)}")
        return self.page

    def calm(self, *, but: str = "nothing") -> None:
        """Check that nothing was complained of ``but`` what is expected, and nothing asked of anyone else."""
        assert not [said for said in self.complaints if but not in said]
        elsewhere = [url for url in self.asked if not url.startswith((f"{self.service}/", f"blob:{self.service}/", "data:"))]
        assert not elsewhere

    def state(self) -> dict[str, str]:
        """Return what the address says."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query).items()}


@pytest.fixture
def visit(browser: Any, service: str) -> Iterator[Callable[..., Visit]]:
    """Makes visits, which end with the test."""
    visits: list[Visit] = []

    def make(**options: Any) -> Visit:
        visits.append(Visit(browser, service, **options))
        return visits[-1]

    yield make
    for each in visits:
        each.page.close()


def fetched(url: str) -> bytes:
    """Return what an address gives."""
    with urllib.request.urlopen(url) as response:
        return bytes(response.read())


def asset_url(service: str, key: str, part: str = "", archive: str = "photos") -> str:
    """Return the address of an entry, or of a part of it."""
    return f"{service}/archives/{archive}/assets/{quote(key, safe='')}{part}"


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    """Return the pixels of a file, with a sign."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB")).astype(int)


def until(page: Any, expression: str) -> None:
    """Wait until an expression of JavaScript is true (Playwright's own wait needs eval, which the page's policy forbids)."""
    end = time.monotonic() + GUARD
    while time.monotonic() < end:
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    shown = page.evaluate("[...document.querySelectorAll('#problem, dialog')].map(each => each.innerText)")
    pytest.fail(f"never came true: {expression}; shown are {shown}")


def plain(text: str) -> str:
    """Return text with common spaces, and an x for a multiplication sign."""
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MULTIPLICATION SIGN}", "x")


def both_there(page: Any) -> None:
    """Wait until both sides of a comparison show something."""
    until(page, "document.querySelectorAll('#stage .layer > *').length === 2 && !document.querySelector('.busy')")


def open_entry(visit: Visit, key: str, **state: Any) -> Any:
    """Open an entry, and wait for both of its sides; return the page."""
    page = visit.go(archive="photos", key=key, **state)
    both_there(page)
    return page


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
            page.mouse.wheel(0, -3000)
        until(page, "document.querySelectorAll('#grid img').length && !document.querySelector('#grid .waiting')")
        assert page.evaluate(nodes) < NODES
        page.fill("#jump", "011/0114")
        page.press("#jump", "Enter")
        until(page, "document.activeElement.title === '011/011400.jpg'")
        until(page, "location.search.includes('at=011')")
        page.reload()
        page.locator("#grid a[title='011/011400.jpg'] img").wait_for()
        assert page.evaluate(nodes) < NODES
        assert sum("/lr" in url for url in here.asked) < 400, "pictures are fetched for what is seen alone"
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
    until(page, "!location.search.includes('x=100.5')")
    assert float(here.state()["x"]) == pytest.approx(100.5 + 40 / 32, abs=0.1)
    assert here.state()["zoom"] == "32"
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
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
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


def shown_problem(page: Any) -> str:
    """Return the sentence of the problem that is shown."""
    page.wait_for_selector("#problem:not([hidden])")
    return str(page.locator("#problem p").inner_text())


def test_errors_are_sentences(visit: Callable[..., Visit]) -> None:
    """Protects people from codes: what is missing, damaged or out of reach is said, with what to do."""
    page = visit().go(archive="photos", key="gone.jpg")
    assert "gone.jpg" in shown_problem(page)
    assert "Go back to all entries" in shown_problem(page)
    page.click("#back")
    page.wait_for_selector("#grid img")
    assert page.locator("#problem").is_hidden()

    page = visit().go(archive="nowhere")
    assert "No archive nowhere" in shown_problem(page)

    page = visit().go(archive="photos", key="broken.jpg")
    page.wait_for_selector("#nothing:not([hidden])")
    assert page.locator("#nothing").inner_text().startswith("It cannot be shown (")
    assert page.locator("#reason").inner_text()
    assert page.locator("#divider").is_hidden()

    page = visit().go(archive="damaged", key="mural.png")
    said = shown_problem(page)
    assert "damaged" in said
    assert "iarn verify" in said

    here = visit()
    page = here.go(archive="photos")
    page.wait_for_selector("#grid img")
    page.route("**/archives/**", lambda route: route.abort())
    page.locator("#grid a").nth(2).click()
    assert shown_problem(page).startswith("The service cannot be reached. Check")
    page.unroute("**/archives/**")
    page.click("#problem-again")
    both_there(page)


_SAID = """window.said = [];
  new MutationObserver(() => window.said.push(document.querySelector('#status')?.textContent ?? ''))
    .observe(document, { subtree: true, childList: true, characterData: true });"""
"""Has a page keep all that its status has said."""


def test_a_busy_service_is_waited_for(visit: Callable[..., Visit]) -> None:
    """Protects back-pressure: a 503 is tried again after the time that it names, and said meanwhile; then it is a problem."""
    here = visit()
    refusals = [True]

    def busy(route: Any) -> None:
        if not refusals:
            route.continue_()
            return
        if refusals[0]:
            refusals.pop()
        body = json.dumps({"error": {"kind": "overloaded", "message": "The service cannot take this request now."}})
        route.fulfill(status=503, headers={"Retry-After": "1"}, content_type="application/json", body=body)

    here.page.add_init_script(_SAID)  # what is said may have gone when it is looked for
    here.page.route("**/image?*", busy)
    page = here.go(archive="photos", key="trips/mural.png")
    until(page, "window.said.some(text => text.includes('Trying again in 1 s.'))")
    both_there(page)
    assert page.locator("#problem").is_hidden()
    refusals.append(False)  # never again
    page.uncheck("#latent")
    assert "cannot take this request now. Wait a moment" in shown_problem(page)
    refusals.clear()
    page.click("#problem-again")
    both_there(page)
    assert page.locator("#problem").is_hidden()


def test_the_token_is_asked_for_once(browser: Any, archives: dict[str, str]) -> None:
    """Protects services with a token: it is asked for, kept for the tab alone, sent with every picture and download."""
    with served(archives, token="correct-horse-battery") as address:
        here = Visit(browser, address, accept_downloads=True)
        page = here.go(archive="photos", prefix="trips/")
        page.fill("#token-text", "wrong")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('#token-why').textContent.includes('did not take')")
        page.fill("#token-text", "correct-horse-battery")
        page.keyboard.press("Enter")
        until(page, "document.querySelectorAll('#grid img').length === 8")
        assert page.evaluate("[sessionStorage.token, localStorage.length, document.cookie]") == ["correct-horse-battery", 0, ""]
        assert "horse" not in page.url
        page.locator("#grid a").first.click()
        both_there(page)
        assert not page.locator("#token").is_visible()
        with page.expect_download() as download:
            page.click("#download-lr")
        data = Path(download.value.path()).read_bytes()
        request = urllib.request.Request(asset_url(address, "trips/budgie.png", "/lr"))
        request.add_header("Authorization", "Bearer correct-horse-battery")
        with urllib.request.urlopen(request) as response:
            assert data == response.read()
        page.close()


_NAMELESS = """() => [...document.querySelectorAll('a[href], button, input, select, [role=slider], [role=img], img, dialog')]
  .filter(each => each.checkVisibility())
  .filter(each => !(each.alt || each.getAttribute('aria-label') || each.getAttribute('aria-labelledby')
    || [...each.labels ?? []].some(label => label.innerText.trim()) || each.innerText?.trim()))
  .map(each => each.outerHTML.slice(0, 120))"""
"""What has no name for assistive technology."""

_LEAST_CONTRAST = """() => {
  const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(channel);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = each => { const colour = getComputedStyle(each).backgroundColor;
    return colour === 'rgba(0, 0, 0, 0)' ? behind(each.parentElement) : colour; };
  const texts = [...document.querySelectorAll('body *')].filter(each => each.checkVisibility() && [...each.childNodes].some(
    node => node.nodeType === 3 && node.textContent.trim()));
  return Math.min(...texts.map(each => [luminance(getComputedStyle(each).color), luminance(behind(each))]).map(
    ([ink, paper]) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)));
}"""
"""The least contrast of any text with what is behind it, as WCAG has it (2.2, 1.4.3: 4.5 for text of this size)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_anyone_can_use_it(visit: Callable[..., Visit], width: int, scheme: str) -> None:
    """Protects phones and people: nothing wider than the screen, every control named, text legible, focus seen, ids unique."""
    here = visit(viewport={"width": width, "height": 740}, color_scheme=scheme, reduced_motion="reduce")
    for state in ({"prefix": "trips/"}, {"key": "trips/mural.png", "right": "difference"}):
        page = here.go(archive="photos", **state)
        until(page, "document.images.length >= 1 && [...document.images].every(image => image.complete)")
        if "key" in state:
            both_there(page)
        elif width == 360:
            page.click("#more")
            assert page.get_attribute("#more", "aria-expanded") == "true"
            page.wait_for_selector("#kind:visible")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(_NAMELESS) == []
        assert page.evaluate("[...document.querySelectorAll('h1')].filter(each => each.checkVisibility()).length") == 1
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
        assert len(ids) == len(set(ids))
        assert page.evaluate(_LEAST_CONTRAST) >= 4.5
        assert page.evaluate("getComputedStyle(document.querySelector('#grid .frame img, .layer img')).animationName") == "none"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    here.calm()
