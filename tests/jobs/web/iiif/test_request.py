"""What becomes of a restored picture before it is a file: turns, white below it, grey, black and white."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from jobs.web.iiif.parameters import Bounds, understand
from jobs.web.iiif.request import TurnedRequest, in_tone, on_white, turned
from pipeline.core.errors import InvalidOption
from pipeline.pictures.picture import Picture
from tests.support.pictures import decoded, photo, saved, srgb_profile

BOUNDS = Bounds(side=20_000, area=10**9)


def picture(*, channels: int = 3, deep: bool = False, height: int = 300, width: int = 20) -> Picture:
    """Return a picture of more lines than are computed at once."""
    found = decoded(saved(photo(height, width, channels, 1), "PNG", icc_profile=srgb_profile()))
    if not deep:
        return found
    alpha = None if found.alpha is None else found.alpha.astype(np.uint16) * 257
    return Picture(**{**vars(found), "pixels": found.pixels.astype(np.uint16) * 257, "alpha": alpha})


def test_requests_travel() -> None:
    """Protects replicas in other processes: a request arrives as it was, and says all that makes its image."""
    asked = understand("1,2,3,4", "^pct:150", "!270", "bitonal", "webp", of=(50, 60), bounds=BOUNDS)
    request = TurnedRequest.of(asked)
    assert pickle.loads(pickle.dumps(request)) == request
    assert (request.region, request.size, request.degrees, request.mirrored) == ((1, 2, 3, 4), (6, 5), 270, True)
    assert (request.form, request.tone) == ("webp", "bitonal")


@pytest.mark.parametrize("deep", [False, True])
def test_what_shows_through_is_white(deep: bool) -> None:
    """Protects JPEGs of pictures with alpha: what is hidden is white, what is shown keeps its colour, at every depth."""
    whole = picture(channels=4, deep=deep)
    assert whole.alpha is not None
    most = np.iinfo(whole.pixels.dtype).max
    whole.alpha[:100], whole.alpha[100:280], whole.alpha[280:] = 0, most, most // 2
    shown = on_white(whole)
    assert shown.alpha is None
    assert (shown.pixels[:100] == most).all()
    assert np.array_equal(shown.pixels[100:280], whole.pixels[100:280])
    half = (whole.pixels[280:].astype(float) * (most // 2) + most * (most - most // 2)) / most
    assert np.abs(shown.pixels[280:] - half).max() <= 0.5
    assert on_white(shown) is shown


@pytest.mark.parametrize("deep", [False, True])
def test_tones(deep: bool) -> None:
    """Protects 4.4: grey is the luma, bitonal the side of one half that it is on, and neither has a profile of colours."""
    whole = picture(deep=deep)
    grey, two = in_tone(whole, "gray"), in_tone(whole, "bitonal")
    luma = whole.pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey.pixels - luma[..., None]).max() <= 0.51
    assert (grey.pixels.dtype, two.pixels.dtype) == (whole.pixels.dtype, np.uint8)
    assert set(np.unique(two.pixels)) == {0, 255}
    assert (two.pixels[..., 0] == 255)[luma > 0.51 * luma.dtype.type(np.iinfo(whole.pixels.dtype).max)].all()
    assert (grey.mode, grey.grey, grey.profile) == ("L", True, None)
    assert in_tone(whole, "color") is in_tone(whole, "default") is whole


def test_turns_turn_alpha_as_well() -> None:
    """Protects pictures with alpha: it goes where its pixels go."""
    whole = picture(channels=4, height=6, width=9)
    assert whole.alpha is not None
    found = turned(whole, 90, mirrored=True)
    assert found.alpha is not None
    assert np.array_equal(found.pixels, np.rot90(whole.pixels[:, ::-1], -1))
    assert np.array_equal(found.alpha, np.rot90(whole.alpha[:, ::-1], -1))


def test_what_a_format_cannot_hold_is_refused() -> None:
    """Protects 4.5: a side beyond a format's is the client's error, and never another format than was asked for."""
    with pytest.raises(InvalidOption):
        TurnedRequest(form="webp").written(picture(height=17_000, width=2))
    data, form = TurnedRequest(form="jpeg", degrees=90).written(picture(channels=4, height=40, width=30))
    assert (form, decoded(data).pixels.shape) == ("jpeg", (30, 40, 3))
