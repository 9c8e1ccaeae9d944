"""Visits of the gallery in a browser: what is opened, waited for and read there."""

from __future__ import annotations

import io
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import GUARD

ROOT = Path(__file__).parents[2]
ODD = "odd/ä b#%?&+.png"


def sample(name: str, side: int = 240) -> np.ndarray[Any, Any]:
    """Return one of the sample photographs, reduced."""
    with Image.open(ROOT / "samples" / f"{name}.jpg") as photo:
        photo.thumbnail((side, side))
        return np.array(photo.convert("RGB"))


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
