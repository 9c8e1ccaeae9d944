"""The merged picture of a PSB, or of a PSD with layers, saved masks or deep channels, which Pillow refuses or gets wrong.

Source: Adobe, Photoshop File Formats Specification (header, layer and mask information, image data).
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.containers.psd import CHANNELS, PROFILE, end_of_pixels, is_large, resources, sections
from pipeline.core.errors import UndecodableImage, UnsupportedImage
from pipeline.decoders.eight_bits import of_samples
from pipeline.pictures import codecs

_BITMAP, _GREY, _INDEXED, _RGB, _CMYK, _DUOTONE, _LAB = 0, 1, 2, 3, 4, 8, 9
_MODES = {_BITMAP: "L", _GREY: "L", _DUOTONE: "L", _INDEXED: "P", _RGB: "RGB", _CMYK: "CMYK", _LAB: "LAB"}
_PLAIN, _RUNS = 0, 1


def merged(data: bytes) -> Image.Image:
    """Return the merged picture as L, LA, P, RGB, RGBA, CMYK or LAB, 8 bits a channel; deeper ones are rounded.

    Raises UnsupportedImage for modes and codings that are not read here, UndecodableImage where it is cut off.
    """
    channels, height, width, depth, mode = struct.unpack_from(">HIIHH", data, 12)
    _, _, layers, start = sections(data)
    (coding,) = struct.unpack_from(">H", data, start)
    if mode not in _MODES or coding not in (_PLAIN, _RUNS) or depth not in (1, 8, 16, 32):
        raise UnsupportedImage(f"it is a PSD of colour mode {mode}, {depth} bits and coding {coding}")
    count = CHANNELS.get(mode, 1)
    if channels < count or end_of_pixels(data) > len(data):
        raise UndecodableImage("PSD: its pixels are cut off")
    shown = count + (mode in (_GREY, _RGB) and channels > count and _first_extra_is_alpha(data, layers, start))
    lines = _planes(data, start + 2, coding, (channels, height, width, depth), shown)
    planes: list[NDArray[Any]] = [_eight_bits(plane, depth)[:, :width] for plane in lines]
    if mode == _BITMAP:
        planes = [255 - planes[0]]
    elif mode == _CMYK:
        planes = [255 - plane for plane in planes]  # stored inverted: 255 is no ink
    elif mode == _LAB:  # Pillow's a and b are signed
        planes = [planes[0], *(plane ^ 0x80 for plane in planes[1:])]
    name = _MODES[mode] + ("A" if shown > count else "")
    image = Image.frombytes(name, (width, height), np.stack(planes, -1).tobytes())
    if mode == _INDEXED:
        image.putpalette(bytes(np.frombuffer(data, np.uint8, 768, 30).reshape(3, 256).T.ravel()))
    return image


def profile(data: bytes) -> bytes | None:
    """Return the ICC profile of a PSD; None where it has none."""
    return next((data[start:end] for number, _, start, end in resources(data) if number == PROFILE), None)


def _first_extra_is_alpha(data: bytes, layers: int, pixels: int) -> bool:
    """Return whether the first channel beyond the mode's is the merged picture's transparency: a negative count of layers."""
    length = ">Q" if is_large(data) else ">I"
    info = struct.unpack_from(length, data, layers)[0] if layers < pixels else 0
    return bool(info and struct.unpack_from(">h", data, layers + struct.calcsize(length))[0] < 0)


def _planes(data: bytes, start: int, coding: int, shape: tuple[int, int, int, int], count: int) -> list[NDArray[np.uint8]]:
    """Return the bytes of the first ``count`` channels, (H, bytes of a line) each."""
    channels, height, width, depth = shape
    line = -(-width * depth // 8)
    if coding == _PLAIN:
        found = np.frombuffer(data, np.uint8, count * height * line, start)
        return list(found.reshape(count, height, line))
    told = np.frombuffer(data, ">u4" if is_large(data) else ">u2", channels * height, start)
    lengths = told.astype(np.int64)
    ends = start + told.nbytes + np.cumsum(lengths)
    rows = np.empty((count * height, line), np.uint8)
    for number, (end, length) in enumerate(zip(ends[: count * height], lengths, strict=False)):
        row = codecs.unpack_bits(data[end - length : end][: 2 * line + 2])  # a byte of it takes two at most
        if len(row) < line:
            raise UndecodableImage("PSD: a line is too short")
        rows[number] = np.frombuffer(row, np.uint8, line)
    return list(rows.reshape(count, height, line))


def _eight_bits(plane: NDArray[np.uint8], depth: int) -> NDArray[np.uint8]:
    if depth == 8:
        return plane
    if depth == 1:
        return np.unpackbits(plane, axis=1) * np.uint8(255)
    if depth == 16:
        return of_samples(plane.view(">u2").astype(np.uint16))
    return of_samples(plane.view(">f4").astype(np.float32), stated=(0, 1))
