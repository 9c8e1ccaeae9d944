"""Names of assets: safe relative paths, one per asset, and the parts that tie a sample together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache

from pipeline.decoders.decoding import image_extensions

LONGEST_COMPONENT = 255
"""Bytes (UTF-8) of one path component, as file systems allow."""

LONGEST_KEY = 900
"""Bytes (UTF-8) of a whole key; S3 allows 1024, and an archive or a destination has a prefix of its own."""

_BESIDE = (  # what stands beside images; sound, films, documents, packed files, programs
    "txt text caption cls json jsonl parquet pq xml xmp csv tsv yaml yml html htm md npy npz pkl pyd pt pth aae thm "
    "mp3 wav flac m4a mp4 mov m4v avi mkv webm 3gp pdf doc docx xls xlsx ppt pptx odt svg eps ps ai zip gz bz2 xz zst 7z rar "
    "db ini log py js css exe raw"
)
_OTHERS = frozenset(_BESIDE.split())

_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
_ESCAPED = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff%]")
_DRIVE = re.compile(r"[A-Za-z]:")
_APPLE_DOUBLE = b"\0\5\x16\7"
_SHORTENED = re.compile(r"~[0-9a-f]{16}$")
_KEPT_STEM, _KEPT_SUFFIX = 160, 64  # bytes that a shortened component keeps of its parts; room is left for other suffixes


def split_stem(name: str) -> tuple[str, str]:
    """Split a name at the first dot of its base name, as WebDataset does: ``a/x.seg.png`` is ``a/x`` and ``seg.png``.

    Dots that begin the base name belong to the stem. Without another dot the suffix is empty.
    """
    base = name.rfind("/") + 1
    start = base
    while name.startswith(".", start):
        start += 1
    dot = name.find(".", start)
    return (name, "") if dot < 0 else (name[:dot], name[dot + 1 :])


def member_name(key: str, suffix: str) -> str:
    """Return the name of the sidecar ``suffix`` of the asset ``key``: beside it, with its stem; ``/x`` is x."""
    if suffix.startswith("/"):
        return key[: key.rfind("/") + 1] + suffix[1:]
    stem = split_stem(key)[0]
    return f"{stem}.{suffix}" if suffix else stem


def with_extension(key: str, extension: str) -> str:
    """Return ``key`` with another extension (without dot) in place of its image's, or behind it where it names no image."""
    if has_image_name(key):
        return f"{key.rpartition('.')[0]}.{extension}"
    return f"{key}.{extension}"


def has_image_name(name: str) -> bool:
    """Return whether the name ends as the name of an image does; a dot that begins the base name begins no extension."""
    return split_stem(name)[1].rpartition(".")[2].lower() in _extensions()


def is_of_another_kind(name: str) -> bool:
    """Return whether a name's extension says that the file is no image that is read; its first bytes need not be asked."""
    return split_stem(name)[1].rpartition(".")[2].lower() in _OTHERS


def is_hidden(name: str) -> bool:
    """Return whether the file or one of its folders begins with a dot."""
    if not name.startswith(".") and "/." not in name:
        return False  # asked for every name of a listing
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def is_litter(name: str, data: bytes | None) -> bool:
    """Return whether macOS put the file beside the real ones (``.DS_Store``, ``._x``); a tar made there has one per member.

    The latter begin as AppleDouble does (RFC 1740, appendix A); a file that is merely called so is none.
    """
    base = name[name.rfind("/") + 1 :]
    return base == ".DS_Store" or (base.startswith("._") and (data is None or data.startswith(_APPLE_DOUBLE)))


