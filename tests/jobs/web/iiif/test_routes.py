"""Images and documents of the IIIF over HTTP: pixels, headers, statuses, tiles that fit together, and no 500."""

from __future__ import annotations

import io
import json
from contextlib import closing
from typing import Any
from urllib.parse import quote, urljoin

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from jobs.web.iiif import routes
from pipeline.core.options import Limits
from pipeline.reading.requests import ImageRequest
from tests.jobs.web.iiif.conftest import KEYS, LICENCE, TURNED
from tests.support.http_site import TOKEN, Site, told
from tests.support.workshop import Rescaled

HERE = "http://127.0.0.1"
TILES = "/iiif/3/demo/tiles.png"
IMAGE_LD = 'application/ld+json;profile="http://iiif.io/api/image/3/context.json"'
PRESENTATION_LD = 'application/ld+json;profile="http://iiif.io/api/presentation/3/context.json"'


def at(key: str) -> str:
    """Return the address of an entry's image."""
    return f"/iiif/3/demo/{quote(key, safe='')}"


def opened(answer: Any) -> Image.Image:
    """Return the image of an answer."""
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def pixels(site: Site, path: str) -> np.ndarray:
    """Return the pixels of an image at a path."""
    return np.asarray(opened(site.get(path)))


def whole(site: Site, key: str) -> np.ndarray:
    """Return the pixels of an entry's whole restore, upright."""
    data = site.backend.restorer.restore(site.shelf.place(key), ImageRequest()).data
    with Image.open(io.BytesIO(data)) as image:
        turned = {6: Image.Transpose.ROTATE_270}.get(image.getexif().get(0x0112, 1))
        return np.asarray(image if turned is None else image.transpose(turned))


@pytest.mark.slow
def test_what_is_told_of_an_image(zoom: Site) -> None:
    """Protects viewers: info.json has what the specification asks for, at an address that is the image's own."""
    for key in KEYS:
        asset = zoom.get(f"/archives/demo/assets/{quote(key, safe='')}").json()
        answer = zoom.get(f"{at(key)}/info.json")
        info = answer.json()
        assert (answer.status_code, answer.headers["content-type"]) == (200, IMAGE_LD)
        assert next(iter(info)) == "@context"
        assert info["id"] == HERE + at(key)
        assert (info["type"], info["protocol"], info["profile"]) == ("ImageService3", "http://iiif.io/api/image", "level2")
        assert (info["width"], info["height"]) == (asset["width"], asset["height"])
        assert {"width": asset["lr_width"], "height": asset["lr_height"]} in info["sizes"]
        assert ("color" in info["extraQualities"]) == (key != "grey.png")
        assert info.get("rights") == (LICENCE if key == TURNED else None)
        for size in info["sizes"]:
            image = opened(zoom.get(f"{at(key)}/full/{size['width']},{size['height']}/0/default.webp"))
            assert image.size == (size["width"], size["height"])
    answer = zoom.get(f"{at('page.html.jpg')}/info.json")
    assert (answer.status_code, told(answer)) == (404, "not-kept")


def test_documents_are_negotiated_and_cached(zoom: Site) -> None:
    """Protects caches and programs: JSON-LD unless JSON is liked better, and a strong tag."""
    path = f"{TILES}/info.json"
    likes = {
        "application/ld+json": IMAGE_LD,
        "application/json": "application/json",
        "application/json, application/ld+json;q=0.5": "application/json",
        "text/html, */*;q=0.8": IMAGE_LD,
        "application/*": IMAGE_LD,
        "text/html": IMAGE_LD,
        "*/*, application/ld+json;q=0.1": "application/json",
    }
    assert {accept: zoom.get(path, accept=accept).headers["content-type"] for accept in likes} == likes
    first = zoom.get(path)
    assert (first.headers["vary"], first.headers["cache-control"]) == ("Accept", "no-cache")
    assert '<http://iiif.io/api/image/3/level2.json>;rel="profile"' in first.headers["link"]
    again = zoom.get(path, if_none_match=first.headers["etag"])
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert zoom.client.head(path).headers["etag"] == first.headers["etag"]


