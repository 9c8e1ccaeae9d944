"""What is asked for in headers: formats, conditions, ranges; odd ones do no harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.web.http.negotiation import byte_range_of, form_for, unchanged
from tests.support.http_site import ENTRY, Site, told


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
def test_what_a_client_has_is_not_sent_again(site: Site, part: str) -> None:
    """Protects bandwidth: a strong tag, asked for each time; 304 for who has it, else the whole; HEAD is GET, bodiless."""
    path = f"{ENTRY}/{part}" if part != "original" else "/archives/demo/assets/page.html.jpg/original"
    whole = site.get(path)
    tag = whole.headers["etag"]
    assert tag.startswith('"')
    assert whole.headers["cache-control"] == "public, no-cache"
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
