"""The grammar of image requests: what each form means, canonical forms, and that no text at all gets anything but a 400."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.web.iiif.parameters import (
    Bounds,
    ImageParameters,
    fitted,
    most_of,
    rectangle_of,
    size_of,
    turn_of,
    understand,
)
from pipeline.core.errors import InvalidOption
from pipeline.pictures.region import Region
from tests.support.workshop import sentence

OWN = (200, 300)
WIDE = Bounds(side=1000, area=1_000_000)
NARROW = Bounds(side=150, area=10_000)


def asked(path: str, *, of: tuple[int, int] = OWN, bounds: Bounds = WIDE) -> ImageParameters:
    """Return what an image request means, written as in an address."""
    region, size, rotation, file = path.split("/")
    quality, _, format = file.rpartition(".")
    return understand(region, size, rotation, quality, format, of=of, bounds=bounds)


@pytest.mark.parametrize(
    ("region", "rectangle"),
    [
        ("full", (0, 0, 300, 200)),
        ("square", (50, 0, 200, 200)),
        ("125,15,120,140", (125, 15, 120, 140)),
        ("125,15,200,200", (125, 15, 175, 185)),  # the specification's own example 5
        ("pct:41.6,7.5,40,70", (124, 15, 121, 140)),
        ("pct:41.6,7.5,66.6,100", (124, 15, 176, 185)),
        ("pct:0,0,.001,0.001", (0, 0, 1, 1)),
        ("pct:99.99,99.99,1,1", (299, 199, 1, 1)),
        ("0,0,99999999999999999999,1", (0, 0, 300, 1)),
    ],
)
def test_regions(region: str, rectangle: tuple[int, ...]) -> None:
    """Protects 4.1: every form, cut off at the edges of the image."""
    assert rectangle_of(region, OWN) == Region(*rectangle)


@pytest.mark.parametrize(
    "region",
    ["", "Full", "0,0,0,10", "0,0,10,0", "300,0,1,1", "0,200,1,1", "pct:100,0,1,1", "pct:0,0,0,1", "-1,0,5,5", "1,2,3",
     "1,2,3,4,5", "1.5,0,5,5", "pct:1e1,0,5,5", "pct:.,0,5,5", "0,0,٣,3", " full", "full\n", "1" * 8000, "1," * 4000],
)  # fmt: skip
def test_regions_that_are_none(region: str) -> None:
    """Protects 4.1: what is empty, beside the image or not in the grammar is refused with a sentence."""
    with pytest.raises(InvalidOption) as caught:
        rectangle_of(region, OWN)
    sentence(str(caught.value))


@pytest.mark.parametrize(
    ("size", "bounds", "expected"),
    [
        ("max", WIDE, (200, 300)),
        ("max", NARROW, (81, 122)),
        ("^max", WIDE, (667, 1000)),
        ("^max", NARROW, (81, 122)),
        ("150,", WIDE, (100, 150)),
        (",100", WIDE, (100, 150)),
        ("pct:50", WIDE, (100, 150)),
        ("pct:0.3", WIDE, (1, 1)),
        ("225,100", WIDE, (100, 225)),
        ("!225,100", WIDE, (100, 150)),
        ("!300,200", WIDE, (200, 300)),
        ("!300,5000", WIDE, (200, 300)),
        ("!300,200", NARROW, (81, 122)),
        ("^600,", WIDE, (400, 600)),
        ("^,400", WIDE, (400, 600)),
        ("^pct:150", WIDE, (300, 450)),
        ("^360,360", WIDE, (360, 360)),
        ("^!360,360", WIDE, (240, 360)),
        ("^100,", WIDE, (67, 100)),
        ("^!9999,9999", WIDE, (667, 1000)),
        ("1,1", WIDE, (1, 1)),
    ],
)
def test_sizes(size: str, bounds: Bounds, expected: tuple[int, int]) -> None:
    """Protects 4.2: every form, with and without ^, within what the service gives."""
    assert size_of(size, OWN, bounds) == expected


@pytest.mark.parametrize(
    "size",
    ["", "full", "301,", ",201", "301,10", "10,201", "pct:100.1", "!301,201", "!2000,3000", "0,", ",0", "0,0", "!0,10", "!10,",
     "!,10", "pct:0", "pct:0.01", "pct:-5", "^", "^^max", "^1001,", "^1001,1", "pct:", ",", "!", "max ", "10", "1.5,", "٣,",
     "9" * 8000 + ",", "^pct:" + "9" * 8000],
)  # fmt: skip
def test_sizes_that_are_none(size: str) -> None:
    """Protects 4.2: no enlarging without ^, nothing below a pixel, nothing above the limits, and nothing else."""
    for bounds in (WIDE, NARROW):
        with pytest.raises(InvalidOption) as caught:
            size_of(size, OWN, bounds)
        sentence(str(caught.value))


def test_turns() -> None:
    """Protects 4.3: quarter turns and mirroring; other angles, which level 2 may refuse, are refused."""
    found = {text: turn_of(text) for text in ("0", "90", "180.0", "270", "360", "!0", "!90")}
    assert list(found.values()) == [(0, False), (90, False), (180, False), (270, False), (0, False), (0, True), (90, True)]
    for wrong in ("", "45", "22.5", "-90", "450", "!", "!!0", "90!", "x", "1e2", "9" * 8000):
        with pytest.raises(InvalidOption):
            turn_of(wrong)


def test_canonical_forms() -> None:
    """Protects 4.8: requests for one image have one name, which is itself a request for it."""
    same = {
        "full/max/0/default.jpg": ["0,0,300,200/300,200/0/default.jpg", "pct:0,0,100,100/pct:100/360/default.jpg"],
        "full/150,100/!90/gray.png": ["full/150,/!90.0/gray.png", "full/!150,150/!90/gray.png", "full/^pct:50/!90/gray.png"],
        "10,20,30,40/max/0/default.webp": ["10,20,30,40/30,/0/color.webp"],
        "full/^600,400/0/bitonal.avif": ["full/^pct:200/0/bitonal.avif"],
        "full/^max/0/default.jpg": ["full/^1000,/0/default.jpg"],
    }
    for canonical, others in same.items():
        assert {asked(each).canonical for each in (canonical, *others)} == {canonical}
        assert all(asked(each) == asked(canonical) for each in others)
    for wrong in ("full/max/0/default.tif", "full/max/0/native.jpg", "full/max/0/default.", "full/max/0/.jpg"):
        with pytest.raises(InvalidOption):
            asked(wrong)


letters = st.sampled_from([*string.printable, "full", "square", "max", "pct:", "default", "jpg", "é", "٣"])
texts = st.text(max_size=12) | st.lists(letters, max_size=8).map("".join)
sides = st.integers(1, 2000)
images = st.tuples(sides, sides)
limits = st.builds(Bounds, side=st.integers(1, 3000), area=st.integers(1, 5_000_000))
forms = st.sampled_from(["max", "{w},", ",{h}", "{w},{h}", "!{w},{h}", "pct:{p}"])


@given(region=texts, size=texts, rotation=texts, quality=texts, format=texts, image=images, bounds=limits)
def test_any_text_is_refused_or_understood(
    region: str, size: str, rotation: str, quality: str, format: str, image: tuple[int, int], bounds: Bounds
) -> None:
    """Protects the service from anything at all, and its limits from whatever is understood."""
    try:
        found = understand(region, size, rotation, quality, format, of=image, bounds=bounds)
    except InvalidOption as error:
        sentence(str(error))
    else:
        assert asked(found.canonical, of=image, bounds=bounds) == found


@given(image=images, bounds=limits, form=forms, upscale=st.booleans(), w=sides, h=sides, p=st.integers(1, 400))
def test_sizes_are_within_the_limits(
    image: tuple[int, int], bounds: Bounds, form: str, upscale: bool, w: int, h: int, p: int
) -> None:
    """Protects 4.2 as a whole: a size has a pixel, keeps to the limits, grows with ^ alone, and has a canonical form."""
    text = "^" * upscale + form.format(w=w, h=h, p=p)
    try:
        height, width = size_of(text, image, bounds)
    except InvalidOption:
        assert form != "max"
        return
    assert 1 <= height <= bounds.side
    assert 1 <= width <= bounds.side
    assert height * width <= bounds.area
    assert upscale or (height <= image[0] and width <= image[1])
    canonical = asked(f"full/{text}/0/default.jpg", of=image, bounds=bounds)
    assert asked(canonical.canonical, of=image, bounds=bounds).size == canonical.size == (height, width)


@given(image=images, box=images, bounds=limits)
def test_the_largest_size_in_a_box(image: tuple[int, int], box: tuple[int, int], bounds: Bounds) -> None:
    """Protects shapes: what is fitted fills the box in one direction and is within a pixel of its shape in the other."""
    height, width = fitted(image, box)
    assert 1 <= height <= box[0]
    assert 1 <= width <= box[1]
    assert height == box[0] or width == box[1]
    if height > 1 and width > 1:
        scale = height / image[0] if height == box[0] else width / image[1]
        assert abs(height - image[0] * scale) <= 1
        assert abs(width - image[1] * scale) <= 1
    assert most_of(image, Bounds(side=2000, area=4_000_000), upscale=False) == image
    assert most_of(image, bounds, upscale=True) >= most_of(image, bounds, upscale=False)