def test_the_address_itself_leads_to_what_is_told(zoom: Site) -> None:
    """Protects 2: an image's own address redirects to its info.json, relative, so below any path."""
    for key in KEYS:
        answer = zoom.get(at(key))
        assert answer.status_code == 303
        assert urljoin(at(key), answer.headers["location"]) == f"{at(key)}/info.json"
    slashed = "/iiif/3/demo/" + quote(TURNED)
    assert urljoin(slashed, zoom.get(slashed).headers["location"]) == f"{slashed}/info.json"
    assert zoom.get(f"{slashed}/info.json").json()["id"] == HERE + at(TURNED)
    assert pixels(zoom, f"{slashed}/full/max/0/default.png").shape == (36, 24, 3)


@pytest.mark.slow
def test_pixels_are_those_of_the_restore(zoom: Site) -> None:
    """Protects 4.1, 4.3 and 4.6: a region is the crop of the restore, mirrored, turned; files are upright and bare."""
    for key in ("tiles.png", "alpha.png", "deep.png", TURNED):
        full = whole(zoom, key)
        height, width = full.shape[:2]
        assert np.array_equal(pixels(zoom, f"{at(key)}/full/max/0/default.png"), full)
        x, y, w, h = 3, 5, width // 2, height // 3
        crop = full[y : y + h, x : x + w]
        for rotation, turned in (("0", crop), ("90", np.rot90(crop, -1)), ("180", crop[::-1, ::-1]), ("270", np.rot90(crop)),
                                 ("!0", crop[:, ::-1]), ("!90", np.rot90(crop[:, ::-1], -1))):  # fmt: skip
            assert np.array_equal(pixels(zoom, f"{at(key)}/{x},{y},{w},{h}/max/{rotation}/default.png"), turned)
        assert pixels(zoom, f"{at(key)}/{x},{y},{w},{h}/{w // 2},7/90/default.png").shape[:2] == (w // 2, 7)
    upright = opened(zoom.get(f"{at(TURNED)}/full/max/0/default.jpg"))
    assert (upright.size, dict(upright.getexif()), "icc_profile" in upright.info) == ((24, 36), {}, True)


@pytest.mark.slow
def test_qualities(zoom: Site) -> None:
    """Protects 4.4: grey is the luma, bitonal is black and white alone, also where there is alpha, depth or a profile."""
    for key in KEYS:
        full = whole(zoom, key)
        grey = opened(zoom.get(f"{at(key)}/full/max/0/gray.png"))
        assert grey.mode in ("L", "LA", "I;16")
        assert "icc_profile" not in grey.info  # of colours, which the file has none of
        if key in ("alpha.png", "tiles.png", TURNED):
            luma = full[..., :3] @ [0.299, 0.587, 0.114]
            assert np.abs(np.asarray(grey.getchannel(0)) - luma).max() <= 0.51
        for format in ("png", "jpg", "webp"):
            shades = np.unique(pixels(zoom, f"{at(key)}/full/max/0/bitonal.{format}"))
            assert ((shades <= 2) | (shades >= 253)).all()
        assert np.array_equal(pixels(zoom, f"{at(key)}/full/max/0/color.png"), full)


@pytest.mark.slow
def test_formats_are_those_asked_for(zoom: Site) -> None:
    """Protects 4.5: what is called jpg is a JPEG, even of what shows through, and each has its media type."""
    types = {"jpg": ("JPEG", "image/jpeg"), "png": ("PNG", "image/png"), "webp": ("WEBP", "image/webp"),
             "avif": ("AVIF", "image/avif")}  # fmt: skip
    for key in KEYS:
        for format, (name, media_type) in types.items():
            answer = zoom.get(f"{at(key)}/full/max/0/default.{format}")
            assert (opened(answer).format, answer.headers["content-type"]) == (name, media_type)
    full = whole(zoom, "alpha.png").astype(float)
    alpha = full[..., 3:] / 255
    shown = pixels(zoom, f"{at('alpha.png')}/full/max/0/default.jpg")
    assert np.abs(shown - (full[..., :3] * alpha + 255 * (1 - alpha))).mean() < 6


def test_one_image_under_many_names_is_restored_once(images: Rescaled) -> None:
    """Protects the engines: requests for one image share its restore, its tag, and the canonical address that they tell."""
    site = Site(images)
    with closing(site.shelf):
        names = ("full/!27,40/0/default.jpg", "full/27,/0/default.jpg", "pct:0,0,100,100/^27,5/360/default.jpg")
        answers = [site.get(f"{TILES}/{name}") for name in names]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.headers["etag"] for answer in answers}) == site.backend.restored == 1
        (link,) = {answer.headers["link"] for answer in answers}
        assert f'<{HERE}{TILES}/full/27,5/0/default.jpg>;rel="canonical"' in link
        assert '<http://iiif.io/api/image/3/level2.json>;rel="profile"' in link
        again = site.get(f"{TILES}/{names[0]}", if_none_match=answers[0].headers["etag"])
        part = site.get(f"{TILES}/{names[0]}", range="bytes=0-9")
        assert (again.status_code, part.status_code, len(part.content)) == (304, 206, 10)
        assert again.headers["link"] == link


