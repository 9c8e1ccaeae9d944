"""What stands before the service: tokens, names of hosts, and paths that are tricks."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.support.http_site import ENTRY, TOKEN, Site, told
from tests.support.workshop import Rescaled


def test_a_token_is_asked_for_where_there_is_one(archive: Rescaled) -> None:
    """Protects what is private: nothing of an archive comes without the token; pages that hold nothing of it do."""
    site = Site(archive, token=TOKEN)
    with closing(site.shelf):
        for path in (
            "/archives",
            "/archives/demo/assets",
            ENTRY,
            f"{ENTRY}/lr",
            f"{ENTRY}/image",
            "/metrics",
            "/nothing",
            "/healthz/x",
        ):
            for headers in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": TOKEN},
                {"authorization": f"Basic {TOKEN}"},
            ):
                answer = site.get(path, **headers)
                assert (answer.status_code, told(answer)) == (401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert site.get(f"{ENTRY}/lr", authorization=f"Bearer {TOKEN}").headers["cache-control"].startswith("private,")
        for path in ("/healthz", "/docs", "/openapi.json"):
            assert site.get(path).status_code == 200
        assert (
            site.client.get("/archives", headers={"authorization": f"bearer {TOKEN}", "host": "example.org"}).status_code == 200
        )


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "evil@localhost:80x.org", "", "localhost.:8080"])
def test_a_web_page_cannot_reach_loopback_by_a_name_of_its_own(site: Site, host: str) -> None:
    """Protects a service without a token from pages in the same machine's browser (DNS rebinding)."""
    answer = site.get("/archives", host=host)
    assert (answer.status_code, told(answer)) == (421, "wrong-host")
    for own in ("127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "[::1]"):
        assert site.get("/archives", host=own).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/archives/demo/assets/..%2f..%2fplan.json/lr", 404),
        ("/archives/demo/assets/%2e%2e/lr", 404),
        ("/archives/demo/assets/a%20b/%2e%2e/a%20b/001.jpg/lr", 404),
        ("/archives/demo/assets/a%20b/%2e%2e/001.jpg", 404),
        ("/archives/demo/assets/a%20b//001.jpg/lr", 404),
        ("/archives/demo/assets/a%20b%2F001.jpg%00/lr", 404),
        ("/archives/demo/assets/%00", 404),
        ("/archives/demo/assets/%ff%fe/lr", 422),
        ("/archives/demo/assets/%/lr", 404),
        ("/archives/demo/assets//lr", 404),
        ("/archives/demo%2fassets/assets", 404),
        ("/archives/..%2fdemo/assets", 404),
        ("/archives/demo/assets/" + "x" * 9000, 414),
        ("/archives/demo/assets?prefix=" + "x" * 20_000, 414),
        ("/archives/demo/assets?limit=0", 422),
        ("/archives/demo/assets?limit=99999999999999999999999", 422),
        ("/archives/demo/assets?psnr_min=nan", 422),
        ("/archives/demo/assets?tier=cheap", 422),
        ("/archives/demo/assets?prefix=%ff&contains=%00", 200),
        (f"{ENTRY}/image?max_side=0", 422),
        (f"{ENTRY}/image?max_side=1e999", 422),
        (f"{ENTRY}/image?scale=inf", 422),
        (f"{ENTRY}/image?scale=1e-300", 422),
        (f"{ENTRY}/image?size=9999999x9999999", 422),
        (f"{ENTRY}/image?size=5x5&scale=1", 422),
        (f"{ENTRY}/image?format=gif", 422),
        (f"{ENTRY}/image?latent=2", 422),
        ("/archives/demo/assets/page.html.jpg/image", 422),
        ("/archives/demo/assets/page.html.jpg/lr", 404),
        ("/gallery/..%2f..%2fpyproject.toml", 404),
        ("/gallery/%2e%2e/cli.py", 404),
    ],
)  # fmt: skip
def test_tricks_get_a_sentence(site: Site, path: str, status: int) -> None:
    """Protects the service from paths and parameters that lead out, are huge, or make no sense: 4xx, as JSON, never a 500."""
    answer = site.get(path)
    assert answer.status_code == status
    if status != 200 and not path.startswith("/gallery"):
        told(answer)


def test_only_reading_is_there(site: Site) -> None:
    """Protects archives: no method but GET and HEAD does anything."""
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = site.client.request(method, f"{ENTRY}/lr")
        assert (answer.status_code, told(answer)) == (405, "method-not-allowed")
