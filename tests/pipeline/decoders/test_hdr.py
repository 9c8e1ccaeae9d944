"""HDR photographs as people without HDR see them: as bright as they are up to white, and highlights that stay apart."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.support.pictures import decoded

LIGHT = (1.0, 26.0, 100.0, 150.0, 203.0, 400.0, 900.0)
"""In cd/m2, a stripe of each; 203 is white (ITU-R BT.2408)."""

BT2020, PQ, HLG = 9, 16, 18


def pq(light: float) -> float:
    """Return the signal of light in cd/m2 (SMPTE ST 2084, 5.2)."""
    power = (light / 10_000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def hlg(light: float) -> float:
    """Return the signal of light in cd/m2 on a screen of 1,000 (ITU-R BT.2100, table 5)."""
    scene = (light / 1_000) ** (1 / 1.2)
    return float((3 * scene) ** 0.5 if scene <= 1 / 12 else 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073)


def stripes(signal: Callable[[float], float]) -> NDArray[np.uint16]:
    """Return 10-bit samples (64, 16 a stripe, 3)."""
    row = np.repeat([round(1023 * signal(light)) for light in LIGHT], 16)
    return np.broadcast_to(row[None, :, None], (64, len(row), 3)).astype(np.uint16)


def avif(samples: NDArray[np.uint16], transfer: int) -> bytes:
    """Return a 10-bit AVIF."""
    said = {"primaries": BT2020, "transfer": transfer, "matrix": BT2020}
    return bytes(imagecodecs.avif_encode(samples, level=98, speed=9, bitspersample=10, **said))


def heic(samples: NDArray[np.uint16], transfer: int) -> bytes:
    """Return a 10-bit HEIC."""
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    made = heif.from_bytes("RGB;16", samples.shape[1::-1], np.left_shift(samples, 6).tobytes())
    file = BytesIO()
    made.save(file, quality=95, color_primaries=BT2020, transfer_characteristics=transfer, matrix_coefficients=BT2020)
    return file.getvalue()


@pytest.mark.parametrize("container", [avif, heic])
@pytest.mark.parametrize(("transfer", "signal"), [(PQ, pq), (HLG, hlg)])
def test_a_viewer_sees_light_as_it_is_and_highlights_apart(
    container: Callable[..., bytes], transfer: int, signal: Callable[[float], float]
) -> None:
    """Protects LRs of phones' HDR photographs from looking flat, or burnt out: by littleCMS they are right up to three
    quarters of white, and what is brighter goes on to get brighter."""
    picture = decoded(container(stripes(signal), transfer))
    assert picture.profile is not None
    shown = ImageCms.profileToProfile(
        Image.fromarray(picture.pixels), ImageCms.ImageCmsProfile(BytesIO(picture.profile)), ImageCms.createProfile("sRGB")
    )
    assert shown is not None
    levels = np.asarray(shown)[32, 8::16, 1].astype(float) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    for light, found in zip(LIGHT, linear, strict=True):
        if light <= 150:
            assert found == pytest.approx(light / 203, rel=0.06, abs=0.006), f"{light} cd/m2"
    assert (np.diff(levels) > 0.005).all(), levels
    assert 0.85 < linear[LIGHT.index(203.0)] < 0.9