@pytest.mark.slow
def test_tiles_fit_together(zoom: Site) -> None:
    """Protects viewers: every tile that info.json tells of has its size, and those of scale 1 are the image."""
    info = zoom.get(f"{TILES}/info.json").json()
    width, height, (tiles,) = info["width"], info["height"], info["tiles"]
    side = tiles["width"]
    assert tiles["scaleFactors"] == [1, 2]
    canvas = np.zeros((height, width, 3), np.uint8)
    for scale in tiles["scaleFactors"]:
        for x in range(0, width, side * scale):
            for y in range(0, height, side * scale):
                w, h = min(side * scale, width - x), min(side * scale, height - y)
                size = -(-w // scale), -(-h // scale)
                tile = pixels(zoom, f"{TILES}/{x},{y},{w},{h}/{size[0]},{size[1]}/0/default.png")
                assert tile.shape == (size[1], size[0], 3)
                if scale == 1:
                    canvas[y : y + h, x : x + w] = tile
    assert np.array_equal(canvas, whole(zoom, "tiles.png"))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("0,0,0,5/max/0/default.jpg", 400),
        ("9000,0,5,5/max/0/default.jpg", 400),
        ("full/9000,/0/default.jpg", 400),
        ("full/^99999,/0/default.jpg", 400),
        ("full/full/0/default.jpg", 400),
        ("full/max/45/default.jpg", 400),
        ("full/max/0/native.jpg", 400),
        ("full/max/0/default.tif", 400),
        ("full/max/0/default.JPG", 400),
        ("full/max/0/default", 404),
        ("max/0/default.jpg", 404),
        (f"full/{'9' * 300}/0/default.jpg", 400),
        ("%FF/max/0/default.jpg", 400),
        ("full/%5Emax/0/default.jpg", 200),
        ("pct%3A0%2C0%2C50%2C50/max/%210/default.jpg", 200),
    ],
)
def test_the_specifications_statuses(zoom: Site, path: str, status: int) -> None:
    """Protects 7.3: what the grammar or the limits forbid is 400, what is not there 404; each part may be percent-encoded."""
    answer = zoom.get(f"{TILES}/{path}")
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "*"
    if status >= 400:
        told(answer)


def test_what_is_not_there(zoom: Site) -> None:
    """Protects 3: unknown archives, keys and entries that are no image are 404 for every kind of address."""
    for end in ("", "/info.json", "/manifest.json", "/full/max/0/default.jpg"):
        for base in ("/iiif/3/demo/none.png", "/iiif/3/none/tiles.png"):
            assert zoom.get(base + end).status_code == 404
    assert zoom.get(f"{at('page.html.jpg')}/full/max/0/default.jpg").status_code == 404
    assert zoom.get("/iiif/3/none").status_code == 404


