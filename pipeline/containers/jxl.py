"""JPEG XL: size and depth in its header. Source: ISO/IEC 18181-1 (SizeHeader, ImageMetadata); ISO/IEC 18181-2 (boxes)."""

from __future__ import annotations

from pipeline.containers.boxes import boxes

_CODESTREAM = b"\xff\x0a"
_HEAD = 32
_LENGTH_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


class _Bits:
    """The first bits of a codestream, from the lowest of each byte on."""

    def __init__(self, head: bytes) -> None:
        self._bits = int.from_bytes(head, "little")

    def take(self, count: int) -> int:
        """Return the next ``count`` bits."""
        value = self._bits & ((1 << count) - 1)
        self._bits >>= count
        return value

    def size(self) -> tuple[int, int]:
        """Return a SizeHeader: width and height."""
        small = self.take(1)

        def length() -> int:
            return 8 * (self.take(5) + 1) if small else self.take(_LENGTH_BITS[self.take(2)]) + 1

        height = length()
        ratio = self.take(3)
        if not ratio:
            return length(), height
        over, under = _RATIOS[ratio - 1]
        return height * over // under, height


def size(data: bytes) -> tuple[int, int]:
    """Return the width and height that the header of a JPEG XL file announces, 0 and 0 where it has none."""
    head = _codestream_head(data)
    return _Bits(head[2:]).size() if head.startswith(_CODESTREAM) else (0, 0)


def bits(data: bytes) -> int | None:
    """Return the bits per sample of a JPEG XL file; None where they are floating point, or told too far on."""
    head = _Bits(_codestream_head(data)[2:])
    head.size()
    if head.take(1):  # all default
        return 8
    if head.take(1):  # further fields: orientation, intrinsic size, preview, animation
        head.take(3)
        if head.take(1):
            head.size()
        if head.take(1) or head.take(1):
            return None
    if head.take(1):
        return None
    return (8, 10, 12)[kind] if (kind := head.take(2)) < 3 else head.take(6) + 1


def _codestream_head(data: bytes) -> bytes:
    """Return the first 32 bytes, or all there are, of a JPEG XL codestream, bare or in boxes (ISO/IEC 18181-2)."""
    if data.startswith(_CODESTREAM):
        return data[:_HEAD]
    head = b""
    for kind, _, start, end in boxes(data, 0, len(data)):
        if kind in (b"jxlc", b"jxlp"):
            start += 4 if kind == b"jxlp" else 0  # the part's number
            head += data[start : min(end, start + _HEAD)]
        if len(head) >= _HEAD:
            break
    return head[:_HEAD]
