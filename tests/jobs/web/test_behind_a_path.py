"""The service behind a proxy that has it below a path and decodes what it passes on: keys with slashes, links, the gallery."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import quote, urljoin

import httpx2 as httpx
import pytest
from PIL import Image

from tests.support.commands import GUARD
from tests.support.gallery_service import served
from tests.support.gallery_visit import ODD, Visit, open_entry, until
from tests.support.http_site import Site
from tests.support.path_proxy import passed_on, path_proxy
from tests.support.pictures import photo, saved
from tests.support.workshop import Rescaled, Sample, as_tar, rescale

got = partial(httpx.get, timeout=GUARD)

KEYS = ("a", "a/lr", "b/lr", "b/c/image", "b/c/original/image", "d/e f/g.png", "é ü/1%/#?&+.png", "x/lr", "x/lr/lr/lr", "%2F/y")
"""Keys that end as parts are called, those of folders among them, and letters that need care."""

MEANINGS = (
    ("a", "a", ""),
    ("a/lr", "a", "lr"),  # as it always was: a key that is encoded whole, and a part
    ("a/lr/lr", "a/lr", "lr"),
    ("b/lr", "b/lr", ""),
    ("b/lr/image", "b/lr", "image"),
    ("b/c/image", "b/c/image", ""),
    ("b/c/image/lr", "b/c/image", "lr"),
    ("b/c/original/image", "b/c/original/image", ""),
    ("b/c/original/image/image", "b/c/original/image", "image"),
    ("d/e%20f/g.png", "d/e f/g.png", ""),
    ("d/e%20f/g.png/lr", "d/e f/g.png", "lr"),
    ("%C3%A9%20%C3%BC/1%25/%23%3F&%2B.png/image", "é ü/1%/#?&+.png", "image"),
    ("x/lr", "x/lr", ""),
    ("x/lr/lr", "x/lr", "lr"),
    ("x/lr/lr/lr", "x/lr/lr/lr", ""),  # the longest key that there is
    ("x/lr/lr/lr/image", "x/lr/lr/lr", "image"),
    ("%252F/y/image", "%2F/y", "image"),
)
"""Addresses with slashes, the entry that each means, and the part of it."""


@pytest.fixture(scope="module")
def tricky(tmp_path_factory: pytest.TempPathFactory) -> Rescaled:
    """An archive of such keys, each of a picture of its own width."""
    folder = tmp_path_factory.mktemp("tricky")
    files = [Sample(key=key, data=saved(photo(24, width_of(key), 3, number), "PNG")) for number, key in enumerate(KEYS)]
    return rescale(as_tar(folder / "source", files), folder / "archive")


@pytest.fixture(scope="module")
def service(tricky: Rescaled) -> Iterator[str]:
    """The address of a service."""
    with served({"odd": tricky.uri}) as address:
        yield address


@pytest.fixture(scope="module")
def below(service: str) -> Iterator[str]:
    """The address that a proxy has it at."""
    with path_proxy(service) as address:
        yield address


def width_of(key: str) -> int:
    """Return the width of an entry's picture, and of its LR."""
    return 100 + 10 * KEYS.index(key)


def means(answer: httpx.Response) -> tuple[str, str]:
    """Return which entry an answer is of, told by its width, and which part of it."""
    if answer.headers["content-type"] == "application/json":
        return str(answer.json()["key"]), ""
    with Image.open(io.BytesIO(answer.content)) as image:
        width, part = (image.width, "image") if image.width >= 100 else (2 * image.width, "lr")
    return next(key for key in KEYS if width_of(key) == width), part


def test_the_proxy_does_what_nginx_does() -> None:
    """Protects the tests here: what nginx makes of a path, as was seen of it."""
    assert passed_on("/img/archives/odd/assets/a%2Flr") == "/archives/odd/assets/a/lr"
    assert passed_on("/img/x//y/./z%20%C3%A9+%2B") == "/x/y/z%20%C3%A9++"
    assert passed_on("/img/100%25/%23%3F%26") == "/100%25/%23%3F&"
    assert (passed_on("/img/a/../b"), passed_on("/img/"), passed_on("/elsewhere")) == ("/b", "/", None)
    assert passed_on("/img/%252Fy") == "/%252Fy"


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_encoded_whole_means_itself(service: str, key: str) -> None:
    """Protects programs as they are: whatever a key ends with, encoded whole it is that key, and a part is its part."""
    for part in ("", "lr", "image"):
        address = f"{service}/archives/odd/assets/{quote(key, safe='')}/{part}".rstrip("/")
        assert means(got(address)) == (key, part)