def test_limits_are_told_and_kept(images: Rescaled) -> None:
    """Protects the service: its limits are info.json's, and `max` and all sizes keep to them; more is 400."""
    site = Site(images, limits=Limits(largest_side=400, most_pixels=100_000))
    with closing(site.shelf):
        info = site.get("/iiif/3/demo/deep.png/info.json").json()
        assert (info["maxWidth"], info["maxArea"]) == (400, 100_000)
        assert opened(site.get("/iiif/3/demo/deep.png/full/^max/0/default.jpg")).size == (353, 282)
        assert site.get("/iiif/3/demo/deep.png/full/^401,/0/default.jpg").status_code == 400
    site = Site(images, limits=Limits(most_pixels=50_000))
    with closing(site.shelf):
        info = site.get(f"{TILES}/info.json").json()  # of more pixels than are restored: there is its LR
        assert info["maxArea"] == 270 * 50
        assert max(size["width"] for size in info["sizes"]) == 270
        assert opened(site.get(f"{TILES}/full/max/0/default.jpg")).size == (270, 50)
        assert opened(site.get(f"{TILES}/100,0,64,64/max/0/default.jpg")).size == (64, 64)


def test_what_cannot_be_given_is_not_there(images: Rescaled) -> None:
    """Protects viewers: an image of which any view is beyond the limits has no address, and no manifest in the collection."""
    site = Site(images, limits=Limits(most_pixels=1000))
    with closing(site.shelf):
        for end in ("info.json", "manifest.json", "full/max/0/default.jpg", "0,0,9,9/9,9/0/default.jpg"):
            answer = site.get(f"{TILES}/{end}")
            assert (answer.status_code, told(answer)) == (404, "not-kept")
            assert site.get(f"{at('alpha.png')}/{end}").status_code == 200
        for item in site.get("/iiif/3/demo").json()["items"]:
            assert site.get(item["id"].removeprefix(HERE)).status_code == 200
            assert item["label"] != {"none": ["tiles.png"]}


def test_other_sites_may_ask(images: Rescaled) -> None:
    """Protects viewers elsewhere, and the token: preflights need none and name the header for it; refusals can be read."""
    site = Site(images, token=TOKEN, origin="*")
    with closing(site.shelf):
        asked = {"origin": "https://viewer.example", "access-control-request-method": "GET",
                 "access-control-request-headers": "authorization"}  # fmt: skip
        preflight = site.client.options(f"{TILES}/info.json", headers=asked)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "*")
        assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
        refused, let_in = site.get(f"{TILES}/info.json"), site.get(f"{TILES}/info.json", authorization=f"Bearer {TOKEN}")
        assert (refused.status_code, let_in.status_code) == (401, 200)
        for answer in (refused, let_in):
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        for path in ("/archives", "/archives/demo/assets/tiles.png"):
            answer = site.get(path, authorization=f"Bearer {TOKEN}")
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_no_other_site_may_ask_unless_it_is_named(images: Rescaled) -> None:
    """Protects archives on one's own machine: a page that is visited reads and embeds nothing; a named origin is told."""
    for origin in (None, "https://viewer.example"):
        site = Site(images, origin=origin)
        with closing(site.shelf):
            answer = site.get(f"{TILES}/info.json", origin="https://viewer.example")
            assert answer.status_code == 200
            assert answer.headers.get("access-control-allow-origin") == origin
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert site.client.options(f"{TILES}/info.json").status_code == (204 if origin else 405)


def test_addresses_are_those_asked_at(zoom: Site) -> None:
    """Protects links: they have the host that was asked; a Host that is none is refused and never told again."""
    assert zoom.get(f"{TILES}/info.json", host="localhost:8080").json()["id"] == f"http://localhost:8080{TILES}"
    assert zoom.get(f"{TILES}/info.json", host="[::1]:80").json()["id"] == f"http://[::1]:80{TILES}"
    assert zoom.get(f"{TILES}/info.json", host='localhost>;rel="x":80').status_code in (400, 421)


