"""What proxies say of a request: believed of trusted ones alone, read from the right, and never a wrong address."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.web.front.forwarded import Asked, Misforwarded, asked_of
from tests.support.http_site import TOKEN, Site, told
from tests.support.workshop import Rescaled, sentence

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
OWN = Asked(client="10.0.0.1", scheme="http", host="inner:8080")


def scope_of(headers: Sequence[tuple[str, str]], client: str = "10.0.0.1") -> dict[str, Any]:
    """Return the scope of a request to inner:8080, without TLS."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return {"client": (client, 5), "scheme": "http", "headers": [(b"host", b"inner:8080"), *raw]}


def asked(*headers: tuple[str, str], client: str = "10.0.0.1") -> Asked:
    """Return what a request with some headers was asked at."""
    return asked_of(scope_of(headers, client), TRUSTED)


def test_a_trusted_proxy_is_believed() -> None:
    """Protects addresses behind a proxy: scheme, host, prefix and client are what it says, in either way to say it."""
    outer = Asked(client="192.0.2.7", scheme="https", host="a.example", prefix="/img")
    x_forwarded = (("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "HTTPS"), ("X-Forwarded-Host", "a.example"))
    assert asked(*x_forwarded, ("X-Forwarded-Prefix", "/img/")) == outer
    assert asked(("Forwarded", 'for="192.0.2.7:4711"; proto=https ;host=a.example'), ("X-Forwarded-Prefix", "/img")) == outer
    assert outer.root == "https://a.example/img"
    six = asked(("Forwarded", 'For="[2001:DB8::1]:99";Host="[2001:db8::5]:443";PROTO=https'))
    assert (six.client, six.root) == ("2001:db8::1", "https://[2001:db8::5]:443")
    assert asked(("X-Forwarded-For", "192.0.2.7"), client="::ffff:10.0.0.1").client == "192.0.2.7"
    assert asked() == OWN


def test_others_are_not_believed() -> None:
    """Protects everybody: from whom is not trusted, or is no address at all, nothing counts but the request itself."""
    told = (("Forwarded", "for=1.2.3.4;host=evil.example;proto=https"), ("X-Forwarded-Prefix", "/evil"))
    for client in ("192.0.2.9", "11.0.0.1", "fe80::1", "testclient", ""):
        found = asked(*told, client=client)
        assert found == Asked(client=client, scheme="http", host="inner:8080")
    assert asked_of({**scope_of(told), "client": None}, TRUSTED).client == ""


def test_chains_are_read_from_the_right() -> None:
    """Protects logs and addresses: what a client wrote itself stands left of what trusted proxies added, and is nothing."""
    forged = "for=6.6.6.6;host=evil.example;proto=https"
    inner = "for=10.0.0.2;host=inner:8080;proto=http"
    outer = "for=192.0.2.7;host=a.example;proto=https"
    assert asked(("Forwarded", f"{forged}, {outer}, {inner}")).root == "https://a.example"
    assert asked(("Forwarded", f"{forged}, {outer}"), ("Forwarded", inner)).client == "192.0.2.7"
    assert asked(("Forwarded", f"{forged}, {outer}")).host == "a.example"
    chain = asked(
        ("X-Forwarded-For", "6.6.6.6, 192.0.2.7, 10.0.0.2"),
        ("X-Forwarded-Host", "evil.example, a.example, inner:8080"),
        ("X-Forwarded-Proto", "https"),  # set by the outer one, and passed on
    )
    assert chain == Asked(client="192.0.2.7", scheme="https", host="a.example")
    assert asked(("X-Forwarded-For", "6.6.6.6, nonsense, 10.0.0.2")).client == "10.0.0.2"
    assert asked(("Forwarded", "for=6.6.6.6, for=unknown;host=a.example")) == Asked(
        client="10.0.0.1", scheme="http", host="a.example"
    )
    assert asked(("X-Forwarded-For", "10.0.0.3, 10.0.0.2")).client == "10.0.0.3"


@pytest.mark.parametrize(
    "headers",
    [
        {"Forwarded": "for=1.2.3.4", "X-Forwarded-Host": "evil.example"},
        {"Forwarded": 'for="1.2.3.4, for=192.0.2.7;host=a.example'},
        {"Forwarded": "for=1.2.3.4;for=1.2.3.5"},
        {"Forwarded": "for=1.2.3.4 host=a"},
        {"Forwarded": "nothing"},
        {"Forwarded": "for=1.2.3.4,"},
        {"Forwarded": 'for=1.2.3.4;host="a.example/x"'},
        {"Forwarded": "for=1.2.3.4;proto=javascript"},
        {"X-Forwarded-Host": "a.example@evil.example"},
        {"X-Forwarded-Host": "a.example, "},
        {"X-Forwarded-Host": "a b"},
        {"X-Forwarded-Proto": "gopher"},
        {"X-Forwarded-Prefix": "//evil.example"},
        {"X-Forwarded-Prefix": "/a/../b"},
        {"X-Forwarded-Prefix": "/./a"},
        {"X-Forwarded-Prefix": "/a?b"},
        {"X-Forwarded-Prefix": "/%2"},
        {"X-Forwarded-Prefix": "img"},
        {"X-Forwarded-For": "1.2.3.4, 10.0.0.3, 10.0.0.2", "X-Forwarded-Host": "evil.example, a.example"},
    ],
)
def test_what_makes_no_address_is_refused(headers: dict[str, str]) -> None:
    """Protects documents that others keep: rather none than one with a wrong address; the sentence says what to do."""
    with pytest.raises(Misforwarded) as caught:
        asked(*headers.items())
    sentence(str(caught.value))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Prefix", "Host"]
            ),
            st.text(st.sampled_from('for=host;proto,https":[]\\./%@ \té1A\x7f'), max_size=40),
        ),
        max_size=5,
    ),
    st.sampled_from(["10.0.0.1", "192.0.2.9"]),
)
def test_nothing_comes_of_nonsense(headers: list[tuple[str, str]], client: str) -> None:
    """Protects the service from headers of anybody: they are refused, or make an address of plain characters."""
    try:
        found = asked(*headers, client=client)
    except Misforwarded:
        assert client == "10.0.0.1"
        return
    root = found.root
    assert root is None or not set(root) & set('"<> \\\t\x7fé@?#')