def safe_key(name: str) -> tuple[str, str | None]:
    """Return ``name`` as a safe relative path, and a sentence about it where that is another name.

    Safe is: no component empty, ``.``, ``..`` or longer than 255 bytes, no drive letter, backslash, control character or byte
    that is no UTF-8, at most 900 bytes in all. Safe names stay as they are. In others whatever is unsafe is percent-encoded (as
    is the percent sign, so that two of them never meet), and what is too long is cut and gets a digest.
    """
    parts = name.split("/")
    key = name
    if _DRIVE.match(name) or any(part in ("", ".", "..") or _UNSAFE.search(part) for part in parts):
        parts = [_encode(part) for part in parts]
        parts[0] = _DRIVE.sub(lambda match: match[0].replace(":", "%3A"), parts[0], count=1)
        key = "/".join(parts)
    if any(_size(part) > LONGEST_COMPONENT for part in parts):
        key = "/".join(_shorten(part) if _size(part) > LONGEST_COMPONENT else part for part in parts)
    if _size(key) > LONGEST_KEY:
        folder, _, base = key.rpartition("/")
        key = f"~{_digest(folder)}/{base}"
    if key == name:
        return name, None
    shown = name if name.isprintable() else ascii(name)
    return key, f"stored under {key}: the name {shown[:1000]} is not a safe relative path"


def safe_suffix(suffix: str) -> str:
    """Return the suffix of a sidecar, made safe as ``safe_key`` does for the end of a base name.

    A sidecar with a stem of its own, as Google Takeout has them, is known by ``/`` and its base name.
    """
    if suffix.startswith("/"):
        return "/" + safe_key(suffix[1:].replace("/", "%2F"))[0]
    if _UNSAFE.search(suffix) or "/" in suffix:
        suffix = _encode(suffix).replace("/", "%2F")
    if _size(suffix) <= _KEPT_STEM or (_size(suffix) <= _KEPT_STEM + 17 and _SHORTENED.search(suffix)):
        return suffix
    return f"{_clip(suffix, _KEPT_STEM)}~{_digest(suffix)}"


class UniqueNames:
    """Gives every asset of one shard a key of its own; remembers 8 bytes (about 70 in memory) of each name given out."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._counts: dict[int, int] = {}

    def take(self, name: str) -> bool:
        """Take exactly this name; return whether it was free."""
        number = digest_number(name)
        free = number not in self._taken
        self._taken.add(number)
        return free

    def claim(self, key: str, suffixes: Iterable[str] = ()) -> tuple[str, str | None]:
        """Return ``key``, or ``a~2.jpg`` for a second ``a.jpg``, and then a sentence that says so.

        The names of the sidecars ``suffixes`` must be free as well: they are written beside the asset.
        """
        suffixes = tuple(suffixes)
        stem, suffix = split_stem(key)
        first = digest_number(key)
        count, candidate = self._counts.get(first, 1), key
        while True:
            if count > 1:
                candidate = safe_key(f"{stem}~{count}.{suffix}" if suffix else f"{stem}~{count}")[0]
            names = {digest_number(candidate), *(digest_number(member_name(candidate, each)) for each in suffixes)}
            count += 1
            if self._taken.isdisjoint(names):
                break
        self._taken |= names
        if candidate == key:
            return key, None
        self._counts[first] = count
        return candidate, f"stored under {candidate}: another asset of this shard has the name {key}, or a sidecar's beside it"


@cache
def _extensions() -> frozenset[str]:
    return image_extensions()  # asked for every name of a listing


def _encode(part: str) -> str:
    if part in ("", ".", ".."):
        return {"": "%2F", ".": "%2E", "..": "%2E%2E"}[part]
    return _ESCAPED.sub(lambda match: _escape(ord(match[0])), part)


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        return f"%{code - 0xDC00:02X}"  # a byte that was no UTF-8, as os.fsdecode and tarfile hand it over
    return f"%{code:02X}" if code < 0x80 else f"%u{code:04X}"


def _shorten(part: str) -> str:
    stem, suffix = split_stem(part)
    if _size(suffix) > _KEPT_SUFFIX:
        suffix = suffix.rpartition(".")[2]  # the part that says what kind of file it is
    ending = f".{suffix}" if 0 < _size(suffix) <= _KEPT_SUFFIX else ""
    return f"{_clip(stem, _KEPT_STEM)}~{_digest(part)}{ending}"


def _clip(text: str, size: int) -> str:
    return text.encode("utf-8")[:size].decode("utf-8", "ignore")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def digest_number(name: str) -> int:
    """Return 8 bytes that stand for a name where very many are remembered."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
