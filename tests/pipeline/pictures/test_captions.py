"""What files say of themselves in words: titles, makers, rights; in any order of bytes, and of damaged blocks nothing."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.pictures.captions import MOST_LETTERS, Caption, caption_of


def block(*, order: str = "<", **texts: str | bytes) -> bytes:
    """Return an EXIF block, as Pillow writes it, with texts by the names of their tags."""
    tags = Image.Exif()
    tags.endian = order
    for name, tag in (("title", 0x010E), ("artist", 0x013B), ("copyright", 0x8298)):
        if name in texts:
            tags[tag] = texts[name]
    tags[0x0112] = 1
    return tags.tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_of_exif(order: str) -> None:
    """Protects labels: long and short texts, UTF-8 and Latin-1, on one line, with and without JPEG's prefix."""
    exif = block(order=order, title="A view\r\n of the  bay", artist="é ü".encode(), copyright="© me".encode("latin-1"))
    wanted = Caption(title="A view of the bay", artist="é ü", copyright="© me")
    assert caption_of(exif, None) == caption_of(exif.removeprefix(b"Exif\0\0"), b"<x/>") == wanted
    assert caption_of(block(order=order, title="abc", artist="  "), None) == Caption(title="abc")
    assert caption_of(block(title="x" * 9000), None) == Caption(title="x" * MOST_LETTERS)
    assert caption_of(None, None) == caption_of(b"", b"") == Caption()


CC, STATEMENTS = "http://creativecommons.org", "http://rightsstatements.org/vocab"


@pytest.mark.parametrize(
    ("xmp", "licence"),
    [
        (b'<cc:license rdf:resource="https://creativecommons.org/licenses/by-sa/4.0/"/>', f"{CC}/licenses/by-sa/4.0/"),
        (b"<xmpRights:WebStatement>http://rightsstatements.org/vocab/InC/1.0</x", f"{STATEMENTS}/InC/1.0/"),
        (b"xmpRights:WebStatement='https://creativecommons.org/publicdomain/zero/1.0/'", f"{CC}/publicdomain/zero/1.0/"),
        (b'cc:license="https://creativecommons.org/licenses/by/4.0/deed.de"', f"{CC}/licenses/by/4.0/"),
        (b'cc:license="http://creativecommons.org/licenses/by-nc-nd/3.0/de/legalcode"', f"{CC}/licenses/by-nc-nd/3.0/de/"),
        (b'cc:license="http://creativecommons.org/licenses/by/3.0/igo/"', f"{CC}/licenses/by/3.0/igo/"),
        (b"cc:license='https://creativecommons.org/publicdomain/mark/1.0/deed.zh-hans'", f"{CC}/publicdomain/mark/1.0/"),
        (b'xmpRights:WebStatement="https://example.org/rights"', None),
        (b'cc:license="https://creativecommons.org/licenses/"', None),
        (b'cc:license="https://creativecommons.org/licenses/by/4.0/../../about"', None),
        (b'cc:license="https://creativecommons.org/publicdomain/one/1.0/"', None),
        (b"<xmpRights:WebStatement>http://rightsstatements.org/vocab/InC/1.0/data.json</x", None),
        (b"<dc:source>https://creativecommons.org/licenses/by/4.0/</dc:source>", None),
    ],
)
def test_licences_of_xmp(xmp: bytes, licence: str | None) -> None:
    """Protects rights: a licence that the IIIF knows is told by its URI, an address of any other kind is not."""
    assert caption_of(None, xmp).licence == licence


@given(st.binary(max_size=80), st.integers(0, 60), st.binary(max_size=8))
def test_damage_says_nothing_and_raises_nothing(data: bytes, at: int, change: bytes) -> None:
    """Protects readers from any bytes at all: what comes is text of bounded length on one line."""
    whole = block(title="a title", artist="somebody").removeprefix(b"Exif\0\0")
    for exif in (data, b"II*\0" + data, whole[:at] + change + whole[at + len(change) :], BytesIO(whole).read(at)):
        found = caption_of(exif, data)
        for text in (found.title, found.artist, found.copyright):
            assert text is None or (0 < len(text) <= MOST_LETTERS and text.isprintable())
