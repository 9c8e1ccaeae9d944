"""The gallery as a whole in a headless Chromium: what it says in failure, asks for once, and whom it lets use it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.gallery_service import served
from tests.support.gallery_visit import Visit, asset_url, both_there, until


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
