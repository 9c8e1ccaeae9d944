"""The service over HTTP, in this process: routes, negotiation, caching, ranges, tokens, errors as sentences, and no 500."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from jobs.web.http import HttpOptions, create_app
from jobs.web.http_guard import App
from jobs.web.http_shapes import status_of
from jobs.web.negotiation import byte_range_of, form_for, unchanged
from jobs.web.on_demand import Images
from pipeline.core import errors
from pipeline.core.errors import PipelineError
from pipeline.core.records import Tier
from pipeline.reading.errors import Overloaded
from pipeline.reading.service import EntryPlace, ImageRequest, Restored, Restorer, Shelf
from tests.pipeline.core.test_errors import LEAVES, example_of
from tests.support.commands import GUARD
from tests.support.pictures import photo, saved
from tests.support.workshop import Rescaled, Sample, as_tar, noise, picture, rescale, samples, sentence

TOKEN = "a token of many characters"[:24].replace(" ", "-")
ENTRY = "/archives/demo/assets/a%20b%2F001.jpg"


class Threads:
    """A backend of this process."""

    def __init__(self, uri: str) -> None:
        self.restorer = Restorer([uri], device="cpu")
        self.device = self.restorer.device
        self.restored = 0
        self.gate = threading.Event()
        self.gate.set()
        self.fault: PipelineError | None = None

    async def restore(self, place: EntryPlace, request: ImageRequest) -> Restored:
        """Restore in a thread, once the gate is open, or fail as told."""
        self.restored += 1
        while not self.gate.is_set():
            await asyncio.sleep(0.01)
        if self.fault is not None:
            raise self.fault
        return await asyncio.to_thread(self.restorer.restore, place, request)


class Site:
    """A service of one archive, and a client of it."""

    def __init__(self, rescaled: Rescaled, **options: Any) -> None:
        self.rescaled = rescaled
        self.shelf = Shelf("demo", rescaled.uri)
        self.shelf.catalogue.begin()
        self.backend = Threads(rescaled.uri)
        self.app: App = create_app([self.shelf], self.backend, HttpOptions(**{"seconds": GUARD, **options}))
        self.client = TestClient(self.app, base_url="http://127.0.0.1", raise_server_exceptions=True, follow_redirects=False)

    def get(self, path: str, **headers: str) -> Any:
        """Ask for a path; underscores in names of headers are dashes."""
        return self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def told(answer: Any) -> str:
    """Return the kind of an error that is answered as one should be."""
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    sentence(answer.json()["error"]["message"])
    kind = answer.json()["error"]["kind"]
    assert isinstance(kind, str)
    return kind


SAMPLES = [
    *samples(4, folder="a b/"),
    Sample(key="alpha.png", data=picture(26, 33, "PNG", channels=4, seed=1)),
    Sample(key="é ü/100%/#?&.jpg", data=saved(photo(24, 35, 3, 3), "JPEG")),
    Sample(key="page.html.jpg", data=b"<script>alert(1)</script>"),
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Rescaled:
    """An archive of seven entries, one of them no image, with names that need care in a URL."""
    folder = tmp_path_factory.mktemp("http")
    return rescale(as_tar(folder / "source", SAMPLES), folder / "archive", tier=Tier.BALANCED)


@pytest.fixture(scope="module")
def site(archive: Rescaled) -> Iterator[Site]:
    """A service as it stands by itself."""
    made = Site(archive)
    with closing(made.shelf):
        yield made


@pytest.fixture
def fresh(archive: Rescaled) -> Iterator[Site]:
    """A service of this test alone."""
    made = Site(archive, most_restores=2)
    with closing(made.shelf):
        yield made


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
        assert found.json()["links"] == asset["links"]
        for name, link in asset["links"].items():
            if link is not None and (name, asset["kind"]) != ("image", "original"):
                assert site.get(link).status_code == 200


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
    }
    for query, options in asked.items():
        image = site.get(f"{ENTRY}/image?{query}&format=webp&quality=70")
        expected = site.backend.restorer.restore(place, ImageRequest(form="webp", quality=70, **options))  # type: ignore[arg-type]
        assert (image.content, image.headers["content-type"]) == (expected.data, "image/webp")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "png"), ("*/*", "png"), ("image/*", "png"), ("image/webp", "webp"), ("text/html", "png"),
        ("image/avif,image/webp,image/png,*/*;q=0.8", "png"), ("image/avif, image/webp;q=0.9", "avif"),
        ("image/webp;q=0.5, image/jpeg;q=0.7", "jpeg"), ("image/png;q=0, image/webp;q=0.1", "webp"), ("image/webp;q=x", "webp"),
        ("IMAGE/JPEG", "jpeg"), (",,;;q=1,/", "png"),
    ],
)  # fmt: skip
def test_a_format_is_negotiated(accept: str, form: str) -> None:
    """Protects negotiation: what the client likes best, of equals the lossless one, and PNG where it says nothing."""
    assert form_for(accept) == form


def test_format_wins_over_accept_and_alpha_over_both(site: Site) -> None:
    """Protects clients that name a format, and pictures with alpha: a format that cannot hold it becomes PNG, and says so."""
    image = site.get(f"{ENTRY}/image", accept="image/webp")
    assert (image.headers["content-type"], image.headers["vary"]) == ("image/webp", "Accept")
    image = site.get(f"{ENTRY}/image?format=jpeg", accept="image/webp")
    assert image.headers["content-type"] == "image/jpeg"
    assert "vary" not in image.headers
    image = site.get("/archives/demo/assets/alpha.png/image?format=jpeg")
    assert (image.headers["content-type"], image.content[1:4]) == ("image/png", b"PNG")


@pytest.mark.parametrize("part", ["lr", "image", "original"])
def test_what_never_changes_is_kept_by_clients(site: Site, part: str) -> None:
    """Protects bandwidth: a strong tag, for ever; 304 for who has it, the whole for who has not; HEAD is GET, bodiless."""
    path = f"{ENTRY}/{part}" if part != "original" else "/archives/demo/assets/page.html.jpg/original"
    whole = site.get(path)
    tag = whole.headers["etag"]
    assert tag.startswith('"')
    assert whole.headers["cache-control"] == "public, max-age=31536000, immutable"
    for sent in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = site.get(path, if_none_match=sent)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert site.get(path, if_none_match='"other"').status_code == 200
    head = site.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert dict(head.headers) == dict(whole.headers)
    assert site.get(path).headers["etag"] == tag


def test_ranges(site: Site) -> None:
    """Protects downloads that go on: single ranges, the last bytes, If-Range; beyond the file is 416, nonsense the whole."""
    path = f"{ENTRY}/lr"
    whole = site.get(path).content
    tag, size = site.get(path).headers["etag"], len(whole)
    for asked, first, stop in [
        ("0-0", 0, 1),
        ("5-", 5, size),
        ("-3", size - 3, size),
        (f"2-{size * 9}", 2, size),
        (f"-{size * 9}", 0, size),
    ]:
        answer = site.get(path, range=f"bytes={asked}", if_range=tag)
        assert (answer.status_code, answer.content) == (206, whole[first:stop])
        assert answer.headers["content-range"] == f"bytes {first}-{stop - 1}/{size}"
        assert answer.headers["etag"] == tag
    for asked in (f"{size}-", "-0", "9999999999999999999-"):
        answer = site.get(path, range=f"bytes={asked}")
        assert (answer.status_code, told(answer)) == (416, "range")
        assert answer.headers["content-range"] == f"bytes */{size}"
    for asked in ("bytes=5-2", "bytes=0-1,3-4", "lines=0-1", "bytes=-", "bytes=a-b", "bytes"):
        assert (site.get(path, range=asked).status_code, site.get(path, range=asked).content) == (200, whole)
    assert site.get(path, range="bytes=0-0", if_range='"other"').status_code == 200


@given(first=st.none() | st.integers(0, 10**19 - 1), last=st.none() | st.integers(0, 10**19 - 1), size=st.integers(1, 2000))
def test_a_byte_range_is_what_a_slice_would_be(first: int | None, last: int | None, size: int) -> None:
    """Protects ranges of any numbers: none leads out of the file, and each is the one that was asked for."""
    data = bytes(size)
    byte_range = byte_range_of({"range": f"bytes={'' if first is None else first}-{'' if last is None else last}"}, '"x"', size)
    if byte_range is None:
        assert (first is None and last is None) or (first is not None and last is not None and last < first)
    elif byte_range.start is None:
        assert first is None or first >= size
    else:
        assert 0 <= byte_range.start < byte_range.stop <= size
        assert data[byte_range.start : byte_range.stop]
        assert byte_range.start == (max(0, size - (last or 0)) if first is None else first)


@given(st.text(max_size=60))
def test_odd_headers_are_read_without_an_error(text: str) -> None:
    """Protects against what any client may send: conditions, ranges and preferences of any text."""
    unchanged({"if-none-match": text}, '"x"')
    byte_range_of({"range": text, "if-range": text}, '"x"', 100)
    assert form_for(text) in ("png", "jpeg", "webp", "avif")


def test_equal_requests_at_once_are_restored_once(fresh: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects engines from a crowd: ten who ask for one image share its restore, and the eleventh finds it in the cache."""
    fresh.backend.gate.clear()
    ask, asked, found = Images.get, list[str](), list[bytes]()

    async def get(images: Images, digest: str, *more: Any) -> Any:
        asked.append(digest)
        if len(asked) == 10:
            fresh.backend.gate.set()  # it is seen once this one waits as well
        return await ask(images, digest, *more)

    monkeypatch.setattr(Images, "get", get)
    threads = [threading.Thread(target=lambda: found.append(fresh.get(f"{ENTRY}/image").content)) for _ in range(10)]
    with fresh.client:  # one event loop for all of them
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.append(fresh.get(f"{ENTRY}/image").content)
    assert len(set(found)) == 1
    assert len(found) == 11
    assert fresh.backend.restored == 1