def test_a_public_address_stands_for_the_one_asked_at(images: Rescaled) -> None:
    """Protects services behind TLS and paths: all addresses begin as others know the service, whatever a request claims."""
    public = "https://archive.example/img"
    site = Site(images, public_address=public)
    with closing(site.shelf):
        claimed = {"x_forwarded_host": "evil.example", "x_forwarded_proto": "http", "forwarded": "host=evil.example"}
        for path, own in ((f"{TILES}/info.json", TILES), ("/iiif/3/demo", "/iiif/3/demo")):
            assert site.get(path, **claimed).json()["id"] == public + own
        link = site.get(f"{TILES}/full/9,/0/default.jpg", **claimed).headers["link"]
        assert f'<{public}{TILES}/full/9,2/0/default.jpg>;rel="canonical"' in link
        assert site.get(f"{TILES}/info.json", host="archive.example").status_code == 421


def test_a_manifest_leads_to_the_image(zoom: Site) -> None:
    """Protects Mirador and its like: a canvas of the image's size, painted with an image and a service that are there."""
    for key in ("tiles.png", TURNED):
        answer = zoom.get(f"{at(key)}/manifest.json")
        manifest = answer.json()
        assert (answer.headers["content-type"], manifest["type"]) == (PRESENTATION_LD, "Manifest")
        assert manifest["id"] == f"{HERE}{at(key)}/manifest.json"
        assert manifest["label"] == {"none": ["A turned view" if key == TURNED else key]}
        assert ("requiredStatement" in manifest, "rights" in manifest) == (key == TURNED, key == TURNED)
        (canvas,) = manifest["items"]
        ((annotation,),) = [page["items"] for page in canvas["items"]]
        assert (annotation["motivation"], annotation["target"]) == ("painting", canvas["id"])
        for body in (annotation["body"], *manifest["thumbnail"]):
            assert opened(zoom.get(body["id"].removeprefix(HERE))).size == (body["width"], body["height"])
            (service,) = body["service"]
            info = zoom.get(f"{service['id'].removeprefix(HERE)}/info.json").json()
            assert info["id"] == service["id"]
        assert (canvas["width"], canvas["height"]) == (info["width"], info["height"])
        assert zoom.get(manifest["seeAlso"][0]["id"].removeprefix(HERE)).json()["key"] == key
        assert zoom.get(manifest["partOf"][0]["id"].removeprefix(HERE)).json()["type"] == "Collection"


def test_a_collection_has_pages(zoom: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects large archives: a collection is a page of manifests and leads to the next; all pages have every image once."""
    monkeypatch.setattr(routes, "PAGE", 2)
    found, following = list[str](), ["/iiif/3/demo"]
    while following:
        page = zoom.get(following[0]).json()
        assert (page["type"], page["id"]) == ("Collection", HERE + following[0])
        found += [each["id"] for each in page["items"] if each["type"] == "Manifest"]
        following = [each["id"].removeprefix(HERE) for each in page["items"] if each["type"] == "Collection"]
        assert all("label" in each for each in page["items"])
    assert found == [f"{HERE}{at(key)}/manifest.json" for key in KEYS]


segments = st.sampled_from(
    ["full", "square", "0,0,9,9", "pct:0,0,50,50", "max", "^max", "9,", ",9", "!9,9", "pct:5", "0", "!90", "45", "default.jpg",
     "gray.png", "bitonal.webp", "color.avif", "x.y.z", "info.json", "manifest.json", "..", "%2F", "%FF", "", "9" * 30]
) | st.text(max_size=12).map(lambda text: quote(text, safe=""))  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])
@example(parts=["full", "^max", "0", "default.avif"], host="127.0.0.1", accept="")
@given(
    parts=st.lists(segments, max_size=5),
    host=st.sampled_from(["127.0.0.1", "localhost:1", "x"]),
    accept=st.text("*/,;=q01-", max_size=20),
)
def test_no_address_ends_in_a_500(zoom: Site, parts: list[str], host: str, accept: str) -> None:
    """Protects the service from anything at all below an entry: an image, a document, or a sentence with a fitting status."""
    answer = zoom.get("/".join([at("grey.png"), *parts]), host=host, accept=accept)
    assert answer.status_code in (200, 303, 400, 404, 421)
    if answer.status_code >= 400:
        told(answer)
    elif "json" in answer.headers.get("content-type", ""):
        assert json.loads(answer.content)
