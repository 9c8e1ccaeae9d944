"""The documents of the IIIF by themselves: sizes and tiles within the limits, whatever the image; text that is no HTML."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.web.iiif.documents import ImageFigures, info, manifest
from jobs.web.iiif.parameters import Bounds, size_of
from pipeline.core.options import Limits
from pipeline.pictures.captions import Caption

BASE = "https://example.org/iiif/3/a/k"
sides = st.integers(1, 60_000)


@given(
    height=sides,
    width=sides,
    scale=st.integers(1, 16),
    side=st.integers(1, 20_000),
    area=st.integers(1, 10**8),
    lr=st.booleans(),
)
def test_what_is_told_may_be_asked_for(height: int, width: int, scale: int, side: int, area: int, lr: bool) -> None:
    """Protects 5.2 to 5.4: every size and tile that is told is within the limits and may be asked for."""
    lr_size = (-(-height // scale), -(-width // scale)) if lr else None
    figures = ImageFigures(size=(height, width), lr_size=lr_size, grey=False)
    bounds = figures.bounds(Limits(largest_side=side, most_pixels=area), pixel_limit=10**9)
    told = info(BASE, figures, bounds, Caption())
    assert told["sizes"]
    for size in told["sizes"]:
        assert size_of(f"{size['width']},{size['height']}", (height, width), bounds) == (size["height"], size["width"])
    (tiles,) = told["tiles"]
    assert tiles["width"] <= told["maxWidth"]
    assert tiles["width"] * tiles["height"] <= told["maxArea"]
    factors = tiles["scaleFactors"]
    assert factors == [2**n for n in range(len(factors))]
    assert max(height, width) <= tiles["width"] * factors[-1]
    assert factors[-1] == 1 or max(height, width) > tiles["width"] * factors[-2]


def test_words_of_files_are_no_html() -> None:
    """Protects viewers from what a file says of itself: nothing begins as HTML does where they would show HTML."""
    bounds = Bounds(side=1000, area=10**6)
    caption = Caption(title="<b>x</b>", artist="<img src=x onerror=alert(1)>")
    figures = ImageFigures(size=(3, 4), lr_size=None, grey=True)
    found = manifest(
        BASE, "<i>k</i>", figures, bounds, caption, collection="https://example.org/c", entry="https://example.org/e"
    )
    for value in (*found["summary"]["none"], *found["requiredStatement"]["value"]["none"]):
        assert not value.startswith("<")
    assert found["label"] == {"none": ["<b>x</b>"]}  # labels are never HTML
