"""The service over HTTP, in this process: routes, errors as sentences, figures, and no 500."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.web.http.shapes import status_of
from pipeline.pictures.region import Region
from pipeline.reading.errors import Overloaded, ServiceError
from pipeline.reading.requests import ImageRequest
from tests.pipeline.core.test_errors import LEAVES, example_of
from tests.support.http_site import ENTRY, SAMPLES, Site, told
from tests.support.workshop import Rescaled, Sample, as_tar, noise, rescale, samples


@pytest.mark.slow
def test_every_entry_is_found_by_its_encoded_key(site: Site) -> None:
    """Protects keys: spaces, slashes, per cent, hash, question mark and letters beyond ASCII; links lead where they say."""
    listed = site.get("/archives/demo/assets").json()
    assert [asset["key"] for asset in listed["assets"]] == sorted(sample.key for sample in SAMPLES)
    assert (listed["next"], listed["total"]) == (None, len(SAMPLES))
    for asset in listed["assets"]:
        path = f"/archives/demo/assets/{quote(asset['key'], safe='')}"
        found = site.get(path)
        assert found.status_code == 200
        assert found.json()["key"] == asset["key"]
        for name, link in asset["links"].items():
            if link is not None:
                address = urljoin("/archives/demo/assets?limit=100", link)
                assert address == urljoin(path, found.json()["links"][name]) == f"{path}/{name}?v={site.shelf.version}"
                assert site.get(address).status_code == (422 if (name, asset["kind"]) == ("image", "original") else 200)


def test_archives_are_told(site: Site) -> None:
    """Protects the first page: the archive's name, its counts and bytes, the digest of its plan."""
    (told,) = site.get("/archives").json()["archives"]
    shards = sum(path.stat().st_size for path in Path(site.rescaled.uri, "shards").iterdir())
    assert told["name"] == "demo"
    assert (told["entries"], told["originals"], told["bytes"]) == (len(SAMPLES), 1, shards)
    assert told["source_bytes"] == sum(len(sample.data) for sample in SAMPLES)
    assert told["digest"] == site.rescaled.archive.digest


def test_bytes_are_those_of_the_service(site: Site) -> None:
    """Protects the last step: over HTTP an LR, an original and an image are the bytes that the service has."""
    place = site.shelf.place("a b/001.jpg")
    lr = site.get(f"{ENTRY}/lr")
    assert (lr.content, lr.headers["content-type"]) == (site.shelf.lr(place).data, "image/avif")
    assert lr.headers["etag"] == f'"{hashlib.sha256(lr.content).hexdigest()}"'
    own = site.get("/archives/demo/assets/page.html.jpg/original")
    assert own.content == b"<script>alert(1)</script>"
    assert own.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in own.headers["content-security-policy"]
    asked = {
        "max_side=20": {"max_side": 20},
        "scale=0.5&latent=0": {"scale": 0.5, "use_latent": False},
        "size=9x7": {"size": (7, 9)},
        "region=2,3,14,9": {"region": Region(2, 3, 14, 9)},
        "region=2,3,14,9&max_side=5": {"region": Region(2, 3, 14, 9), "max_side": 5},
    }
    for query, options in asked.items():
        image = site.get(f"{ENTRY}/image?{query}&format=webp&quality=70")
        expected = site.backend.restorer.restore(place, ImageRequest(form="webp", quality=70, **options))  # type: ignore[arg-type]
        assert (image.content, image.headers["content-type"]) == (expected.data, "image/webp")


def test_a_region_is_an_image_of_its_own(site: Site) -> None:
    """Protects caches and clients: each region has an ETag of its own, and one that is none of the image is 400, told why."""
    tags = {site.get(f"{ENTRY}/image{query}").headers["etag"] for query in ("", "?region=0,0,9,9", "?region=0,1,9,9")}
    assert len(tags) == 3
    (tag,) = {site.get(f"{ENTRY}/image?region=0,1,9,9").headers["etag"]} & tags
    assert site.get(f"{ENTRY}/image?region=0,1,9,9", if_none_match=tag).status_code == 304
    for text in ("", "1,2,3", "0,0,0,1", "-1,0,2,2", "0,0,5000,1", "999999999,0,1,1", "a,b,c,d", "0,0,1,1,"):
        answer = site.get(f"{ENTRY}/image?region={text}")
        assert (answer.status_code, told(answer)) == (400, "invalid-region")
    assert "region" in str(site.get("/openapi.json").json()["paths"]["/archives/{archive}/assets/{key}/image"])


def test_damage_is_said_to_be_damage(tmp_path: Path) -> None:
    """Protects readers of errors: a flipped bit in the archive is 502, with a sentence; the other entries come as ever."""
    kept = [Sample(key=f"{n}.jpg", data=noise(n)) for n in range(2)]
    rescaled = rescale(as_tar(tmp_path / "source", [*kept, *samples(2, folder="z/")]), tmp_path / "archive")
    (path,) = (tmp_path / "archive" / "shards").iterdir()
    data = bytearray(path.read_bytes())
    data[data.index(kept[1].data) + 100] ^= 1
    path.write_bytes(data)
    site = Site(rescaled)
    with closing(site.shelf):
        for part in ("original", "image", ""):
            answer = site.get(f"/archives/demo/assets/1.jpg/{part}".rstrip("/"))
            assert (answer.status_code, told(answer)) == (502, "damaged")
        assert site.get("/archives/demo/assets/0.jpg/original").content == kept[0].data
        assert site.get("/archives/demo/assets/z%2F001.jpg/image").status_code == 200
        assert site.get("/archives/demo/assets").json()["total"] == 4


