"""Queries: parameters that a route has not, and those given twice, are refused with the names of those that it has."""

from __future__ import annotations

import pytest

from tests.support.http_site import ENTRY, Site, told

IMAGE = "/iiif/3/demo/a%20b%2F001.jpg"


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/archives", "none"), ("/archives/demo/assets", "prefix, contains, kind"), (ENTRY, "shard, v"),
        (f"{ENTRY}/lr", "shard, v"), (f"{ENTRY}/original", "shard, v"), (f"{ENTRY}/image", "max_side, scale, size"),
        ("/healthz", "none"), ("/metrics", "none"),
        ("/", "none"), ("/iiif/3/demo", "after"), (IMAGE, "none"), (f"{IMAGE}/info.json", "none"),
        (f"{IMAGE}/manifest.json", "none"), (f"{IMAGE}/full/max/0/default.jpg", "none"),
    ],
)  # fmt: skip
def test_a_parameter_that_is_not_there_is_refused(site: Site, path: str, known: str) -> None:
    """Protects clients from words that are passed over, as a misspelt `maxside`: 400, with what there is."""
    for query in ("maxside=10", "x", "=1", "max_side%20=1", "%ff=1", "MAX_SIDE=1"):
        answer = site.get(f"{path}?{query}")
        assert (answer.status_code, told(answer)) == (400, "bad-request"), query
        assert known in answer.json()["error"]["message"]
    assert site.get(f"{path}?").status_code == site.get(path).status_code


def test_a_parameter_is_given_once(site: Site) -> None:
    """Protects caches and clients: of two values nobody can tell which was meant."""
    for path in (
        f"{ENTRY}/image?max_side=9&max_side=9",
        "/archives/demo/assets?limit=1&limit=2",
        "/iiif/3/demo?after=a&after=b",
    ):
        answer = site.get(path)
        assert (answer.status_code, told(answer)) == (400, "bad-request")
        assert "2 times" in answer.json()["error"]["message"]
    assert site.get("/iiif/3/demo?after=a").status_code == 200