@pytest.mark.slow
@pytest.mark.parametrize(("address", "key", "part"), MEANINGS)
def test_slashes_may_stand_in_an_address(service: str, below: str, address: str, key: str, part: str) -> None:
    """Protects keys with slashes behind proxies: the longest key that there is, else a part of one; and encoded they arrive."""
    for base in (service, below):
        assert means(got(f"{base}/archives/odd/assets/{address}")) == (key, part)
    encoded = f"{quote(key, safe='')}/{part}".rstrip("/")
    assert means(got(f"{below}/archives/odd/assets/{encoded}")) == (key, part)


def test_what_is_not_there_is_told_by_its_key(service: str, below: str) -> None:
    """Protects readers of errors: the sentence names the key that was meant, and its part is none of it."""
    for base in (service, below):
        answer = got(f"{base}/archives/odd/assets/no/such/key.png/image")
        assert (answer.status_code, answer.json()["error"]["kind"]) == (404, "not-found")
        assert "'no/such/key.png'" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_links_and_redirects_work_below_a_path(service: str, below: str) -> None:
    """Protects clients behind a proxy: what an answer leads to lies below the same path, and is what it is said to be."""
    for base in (service, below):
        listed = got(f"{base}/archives/odd/assets")
        for asset in listed.json()["assets"]:
            entry = got(f"{base}/archives/odd/assets/{quote(asset['key'], safe='')}")
            if means(entry) != (asset["key"], ""):  # the LR of a and the entry a/lr are one address behind the proxy
                assert (base, asset["key"]) == (below, "a/lr")
                continue
            for part in ("lr", "image"):
                address = urljoin(str(listed.url), asset["links"][part])
                assert address == urljoin(str(entry.url), entry.json()["links"][part])
                assert means(got(address)) == (asset["key"], part)
        for path in ("/", "/gallery"):
            assert str(got(base + path, follow_redirects=True).url) == f"{base}/gallery/"
        page = got(f"{base}/docs")
        assert got(urljoin(str(page.url), "openapi.json")).json()["info"]["title"] == "iarn"
    slashed = got(f"{service}/archives/odd/assets/d/e%20f/g.png")
    assert means(got(urljoin(str(slashed.url), slashed.json()["links"]["image"]))) == ("d/e f/g.png", "image")


def test_the_description_knows_no_path_of_its_own(tricky: Rescaled) -> None:
    """Protects programs made from the description, and the labels of metrics: an entry's address is told as one segment."""
    site = Site(tricky)
    described = site.get("/openapi.json").json()
    assert described["servers"] == [{"url": "./"}], "where the description is"
    paths = described["paths"]
    image = "/{region}/{size}/{rotation}/{quality}.{format}"
    assert {path for path in paths if "{key}" in path} == {
        *(f"/archives/{{archive}}/assets/{{key}}{part}" for part in ("", "/lr", "/image", "/original")),
        *(f"/iiif/3/{{archive}}/{{key}}{part}" for part in ("", "/info.json", "/manifest.json", image)),
    }
    site.get("/archives/demo/assets/d/e%20f/g.png/image")
    assert 'route="/archives/{archive}/assets/{key}/image",status="200"' in site.get("/metrics").text
    site.shelf.close()


def test_the_gallery_works_below_a_path(browser: Any, archives: dict[str, str]) -> None:
    """Protects people behind a proxy: the grid, an entry with both sides, its downloads and Back, all below the path."""
    with served(archives) as address, path_proxy(address) as proxied:
        here = Visit(browser, proxied, accept_downloads=True)
        page = here.go(archive="photos", prefix="trips/")
        until(page, "document.querySelectorAll('#grid img').length === 8")
        for key in ("trips/mural.png", ODD):
            open_entry(here, key)
            told = json.loads(got(f"{proxied}/archives/photos/assets/{quote(key, safe='')}").content)
            assert f"{told['psnr']:.2f}" in page.locator("#panel").inner_text().replace("\N{NO-BREAK SPACE}", " ")
        assert page.locator("#download-lr").get_attribute("href").startswith(f"{proxied}/archives/photos/assets/")
        with page.expect_download() as download:
            page.click("#download-lr")
        assert download.value.suggested_filename
        assert here.complaints == []
        page.click("#back")
        page.wait_for_selector("#grid img")
        page.goto(f"{proxied}/")
        page.wait_for_selector("#grid img")
        assert page.url.startswith(f"{proxied}/gallery/")
        assert not [url for url in here.asked if not url.startswith((f"{proxied}/", "blob:", "data:"))]
        page.close()