def test_too_many_restores_are_refused_at_once(fresh: Site) -> None:
    """Protects the service under load: beyond what may wait 503 with Retry-After, while LRs are answered as ever."""
    fresh.backend.gate.clear()
    answers: list[Any] = []
    with fresh.client:
        threads = [
            threading.Thread(target=lambda n=n: answers.append(fresh.get(f"{ENTRY}/image?max_side={n}"))) for n in range(5, 11)
        ]
        for thread in threads:
            thread.start()
        assert fresh.get(f"{ENTRY}/lr").status_code == 200
        end = time.monotonic() + GUARD
        while len(answers) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        assert [answer.status_code for answer in answers] == [503] * 4, "while the others wait"
        fresh.backend.gate.set()
        for thread in threads:
            thread.join()
    refused = [answer for answer in answers if answer.status_code == 503]
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [503] * 4
    for answer in refused:
        assert told(answer) == "overloaded"
        assert int(answer.headers["retry-after"]) > 0


def test_a_restore_has_its_time(archive: Rescaled) -> None:
    """Protects clients from waiting for ever: a restore that takes too long is given up with a sentence."""
    site = Site(archive, seconds=0.1)
    site.backend.gate.clear()
    with closing(site.shelf):
        answer = site.get(f"{ENTRY}/image")
        assert (answer.status_code, told(answer)) == (503, "overloaded")
        assert "retry-after" in answer.headers