addresses = st.ip_addresses(v=4).filter(lambda each: each not in TRUSTED[0]).map(str)
tokens = st.text("abc", min_size=1, max_size=5)


@given(
    forged=st.lists(st.tuples(addresses, tokens), max_size=3),
    client=addresses,
    host=tokens,
    inner=st.lists(st.integers(2, 250).map("10.1.0.{}".format), max_size=3),
    rfc=st.booleans(),
)
def test_proxies_that_add_themselves(
    forged: list[tuple[str, str]], client: str, host: str, inner: list[str], rfc: bool
) -> None:
    """Protects the reading as such: whatever is forged, and however many proxies follow, the outermost's word counts."""
    way = [*forged, (client, host), *((address, "inner") for address in inner)]
    if rfc:
        headers = [("Forwarded", ", ".join(f"for={address};host={name};proto=https" for address, name in way))]
    else:
        headers = [
            ("X-Forwarded-For", ", ".join(address for address, _ in way)),
            ("X-Forwarded-Host", ", ".join(name for _, name in way)),
        ]
    found = asked(*headers)
    assert (found.client, found.host) == (client, host)


def test_documents_have_the_address_of_the_client(archive: Rescaled) -> None:
    """Protects viewers: a trusted proxy's word begins the addresses in documents, unless the service was told its own."""
    headers = {"x_forwarded_proto": "https", "x_forwarded_host": "a.example", "x_forwarded_prefix": "/img"}
    path = "/iiif/3/demo/a%20b%2F001.jpg/info.json"
    everyone = (ip_network("0.0.0.0/0"),)
    for options, root in (
        ({"trusted": everyone}, "https://a.example/img"),
        ({"trusted": everyone, "public_address": "https://b.example"}, "https://b.example"),
        ({}, None),
        ({"trusted": (ip_network("192.0.2.1"),)}, None),
    ):
        site = Site(archive, **options, client=("127.0.0.9", 1))
        with closing(site.shelf):
            shown = root or "http://127.0.0.1"
            assert site.get(path, **headers).json()["id"].startswith(f"{shown}/iiif/3/demo/")
            image = site.get(path.replace("info.json", "full/9,/0/default.png"), **headers)
            assert f"<{shown}/iiif/3/demo/" in image.headers["link"]


def test_a_redirect_leads_to_no_other_host(archive: Rescaled) -> None:
    """Protects clients: a host that somebody wrote, and a proxy passed on, is led to by no redirect.

    A path is, where the proxy or --public-address told what the service lies below, and only there: else where the client was.
    """
    headers = {"x_forwarded_proto": "https", "x_forwarded_host": "evil.example"}
    everyone = (ip_network("0.0.0.0/0"),)
    path, relative = "/iiif/3/demo/a%20b%2F001.jpg/info.json", "./001.jpg/info.json"
    for options, prefix, wanted in (
        ({"trusted": everyone}, {"x_forwarded_prefix": "/img/"}, f"/img{path}"),
        ({"trusted": everyone}, {"x_forwarded_prefix": "/"}, path),
        ({"trusted": everyone}, {}, relative),  # as Apache's ProxyPass tells it
        ({}, {"x_forwarded_prefix": "/img"}, relative),
        ({"public_address": "https://b.example/c"}, {}, f"/c{path}"),
        ({"public_address": "https://b.example"}, {"x_forwarded_prefix": "/img"}, path),
    ):
        site = Site(archive, **options, client=("127.0.0.9", 1))
        with closing(site.shelf):
            leading = site.get("/iiif/3/demo/a%20b/001.jpg", **headers, **prefix)  # decoded by a proxy, or written so
            assert (leading.status_code, leading.headers["location"]) == (303, wanted)


def test_no_word_of_a_proxy_opens_loopback(archive: Rescaled) -> None:
    """Protects against DNS rebinding: a page on the proxy's machine may send any header, and its Host is still refused."""
    site = Site(archive, trusted=(ip_network("127.0.0.0/8"),), client=("127.0.0.1", 1))
    with closing(site.shelf):
        for headers in ({"x_forwarded_host": "127.0.0.1"}, {"forwarded": "host=127.0.0.1;for=127.0.0.1"}):
            answer = site.get("/archives", host="evil.example", **headers)
            assert (answer.status_code, told(answer)) == (421, "wrong-host")
        answer = site.get("/archives", x_forwarded_proto="ftp")
        assert (answer.status_code, told(answer)) == (400, "misforwarded")
    site = Site(archive, trusted=(ip_network("127.0.0.0/8"),), client=("127.0.0.1", 1), token=TOKEN)
    with closing(site.shelf):
        assert site.get("/archives", x_forwarded_for="127.0.0.1").status_code == 401