def test_every_error_has_a_status(fresh: Site) -> None:
    """Protects against 500: whichever error of the tree a restore ends with, its answer is 4xx, 502 or 503, in a sentence."""
    for number, kind in enumerate(LEAVES):
        fresh.backend.fault = example_of(kind)
        answer = fresh.get(f"{ENTRY}/image?max_side={number + 1}")
        assert answer.status_code == status_of(fresh.backend.fault)[0]
        assert answer.status_code in (404, 409, 422, 502, 503)
        told(answer)
        assert ("retry-after" in answer.headers) == (answer.status_code == 503)
    assert issubclass(Overloaded, ServiceError)


def test_figures_for_prometheus(fresh: Site) -> None:
    """Protects operations: requests by route and status, restored pixels, hits of the cache; keys are no labels."""
    for path in (f"{ENTRY}/image", f"{ENTRY}/image", f"{ENTRY}/lr", "/archives/demo/assets/none", "/elsewhere"):
        fresh.get(path)
    text = fresh.get("/metrics").text
    image = "/archives/{archive}/assets/{key}/image"
    assert f'iarn_requests_total{{method="GET",route="{image}",status="200"}} 2.0' in text
    assert 'iarn_requests_total{method="GET",route="other",status="404"} 1.0' in text
    assert 'iarn_restores_total{outcome="done"} 1.0' in text
    height, width = 23, 30
    assert f"iarn_restored_pixels_total {float(height * width)}" in text
    assert "iarn_cache_hits_total 1.0" in text
    assert "iarn_workers 1.0" in text
    assert "iarn_requests_under_way 1.0" in text
    assert "001.jpg" not in text


def test_pages_ask_nothing_of_others(site: Site) -> None:
    """Protects privacy: the description has no script and no address elsewhere; the root leads to the gallery."""
    page = site.get("/docs")
    assert page.status_code == 200
    assert "/archives/{archive}/assets/{key}/image" in page.text
    assert "://" not in page.text
    assert "<script" not in page.text
    assert [site.get(path).headers["location"] for path in ("/", "/gallery")] == ["gallery/", "gallery/"]
    assert "href=openapi.json" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]


keys = st.sampled_from([sample.key for sample in SAMPLES]) | st.text(max_size=40)
values = st.sampled_from(
    ["", "0", "1", "-1", "0.5", "4", "1e400", "nan", "10x10", "png", "webp", "x" * 2000, "\0", "é", "9" * 400]
)
names = st.sampled_from(
    ["max_side", "scale", "size", "format", "quality", "latent", "shard", "limit", "after", "prefix", "tier", "v", "?"]
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    key=keys,
    part=st.sampled_from(["", "/lr", "/image", "/original", "/", "/..", "/x"]),
    query=st.dictionaries(names, values, max_size=3),
    headers=st.dictionaries(
        st.sampled_from(["accept", "range", "if-none-match", "if-range"]), st.text('*/,;=q01-" bytesx', max_size=20)
    ),
)
def test_no_key_and_no_parameter_ends_in_a_500(
    site: Site, key: str, part: str, query: dict[str, str], headers: dict[str, str]
) -> None:
    """Protects the service from anything at all: every answer is a file, a range of it, or a sentence with a fitting status."""
    query = {"max_side": "8", **query} if part == "/image" and "size" not in query and "scale" not in query else query
    answer = site.client.get(f"/archives/demo/assets/{quote(key, safe='')}{part}", params=query, headers=headers)
    assert answer.status_code in (200, 206, 304, 400, 404, 414, 416, 422)
    if answer.status_code >= 400:
        told(answer)


@pytest.mark.slow
def test_the_description_is_true(archive: Rescaled) -> None:
    """Protects programs made from the description: whatever they send, answers have the statuses and shapes told."""
    made = Site(archive, hosts=frozenset({"localhost", "testserver"}))
    with closing(made.shelf):
        schema = schemathesis.openapi.from_asgi("/openapi.json", made.app)
        operations = [found.ok() for found in schema.get_all_operations()]
        assert {operation.path for operation in operations} >= {"/archives", "/archives/{archive}/assets/{key}/image"}
        for operation in operations:

            @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy())
            def holds(case: Any) -> None:
                if case.path_parameters and "archive" in case.path_parameters:
                    case.path_parameters["archive"] = "demo"
                if case.path_parameters and "key" in case.path_parameters and len(case.path_parameters["key"]) % 2:
                    case.path_parameters["key"] = "a b/001.jpg"
                # No schema says that of scale, size and max_side there may be one, or how large an image may become.
                case.call_and_validate(excluded_checks=[schemathesis.checks.positive_data_acceptance])

            holds()
