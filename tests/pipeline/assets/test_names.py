"""Names of assets: safe, stable, one each."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.assets.names import (
    LONGEST_COMPONENT,
    LONGEST_KEY,
    UniqueNames,
    has_image_name,
    is_hidden,
    is_litter,
    member_name,
    safe_key,
    safe_suffix,
    split_stem,
)

# Drawn so that the odd parts are frequent: separators, dots, the percent sign, control characters, surrogates.
ODD_NAMES = st.text(st.sampled_from("ab.%/\\:~C2EF\x00\n\x7fé\ud800\udc80\udcff") | st.characters(), max_size=24)
SAFE_NAMES = st.from_regex(
    re.compile(r"[A-Za-z0-9_%~][A-Za-z0-9._%~ -]{0,20}(/[A-Za-z0-9_%~][A-Za-z0-9._%~ -]{0,20}){0,3}"), fullmatch=True
)


def is_safe(key: str) -> bool:
    """Say independently of the code under test whether a key is a safe relative path."""
    parts = key.split("/")
    return (
        all(part not in ("", ".", "..") and len(part.encode("utf-8")) <= LONGEST_COMPONENT for part in parts)
        and len(key.encode("utf-8")) <= LONGEST_KEY
        and "\\" not in key
        and not re.match(r"[A-Za-z]:", key)
        and not any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) <= 0xDFFF for letter in key)
    )


@given(ODD_NAMES)
@settings(max_examples=300, deadline=None)
def test_every_name_becomes_a_safe_relative_path(name: str) -> None:
    """Protects destinations: no name of a source can lead out of the folder that a restore writes to."""
    key, note = safe_key(name)
    assert is_safe(key)
    assert safe_key(key) == (key, None)
    assert (note is None) == (key == name)
    if note is not None:
        assert key in note
        note.encode("utf-8")


@given(SAFE_NAMES)
@settings(max_examples=100, deadline=None)
def test_safe_names_stay_as_they_are(name: str) -> None:
    """Protects the names users know: nothing is changed without need."""
    assert safe_key(name) == ((name, None) if is_safe(name) else safe_key(name))


@pytest.mark.slow
@given(st.lists(ODD_NAMES.filter(lambda name: not is_safe_text(name)), unique=True, min_size=2, max_size=8))
@settings(max_examples=300, deadline=None)
def test_distinct_unsafe_names_stay_distinct(names: list[str]) -> None:
    """Protects against two assets that land on one key because their odd names were made safe the same way."""
    assert len({safe_key(name)[0] for name in names}) == len(names)


def is_safe_text(name: str) -> bool:
    """Return whether a name that may not even be encodable is safe."""
    try:
        return is_safe(name)
    except UnicodeEncodeError:
        return False


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("../x.jpg", "%2E%2E/x.jpg"),
        ("/etc/x.jpg", "%2F/etc/x.jpg"),
        ("a//b.jpg", "a/%2F/b.jpg"),
        ("a/./b.jpg", "a/%2E/b.jpg"),
        (r"a\b.jpg", "a%5Cb.jpg"),
        ("C:/x.jpg", "C%3A/x.jpg"),
        ("a\nb.jpg", "a%0Ab.jpg"),
        ("../100%.jpg", "%2E%2E/100%25.jpg"),
        ("100%.jpg", "100%.jpg"),
        ("caf\udce9.jpg", "caf%E9.jpg"),
        ("Bücher/☀ 1.jpg", "Bücher/☀ 1.jpg"),
    ],
)
def test_unsafe_parts_are_percent_encoded(name: str, key: str) -> None:
    """Protects the written rule: archives made by one release name their entries as the next one would."""
    assert safe_key(name)[0] == key


def test_names_too_long_are_cut_and_keep_their_suffix() -> None:
    """Protects restores onto file systems, and the kind of a file, which its suffix tells."""
    one, two = safe_key("x" * 300 + "1.seg.png")[0], safe_key("x" * 300 + "2.seg.png")[0]
    assert one != two
    assert one.endswith(".seg.png")
    assert safe_key("é" * 128 + ".jpg")[0].endswith(".jpg")
    deep = safe_key("/".join(["folder" * 10] * 40) + "/x.jpg")[0]
    assert deep.endswith("/x.jpg")
    assert is_safe(deep)
    assert is_safe(safe_key("/".join(["y" * 300] * 9) + ".z" * 300)[0])


def test_stem_is_webdatasets() -> None:
    """Protects the grouping of samples, which must be the one that WebDataset readers use."""
    assert split_stem("a/x.seg.png") == ("a/x", "seg.png")
    assert split_stem("a.b/x") == ("a.b/x", "")
    assert split_stem("a/.x.png") == ("a/.x", "png")
    assert split_stem("..") == ("..", "")
    assert member_name("a/x.jpg", "seg.json") == "a/x.seg.json"
    assert member_name("a/x.jpg", "") == "a/x"


def test_kinds_of_names() -> None:
    """Protects what counts as an image, as hidden, and as what macOS leaves behind."""
    assert has_image_name("a/x.JPG")
    assert has_image_name("x.seg.png")
    assert not any(map(has_image_name, ("x", "jpg", "x.jpg/y", ".jpg", "x.txt", "x.")))
    assert is_hidden("a/.x.jpg")
    assert is_hidden(".git/x.jpg")
    assert not is_hidden("../a/./x.jpg")
    assert is_litter("a/._x.jpg", b"\0\5\x16\7\0\2\0\0")
    assert is_litter(".DS_Store", b"")
    assert not is_litter(".x.jpg", b"")
    assert not is_litter("a/._portrait.jpg", b"\xff\xd8\xff")


def test_suffixes_are_made_safe() -> None:
    """Protects sidecars named by a member or a Parquet column: they become part of a file's name."""
    assert safe_suffix("seg.png") == "seg.png"
    assert safe_suffix("a/b\\c") == "a%2Fb%5Cc"
    assert safe_suffix(safe_suffix("x" * 170 + ".txt")) == safe_suffix("x" * 170 + ".txt"), "restored under the name it has"
    assert safe_suffix("x" * 170 + ".txt") != safe_suffix("x" * 170 + ".csv")
    assert len(safe_suffix("é" * 300).encode("utf-8")) < 200


def test_second_asset_of_a_name_is_numbered() -> None:
    """Protects both of two assets of one key, and the names of the sidecars beside them."""
    names = UniqueNames()
    assert names.claim("a.seg.png") == ("a.seg.png", None)
    key, note = names.claim("a.seg.png")
    assert key == "a~2.seg.png"
    assert "a.seg.png" in str(note)
    assert names.claim("a.seg.png")[0] == "a~3.seg.png"
    assert names.claim("a~2.seg.png")[0] == "a~2~2.seg.png"
    assert names.claim("b.jpg", ["txt"])[0] == "b.jpg"
    assert names.claim("b.png", ["txt"])[0] == "b~2.png"


def test_many_assets_of_one_name_take_linear_time() -> None:
    """Protects against a tar whose members all have one name: each must not try all numbers again."""
    names = UniqueNames()
    assert [names.claim("a.jpg")[0] for _ in range(20_000)][-1] == "a~20000.jpg"
