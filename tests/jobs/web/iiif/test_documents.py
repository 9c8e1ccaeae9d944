"""The documents of the IIIF by themselves: sizes and tiles within the limits, whatever the image; text that is no HTML."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.web.iiif.documents import ImageFigures, info, manifest
from jobs.web.iiif.parameters import Bounds, understand
from jobs.web.iiif.request import TurnedRequest, is_given
from pipeline.core.options import Limits
from pipeline.core.records import EntryKind, OriginalCoding, Size, Tier
from pipeline.pictures.captions import Caption
from pipeline.pictures.region import Region
from pipeline.reading.requests import ImageRequest
from tests.support.archives import entry

BASE = "https://example.org/iiif/3/a/k"
PIXEL_LIMIT = 10**9
sides = st.integers(1, 60_000)


FORMS = [
    (EntryKind.RESCALED, Tier.LEAN, None),
    (EntryKind.RESCALED, Tier.BALANCED, None),
    (EntryKind.RESCALED, Tier.HIGH, None),
    (EntryKind.RESCALED, Tier.FLOOR, None),
    (EntryKind.RESCALED, Tier.EXACT_PIXELS, OriginalCoding.PIXELS),
    (EntryKind.RESCALED, Tier.EXACT, OriginalCoding.BYTES),
    (EntryKind.ORIGINAL, Tier.LEAN, OriginalCoding.BYTES),
]
"""Of entries: kind, tier and what is kept of the source."""


@settings(max_examples=300)
@given(
    form=st.sampled_from(FORMS),
    height=sides,
    width=sides,
    scales=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    side=st.integers(1, 20_000),
    area=st.integers(1, 10**8),
)
def test_what_is_told_may_be_asked_for(
    form: tuple[EntryKind, Tier, OriginalCoding | None],
    height: int,
    width: int,
    scales: tuple[int, int],
    side: int,
    area: int,
) -> None:
    """Protects 5.2 to 5.4: every size and tile that is told is given, of what every tier stores; else nothing is told."""
    (kind, tier, coding), limits = form, Limits(largest_side=side, most_pixels=area)
    lr = None if kind is EntryKind.ORIGINAL else (-(-height // scales[0]), -(-width // scales[1]))
    stored = entry("k", kind=kind, tier=tier, original_coding=coding, height=height, width=width,
                   lr_height=lr and lr[0], lr_width=lr and lr[1])  # fmt: skip
    smallest = is_given(stored, ImageRequest(size=(1, 1)), limits, PIXEL_LIMIT)
    whole = height * width if coding is not None or lr is None else lr[0] * lr[1]
    assert smallest == (whole <= area)
    if not smallest:
        return
    figures = ImageFigures.of(stored)
    assert figures is not None
    bounds = figures.bounds(limits, PIXEL_LIMIT)

    def ask(region: str, size: str) -> Size:
        wanted = understand(region, size, "0", "default", "jpg", of=figures.size, bounds=bounds)
        TurnedRequest.of(wanted).check(stored, limits, PIXEL_LIMIT)
        return wanted.size

    def given(region: Region, size: Size) -> bool:
        return is_given(stored, ImageRequest(region=region, size=size), limits, PIXEL_LIMIT)

    told = info(BASE, figures, bounds, Caption(), given)
    assert told["sizes"]
    for size in told["sizes"]:
        assert ask("full", f"{size['width']},{size['height']}") == (size["height"], size["width"])
    ask("full", "max")
    (tiles,) = told["tiles"]
    tile, factors = tiles["width"], tiles["scaleFactors"]
    assert tile <= told["maxWidth"]
    assert tile * tile <= told["maxArea"]
    assert factors == [2**n for n in range(len(factors))] or tile == 1
    assert max(height, width) <= tile * factors[-1] or tile == 1
    for step in (tile * factor for factor in factors):
        for y in {0, (height - 1) // step * step}:
            for x in {0, (width - 1) // step * step}:
                w, h = min(step, width - x), min(step, height - y)
                ask(f"{x},{y},{w},{h}", f"{-(-w * tile // step)},{-(-h * tile // step)}")


def test_words_of_files_are_no_html() -> None:
    """Protects viewers from what a file says of itself: nothing begins as HTML does where they would show HTML."""
    bounds = Bounds(side=1000, area=10**6)
    caption = Caption(title="<b>x</b>", artist="<img src=x onerror=alert(1)>")
    figures = ImageFigures(size=(3, 4), lr_size=None, grey=True)
    found = manifest(
        BASE, BASE, "<i>k</i>", figures, bounds, caption, collection="https://example.org/c", entry="https://example.org/e"
    )
    for value in (*found["summary"]["none"], *found["requiredStatement"]["value"]["none"]):
        assert not value.startswith("<")
    assert found["label"] == {"none": ["<b>x</b>"]}  # labels are never HTML
