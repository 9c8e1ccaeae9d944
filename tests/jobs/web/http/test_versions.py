"""Addresses with a version: good for ever, of one archive alone; those without one are asked for again each time."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from urllib.parse import urljoin

import pytest

from pipeline.core.records import Tier
from pipeline.core.target import TargetSize
from tests.support.http_site import ENTRY, TOKEN, Site, told
from tests.support.workshop import Rescaled, Sample, as_tar, picture, rescale

IMAGE = "/iiif/3/{}/a%20b%2F001.jpg"
FOREVER = "public, max-age=31536000, immutable"


@pytest.mark.parametrize("part", ["lr", "image", "original"])
def test_an_address_with_a_version_is_good_for_ever(site: Site, part: str) -> None:
    """Protects caches: what links lead to never has to be asked for again, whole, in part, or as unchanged; nor by HEAD."""
    entry = ENTRY if part != "original" else "/archives/demo/assets/page.html.jpg"
    link = urljoin(entry, site.get(entry).json()["links"][part])
    answers = [site.get(link), site.get(link, range="bytes=0-3"), site.client.head(link)]
    answers.append(site.get(link, if_none_match=answers[0].headers["etag"]))
    assert [answer.status_code for answer in answers] == [200, 206, 200, 304]
    assert {answer.headers["cache-control"] for answer in answers} == {FOREVER}
    assert answers[0].content == site.get(f"{entry}/{part}").content


def test_an_address_of_another_version_leads_nowhere(site: Site) -> None:
    """Protects against old bytes under a new name, and new ones under an old: a version is the archive's own or it is 404."""
    other = "0123456789ab"
    paths = [f"{ENTRY}{part}?v={other}" for part in ("", "/lr", "/image")]
    paths += [
        f"{IMAGE.format(f'demo@{other}')}{part}" for part in ("", "/info.json", "/manifest.json", "/full/max/0/default.jpg")
    ]
    for path in (*paths, f"/iiif/3/demo@{other}"):
        answer = site.get(path)
        assert (answer.status_code, told(answer), answer.headers["cache-control"]) == (404, "not-found", "no-store"), path
        assert site.shelf.version in answer.json()["error"]["message"]
    for wrong in ("", "x", site.shelf.version[:-1], site.shelf.version.upper() + "0"):
        assert site.get(f"{ENTRY}/lr?v={wrong}").status_code == 422


def test_the_iiif_has_versions_in_its_paths(site: Site) -> None:
    """Protects viewers: a manifest shows an image by an address with a version, whose tiles are good for ever; identities are
    addresses without one, and an info.json is at the address that it names."""
    manifest = site.get(f"{IMAGE.format('demo')}/manifest.json").json()
    assert "@" not in manifest["id"] + manifest["items"][0]["id"] + manifest["partOf"][0]["id"]
    body = manifest["items"][0]["items"][0]["items"][0]["body"]
    base = body["service"][0]["id"]
    assert base == f"http://127.0.0.1{IMAGE.format(f'demo@{site.shelf.version}')}"
    assert body["id"].startswith(f"{base}/")
    assert site.get(f"{base}/info.json").json()["id"] == base
    tile, plain = site.get(body["id"]), site.get(body["id"].replace(f"@{site.shelf.version}", ""))
    assert (tile.headers["cache-control"], plain.headers["cache-control"]) == (FOREVER, "public, no-cache")
    assert (tile.content, tile.headers["etag"]) == (plain.content, plain.headers["etag"])
    assert site.get(body["id"].replace("@", "%40")).content == tile.content
    assert site.get(IMAGE.format("demo") + "/info.json").json()["id"] == f"http://127.0.0.1{IMAGE.format('demo')}"


def test_lists_and_figures_are_never_old(site: Site) -> None:
    """Protects readers: a list is asked for again each time, and the service's figures are kept nowhere."""
    for path in ("/archives", "/archives/demo/assets", ENTRY):
        assert site.get(path).headers["cache-control"] == "no-cache"
    assert site.get("/metrics").headers["cache-control"] == "no-store"


def test_what_needs_a_token_is_for_one_client(archive: Rescaled) -> None:
    """Protects what is private: with a token no shared cache keeps anything, with a version or without."""
    site = Site(archive, token=TOKEN)
    with closing(site.shelf):
        for query, expected in (
            ("", "private, no-cache"),
            (f"?v={site.shelf.version}", "private, max-age=31536000, immutable"),
        ):
            answer = site.get(f"{ENTRY}/lr{query}", authorization=f"Bearer {TOKEN}")
            assert answer.headers["cache-control"] == expected


def test_an_archive_made_anew_is_another(tmp_path: Path) -> None:
    """Protects against old bytes: an archive that was removed and made again at its place is seen at the next look; until
    then nothing of it is mixed with the old one, and no cache of either serves the other's."""
    source = as_tar(tmp_path / "source", [Sample(key=f"{n}.png", data=picture(40, 42, seed=n)) for n in range(3)])
    site = Site(rescale(source, tmp_path / "archive", tier=Tier.LEAN))
    entry = "/archives/demo/assets/1.png"
    old = {part: site.get(f"{entry}/{part}") for part in ("lr", "image")}
    link = urljoin(entry, site.get(entry).json()["links"]["lr"])
    shutil.rmtree(tmp_path / "archive")
    assert site.get(f"{entry}/image?max_side=9").status_code in (502, 503)
    rescale(source, tmp_path / "archive", tier=Tier.LEAN, target=TargetSize(scale=(1.5, 1.5)))
    answer = site.get("/archives/demo/assets/2.png/lr")
    assert (answer.status_code, told(answer)) == (503, "overloaded")
    site.library.look()
    assert (site.get(link).status_code, site.get(f"{entry}/lr").status_code) == (404, 200)
    for part, before in old.items():
        after = site.get(f"{entry}/{part}", if_none_match=before.headers["etag"])
        assert (after.status_code, after.content != before.content) == (200, True)
    again = urljoin(entry, site.get(entry).json()["links"]["lr"])
    assert (again != link, site.get(again).headers["cache-control"]) == (True, FOREVER)
    assert site.get("/archives/demo/assets").json()["total"] == 3
    site.library.close()