def test_a_read_has_its_time(archive: Rescaled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects clients from a store that hangs: what is not read in time is given up with a sentence."""
    site, released = Site(archive, seconds=0.1), threading.Event()
    monkeypatch.setattr(site.shelf, "lr", lambda _: released.wait(GUARD))
    with closing(site.shelf):
        answer = site.get(f"{ENTRY}/lr")
        released.set()
        assert (answer.status_code, told(answer)) == (503, "overloaded")


def test_a_cache_of_nothing_still_serves(archive: Rescaled) -> None:
    """Protects small machines: without a cache each image is restored anew, to the same bytes."""
    site = Site(archive, cache_bytes=0)
    with closing(site.shelf):
        assert site.get(f"{ENTRY}/image").content == site.get(f"{ENTRY}/image").content
        assert site.backend.restored == 2


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
        ("/archives/demo/assets/a%20b/001.jpg/lr", 404),
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
    assert issubclass(Overloaded, errors.ServiceError)


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
    assert "iarn_cache_hits 1.0" in text
    assert "iarn_requests_under_way 1.0" in text
    assert "001.jpg" not in text


def test_pages_ask_nothing_of_others(site: Site) -> None:
    """Protects privacy: the description has no script and no address elsewhere; the root leads to the gallery."""
    page = site.get("/docs")
    assert page.status_code == 200
    assert "/archives/{archive}/assets/{key}/image" in page.text
    assert "://" not in page.text
    assert "<script" not in page.text
    assert site.get("/").headers["location"] == "/gallery/"
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_only_reading_is_there(site: Site) -> None:
    """Protects archives: no method but GET and HEAD does anything."""
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = site.client.request(method, f"{ENTRY}/lr")
        assert (answer.status_code, told(answer)) == (405, "method-not-allowed")


keys = st.sampled_from([sample.key for sample in SAMPLES]) | st.text(max_size=40)
values = st.sampled_from(
    ["", "0", "1", "-1", "0.5", "4", "1e400", "nan", "10x10", "png", "webp", "x" * 2000, "\0", "é", "9" * 400]
)
names = st.sampled_from(
    ["max_side", "scale", "size", "format", "quality", "latent", "shard", "limit", "after", "prefix", "tier", "?"]
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
    assert answer.status_code in (200, 206, 304, 404, 414, 416, 422)
    if answer.status_code >= 400:
        told(answer)


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
                case.call_and_validate()

            holds()
