"""Colour that is said in numbers, and not by a profile: as the ICC profile that means the same, for other files.

Source: ITU-T H.273 (code points, as PNG's cICP and AVIF's nclx have them); W3C PNG, 11.3.2; ICC.1:2022, 8.3, 9.2 and 10
(profiles of a matrix and curves); SMPTE ST 2084, ITU-R BT.2100 (PQ, HLG).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.core.records import Carried

_D65 = (0.3127, 0.3290)
_C = (0.310, 0.316)
_SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: dict[int, tuple[tuple[float, ...], tuple[float, float]]] = {
    1: (_SRGB, _D65),
    4: ((0.67, 0.33, 0.21, 0.71, 0.14, 0.08), _C),
    5: ((0.64, 0.33, 0.29, 0.60, 0.15, 0.06), _D65),
    6: ((0.630, 0.340, 0.310, 0.595, 0.155, 0.070), _D65),
    7: ((0.630, 0.340, 0.310, 0.595, 0.155, 0.070), _D65),
    8: ((0.681, 0.319, 0.243, 0.692, 0.145, 0.049), _C),
    9: ((0.708, 0.292, 0.170, 0.797, 0.131, 0.046), _D65),
    11: ((0.680, 0.320, 0.265, 0.690, 0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320, 0.265, 0.690, 0.150, 0.060), _D65),
    22: ((0.630, 0.340, 0.295, 0.605, 0.155, 0.077), _D65),
}
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_TABLE = np.linspace(0, 1, 1024)
_WHITE = 203.0
"""White in cd/m2 where a curve is of absolute light (ITU-R BT.2408); what is brighter is rolled off."""
_KNEE = 0.75
"""The share of white from which on light is rolled off: what is darker is shown as bright as it is."""
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_PARAMETRIC: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 6, 14, 15), _BT709_CURVE),
    **{4: (2.2,), 5: (2.8,), 8: (1.0,), 13: _SRGB_CURVE},
}
_PQ, _HLG = 16, 18


def profile_of(parts: Sequence[Carried]) -> bytes | None:
    """Return a profile of the colours that carried parts of a PNG or AVIF tell; None where they are sRGB's, or are not told."""
    try:
        return _told_by({part.name: part.data for part in parts})
    except struct.error:  # a part that is cut off tells nothing
        return None


def _told_by(told: Mapping[str, bytes]) -> bytes | None:
    if "cICP" in told:
        return of_code_points(*struct.unpack_from("BB", told["cICP"], 8))
    if "nclx" in told:
        return of_code_points(*struct.unpack_from(">HH", told["nclx"]))
    if "sRGB" in told or not {"gAMA", "cHRM"} & told.keys():
        return None
    (gamma,) = struct.unpack_from(">I", told["gAMA"], 8) if "gAMA" in told else (45455,)
    chromaticities = (
        struct.unpack_from(">8I", told["cHRM"], 8) if "cHRM" in told else (31270, 32900, *(round(1e5 * x) for x in _SRGB))
    )
    return _of_gamma(gamma, chromaticities)


@lru_cache(maxsize=64)
def of_code_points(primaries: int, transfer: int) -> bytes | None:
    """Return a profile of the colours that code points of ITU-T H.273 say; None where they are sRGB's, or unknown.

    Where they are of more light than a screen's white (PQ, HLG), what is brighter is rolled off.
    """
    curve = _curve_of(transfer)
    if curve is None or primaries > 255 or (primaries == 1 and transfer == 13):
        return None
    return _profile(*_PRIMARIES.get(primaries, _PRIMARIES[1]), curve, bytes((primaries, transfer, 0, 1)))


@lru_cache(maxsize=64)
def _of_gamma(gamma: int, chromaticities: tuple[int, ...]) -> bytes | None:
    white_x, white_y, *primaries = (value / 100_000 for value in chromaticities)
    usual = np.allclose((*primaries, white_x, white_y), (*_SRGB, *_D65), atol=0.002)
    if gamma == 0 or not white_y or (usual and 45000 <= gamma <= 46000):
        return None
    try:
        curve = _parametric(_SRGB_CURVE if 45000 <= gamma <= 46000 else (100_000 / gamma,))
        with np.errstate(invalid="raise", divide="raise", over="raise"):
            return _profile(tuple(primaries), (white_x, white_y), curve)
    except (np.linalg.LinAlgError, struct.error, ArithmeticError):  # primaries on one line or at 0, a curve beyond numbers
        return None


