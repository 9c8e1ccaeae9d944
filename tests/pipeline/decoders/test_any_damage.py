"""Real files and shards with any damage: pictures or reasons, assets or sentences, and no process ends."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.assets import shards
from pipeline.core.errors import DecoderDied, ImageError, PipelineError
from pipeline.decoders.apart import DecoderApart
from pipeline.planning.sources import find_source
from pipeline.stores.store import open_store
from tests.support import pictures, workshop
from tests.support.containers import psd


@cache
def files() -> dict[str, bytes]:
    """Return real files of every format that is written by Pillow, and a PSD, with metadata where they hold some."""
    pixels, told = pictures.photo(24, 33), {"exif": pictures.exif(6), "icc": pictures.srgb_profile(), "xmp": pictures.XMP}
    rich = {form: pictures.with_metadata(pixels, form, **told) for form in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")}
    plain = {
        form: pictures.saved(pixels, form)
        for form in ("GIF", "BMP", "JPEG2000", "PPM", "ICO", "ICNS", "SGI", "PCX", "TGA", "QOI")
    } | {"PSD": psd()}
    sample = Path(__file__).parents[3] / "samples/kitten.jpg"
    return rich | plain | {"photograph": sample.read_bytes()[:60_000]}


@pytest.fixture(scope="module")
def apart() -> Iterator[DecoderApart]:
    """A decoder whose death ends no test run."""
    with DecoderApart(20) as decoder:
        yield decoder


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a real file with bytes changed, taken out, put in, doubled and cut off."""
    data = bytearray(files()[draw(st.sampled_from(sorted(files())))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1) | st.integers(0, min(200, len(data) - 1)))
        kind = draw(st.sampled_from(("change", "extreme", "remove", "insert", "double", "cut")))
        if kind == "change":
            noise = draw(st.binary(min_size=1, max_size=8))
            data[at : at + len(noise)] = noise
        elif kind == "extreme":
            data[at : at + 4] = draw(st.sampled_from((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80")))
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=64))
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 256))]
        else:
            del data[max(1, at) :]
        if not data:
            break
    return bytes(data)


@pytest.mark.slow
@given(data=damaged())
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_damage_to_a_picture_is_a_picture_or_a_reason(apart: DecoderApart, data: bytes) -> None:
    """Protects workers: whatever is done to a real file, decoding and recompressing it end soon, with pixels within the limit
    or one sentence, and no process dies of it."""
    try:
        picture = apart.decode(data, pixel_limit=1_000_000)
    except DecoderDied as error:
        raise AssertionError(f"{error}: {data.hex()}") from None
    except ImageError as error:
        workshop.sentence(f"Reason: {error}")
    else:
        assert picture.pixels.shape[0] * picture.pixels.shape[1] <= 1_000_000


@cache
def tables() -> dict[str, bytes]:
    """Return real shards."""
    folder = workshop.samples(3)
    buffer = io.BytesIO()
    pq.write_table(workshop.table_of(folder), buffer, write_page_checksum=True)
    tar = workshop.tar_of(member for sample in folder for member in sample.members.items())
    return {"parquet": buffer.getvalue(), "tar": tar, "gz": gzip.compress(tar)}


@given(kind=st.sampled_from(sorted(tables())), at=st.floats(0, 1), noise=st.binary(min_size=1, max_size=12))
@settings(max_examples=60)
def test_any_damage_to_a_shard_is_told(tmp_path_factory: pytest.TempPathFactory, kind: str, at: float, noise: bytes) -> None:
    """Protects jobs: whatever is done to a real tar, gzip or Parquet file, reading it ends with assets or one sentence."""
    folder = tmp_path_factory.mktemp("damaged")
    data = bytearray(tables()[kind])
    place = int(at * (len(data) - 1))
    data[place : place + len(noise)] = noise
    name = {"parquet": "x.parquet", "tar": "x.tar", "gz": "x.tar.gz"}[kind]
    (folder / name).write_bytes(data)
    for shard in find_source(str(folder)).shards:
        try:
            keys = [asset.key for asset in shards.read_assets(open_store(str(folder)), shard)]
            assert len(keys) == len(set(keys))
        except PipelineError as error:
            workshop.sentence(str(error))
