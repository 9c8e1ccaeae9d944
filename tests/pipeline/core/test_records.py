"""Target sizes and settings: parsed once, resolved for every image, never by chance above what was asked for."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import InvalidOption
from pipeline.core.records import LrCodec, Settings, Tier
from pipeline.core.target import TargetSize

GOOD = [
    ({"scale": "2.5"}, TargetSize(scale=(2.5, 2.5))),
    ({"scale": "1"}, TargetSize(scale=(1, 1))),
    ({"scale": "2x3"}, TargetSize(scale=(2, 3))),
    ({"scale": "1.5x4.0"}, TargetSize(scale=(1.5, 4))),
    ({"max_side": "1024"}, TargetSize(max_side=1024)),
    ({"max_side": "1"}, TargetSize(max_side=1)),
    ({"max_pixels": "1M"}, TargetSize(max_pixels=1_000_000)),
    ({"max_pixels": "1.5M"}, TargetSize(max_pixels=1_500_000)),
    ({"max_pixels": "500k"}, TargetSize(max_pixels=500_000)),
    ({"max_pixels": "250000"}, TargetSize(max_pixels=250_000)),
    ({"size": "640x480"}, TargetSize(size=(480, 640))),
    ({"size": "1x1"}, TargetSize(size=(1, 1))),
]

BAD = [
    *[("scale", text) for text in ("0", "0.5", "-1", "NaN", "nan", "inf", "-inf", "1e999", "3x", "x3", "x", "", " ", "two")],
    *[("scale", text) for text in ("2x0.5", "0x2", "2xnan", "2x3x4", "2,5", "2*3")],
    *[("max_side", text) for text in ("0", "-1", "", "1024px", "M", "1e3", "nan", "inf", "0.5", "1 000")],
    *[("max_pixels", text) for text in ("0", "-1M", "", "1m", "1MB", "1T", "0.0000001M", "nan")],
    *[("size", text) for text in ("640", "640x", "x480", "0x480", "640x0", "-1x4", "1.5x2", "640x480x3", "", "nanxnan")],
]

OPTIONS = {"scale": "--scale", "max_side": "--max-side", "max_pixels": "--max-pixels", "size": "--size"}


@pytest.mark.parametrize(("options", "expected"), GOOD, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_good_targets(options: dict[str, str], expected: TargetSize) -> None:
    """Protects the options as documented, and the order of their two numbers: scale is height x width, size width x height."""
    assert TargetSize.parse(**options) == expected


@pytest.mark.parametrize(("option", "text"), BAD, ids=lambda value: repr(value))
def test_bad_targets(option: str, text: str) -> None:
    """Protects users from a typo: a value that makes no sense is refused, with the option, the value and what to give."""
    with pytest.raises(InvalidOption) as caught:
        TargetSize.parse(**{option: text})
    assert caught.value.option == OPTIONS[option]
    assert caught.value.value == text
    assert str(caught.value).startswith(f"{OPTIONS[option]} {text}: give ")


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": "2", "size": "4x4"}, {"max_side": "9", "max_pixels": "9"}, dict.fromkeys(OPTIONS, "2")],
    ids=lambda options: " ".join(options) or "none",
)
def test_exactly_one_target_is_given(options: dict[str, str]) -> None:
    """Protects users from options that contradict each other: none, and more than one, are refused by name."""
    with pytest.raises(InvalidOption, match="give one of --scale, --max-side, --max-pixels, --size") as caught:
        TargetSize.parse(**options)
    assert all(OPTIONS[name] in caught.value.value for name in options)


def test_a_target_says_what_it_is() -> None:
    """Protects messages about plans: each kind of target reads as its option does."""
    said = [str(TargetSize.parse(**options)) for options in ({"scale": "2x3"}, {"size": "640x480"}, {"max_side": "9"})]
    assert said == ["scale 2x3", "size 640x480", "max-side 9"]
    assert str(TargetSize.parse(max_pixels="1M")) == "max-pixels 1000000"


sides = st.one_of(st.integers(1, 12), st.integers(1, 20_000))
hundredths = st.integers(100, 900)


@given(sides, sides, hundredths, hundredths)
def test_a_scale_is_never_exceeded(height: int, width: int, vertical: int, horizontal: int) -> None:
    """Protects LRs asked for by scale: the smallest size whose scale is not above the one asked for, in exact arithmetic."""
    target = TargetSize.parse(scale=f"{vertical / 100}x{horizontal / 100}")
    lr = target.resolve((height, width))
    for length, pixels, scale in zip((height, width), lr, (vertical, horizontal), strict=True):
        assert Fraction(length, pixels) <= Fraction(scale, 100)
        assert pixels == 1 or Fraction(length, pixels - 1) > Fraction(scale, 100)


def test_scales_are_decimals() -> None:
    """Protects round sizes: 1130 at 1.13 is 1000, though in floats it is a little more."""
    assert TargetSize.parse(scale="1.13").resolve((1130, 113)) == (1000, 100)


def test_scale_one_keeps_the_size() -> None:
    """Protects a scale of 1, which is asked for on purpose: the LR is as large as the image."""
    assert TargetSize.parse(scale="1").resolve((7, 1)) == (7, 1)


@given(sides, sides, st.integers(1, 5000))
def test_max_side_bounds_the_longer_side(height: int, width: int, side: int) -> None:
    """Protects LRs asked for by their longer side: met exactly, the aspect kept to half a pixel, never enlarged."""
    target = TargetSize(max_side=side)
    if max(height, width) <= side:
        assert target.resolve((height, width)) == (height, width)
        return
    lr = target.resolve((height, width))
    assert max(lr) == side
    for length, pixels in zip((height, width), lr, strict=True):
        assert 1 <= pixels <= length
        assert pixels == 1 or abs(pixels - length * side / max(height, width)) <= 0.5 + 1e-6


@given(sides, sides, st.integers(1, 10**7))
def test_max_pixels_bounds_the_area(height: int, width: int, pixels: int) -> None:
    """Protects LRs asked for by area: met within the rounding of the sides, nothing is enlarged."""
    target = TargetSize(max_pixels=pixels)
    lr = target.resolve((height, width))
    if height * width <= pixels:
        assert lr == (height, width)
        return
    assert 1 <= lr[0] <= height
    assert 1 <= lr[1] <= width
    assert lr != (height, width)
    assert lr[0] * lr[1] <= pixels + (lr[0] + lr[1]) / 2 + 1 or 1 in lr


@pytest.mark.parametrize("image", [(480, 639), (479, 640), (100, 2000), (480, 640)])
def test_a_size_that_would_enlarge_leaves_the_image_as_large_as_it_is(image: tuple[int, int]) -> None:
    """Protects small images: neither side is ever enlarged, and the aspect stays."""
    assert TargetSize.parse(size="640x480").resolve(image) == image


def test_a_size_is_taken_as_given() -> None:
    """Protects exact sizes: the aspect may change, and one side may stay."""
    assert TargetSize.parse(size="640x480").resolve((480, 641)) == (480, 640)
    assert TargetSize.parse(size="10x20").resolve((4000, 4000)) == (20, 10)


def test_settings_tell_their_differences() -> None:
    """Protects resuming: each setting that differs is named once, with both values, the begun one first."""
    begun = Settings(target=TargetSize.parse(scale="2"))
    assert begun.differences(dataclasses.replace(begun)) == ()
    other = Settings(target=TargetSize.parse(scale="3"), tier=Tier.LEAN, lr_codec=LrCodec.PNG, image_column="image")
    assert begun.differences(other) == (
        "target scale 2x2, not scale 3x3",
        "tier balanced, not lean",
        "lr_codec auto, not png",
        "image_column None, not image",
    )


def test_records_are_frozen() -> None:
    """Protects a plan on its way through threads and processes: no value changes after it was parsed."""
    settings = Settings(target=TargetSize.parse(scale="2"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.tier = Tier.LEAN  # type: ignore[misc]


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 2_000_000))
def test_max_pixels_is_never_exceeded(height: int, width: int, limit: int) -> None:
    """Protects a promise of the README: an LR has at most as many pixels as asked for, whatever the shape."""
    rows, columns = TargetSize(max_pixels=limit).resolve((height, width))
    assert 1 <= rows * columns <= max(limit, 1)