def fitting(icc: bytes | None, *, grey: bool) -> bytes | None:
    """Return a profile for pixels written as grey or as RGB; one of grey becomes one of RGB with the same curve."""
    if icc is None or grey or icc[16:20] != b"GRAY":
        return icc
    try:
        (count,) = struct.unpack_from(">I", icc, 128)
        for index in range(count):
            name, start, size = struct.unpack_from(">4sII", icc, 132 + 12 * index)
            if name == b"kTRC":
                return _profile(*_PRIMARIES[1], icc[start : start + size])
    except struct.error:
        pass
    return None


def is_for_grey(icc: bytes | None) -> bool:
    """Return whether a file of grey alone may have a profile: none, or one of grey."""
    return icc is None or icc[16:20] == b"GRAY"


def _curve_of(transfer: int) -> bytes | None:
    if transfer in _PARAMETRIC:
        return _parametric(_PARAMETRIC[transfer])
    if transfer == _PQ:
        power = _TABLE ** (1 / 78.84375)
        light = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
        return _sampled(_rolled_off(10_000 / _WHITE * light))
    if transfer == _HLG:
        light = np.where(_TABLE <= 0.5, _TABLE**2 / 3, (np.exp((_TABLE - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        return _sampled(_rolled_off(1_000 / _WHITE * light**1.2))
    return None


def _rolled_off(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return light, 1 is white, below 1: a profile knows none above. Continuous, with its slope, at the knee."""
    beyond = np.maximum(light - _KNEE, 0)
    return np.minimum(light, _KNEE) + beyond / (1 + beyond / (1 - _KNEE))


def _parametric(values: tuple[float, ...]) -> bytes:
    return struct.pack(f">4s4xHH{len(values)}i", b"para", {1: 0, 5: 3}[len(values)], 0, *(round(65536 * v) for v in values))


def _sampled(light: NDArray[np.float64]) -> bytes:
    samples = np.rint(np.clip(light, 0, 1) * 65535).astype(">u2")
    return struct.pack(">4s4xI", b"curv", len(samples)) + samples.tobytes()


def _profile(primaries: tuple[float, ...], white: tuple[float, float], curve: bytes, code_points: bytes | None = None) -> bytes:
    """Return an ICC profile (version 4) of three colorants, from chromaticities, and one curve."""

    def light(x: float, y: float) -> NDArray[np.float64]:
        return np.array([x / y, 1.0, (1 - x - y) / y])

    colorants = np.stack([light(primaries[at], primaries[at + 1]) for at in (0, 2, 4)], axis=1)
    colorants = colorants * np.linalg.solve(colorants, light(*white))
    cones = np.diag(_BRADFORD @ _D50 / (_BRADFORD @ light(*white)))
    adapted = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD

    def fixed(values: NDArray[np.float64]) -> bytes:
        return np.rint(values * 65536).astype(">i4").tobytes()

    def text(words: str) -> bytes:
        return struct.pack(">4s4xII2s2sII", b"mluc", 1, 12, b"en", b"US", 2 * len(words), 28) + words.encode("utf-16-be")

    tags = {b"desc": text("as the source says"), b"cprt": text("CC0"), b"wtpt": b"XYZ \0\0\0\0" + fixed(_D50)}
    tags[b"chad"] = b"sf32\0\0\0\0" + fixed(adapted)
    tags |= {
        name: b"XYZ \0\0\0\0" + fixed(column)
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), (adapted @ colorants).T, strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    if code_points is not None:
        tags[b"cicp"] = b"cicp\0\0\0\0" + code_points
    places: dict[bytes, int] = {}
    body, table = b"", struct.pack(">I", len(tags))
    for name, data in tags.items():
        if data not in places:  # the three curves are one
            places[data] = 128 + 4 + 12 * len(tags) + len(body)
            body += data + bytes(-len(data) % 4)
        table += struct.pack(">4sII", name, places[data], len(data))
    head = struct.pack(
        ">I4xI4s4s4s12s4s", 128 + len(table) + len(body), 0x04400000, b"mntr", b"RGB ", b"XYZ ", bytes(12), b"acsp"
    )
    return head.ljust(68, b"\0") + fixed(_D50) + bytes(48) + table + body
