"""The text of docs/bytes.md: how it was measured, and each folder's findings and tables."""

from __future__ import annotations

from collections.abc import Sequence

import imagecodecs
import numpy as np
import PIL
from PIL import features

from benchmarks.bytes_page.bench import Bench
from benchmarks.bytes_page.codecs import AVIF_SPEED, JXL_EFFORT
from benchmarks.bytes_page.curves import EXACT_DB, JPEG, TUNED, bytes_at, each_at, rising, whole
from benchmarks.bytes_page.rows import Folder, Row
from benchmarks.support.page import table

ROW_HEADINGS = (
    "scale",
    "tier",
    "bpp",
    "LR",
    "latent",
    "other",
    "PSNR-RGB",
    "worst",
    "PSNR-Y",
    "SSIM",
    "floor met",
    "lean",
    "kept",
)
RATIO_HEADINGS = ("x AVIF", "x AVIF, each", "x (LR + AVIF)", "x (own LR + AVIF)")
CODEC_HEADINGS = ("PSNR-RGB", "codec", "bpp, each image", "not reached", "bpp, one quality", "PSNR-Y", "SSIM")


def heading(bench: Bench, made_by: str, model: str) -> str:
    return f"""# Bytes

What archives take, against what image codecs take at the same quality. Everything on this page was measured in one run of

```sh
{made_by}
```

(folders elsewhere by their last name alone) with the weights `{model[:16]}…`, Pillow {PIL.__version__} (libavif
{features.version("avif")}) and imagecodecs {imagecodecs.__version__}; [bytes.json](bytes.json) has the figures.

**Archives** were made as `iarn rescale --lr-codec {bench.codec.value} --max-ratio inf` makes them, so that no entry is
kept as its source for its size alone. Their bytes are all that an entry stores for its image: LR, latent, alpha, original,
ICC, EXIF and XMP. Another process restored them to PNG files as `iarn restore --format png` does, from the stored bytes
alone, and measured those against the sources: PSNR over RGB, PSNR of the limited-range BT.601 luma, SSIM of the luma, on
whole images, means over them; then it checked all of each archive as `iarn verify --sample 1` does, which found nothing
wrong. An image that comes back exactly counts as its floor in a mean, or as {EXACT_DB:g} dB where
there is none. *Bpp*: bits per source pixel, the folder's bytes over its pixels.

**Codecs** coded the whole image, at several qualities each, with log(bytes) drawn straight between them: AVIF 4:4:4 at speed
{AVIF_SPEED}, tuned for PSNR ("{TUNED}") and as it comes; JPEG XL at effort {JXL_EFFORT}; WebP at method 6, which halves its
colour planes (it knows 4:2:0 alone), so that on coloured detail it has a ceiling; JPEG 4:4:4, progressive, tables optimised.

- **x AVIF**: our bytes over AVIF's, at one quality for all images and the same mean PSNR-RGB; the better of its two tunings.
- **x AVIF, each**: the same where every image just reaches the floor by a quality of its own.
- **x (LR + AVIF)**: our bytes over what one would keep otherwise, a lossless bicubic LR and that first AVIF. The lossless LR
  is coded as the archive's lossless ones; with `auto`, by the smaller of WebP and JPEG XL.
- **x (own LR + AVIF)**: the same with the archive's own LRs, which are coarser: `auto` codes them as AVIF, the others round
  their values. Only where there is a latent.

Below 1 the archive is smaller."""


def section(folder: Folder, floors: Sequence[float]) -> str:
    """Return all of one folder: what it holds, findings, the plot and both tables."""
    overhead = max(row.shards / row.bytes for row in folder.rows) - 1
    told = max(row.told_error for row in folder.rows)
    spikes = sum(len(rising(points)) < len(points) for points in folder.curves[JPEG])
    jpeg = f"""

Images that come back far better as a JPEG of one quality than as larger ones: {spikes}. They were JPEG files before, at those
very tables; such points are not in JPEG's curve."""
    return f"""## {folder.name}

{folder.images} images, {folder.pixels / 1e6:.1f} megapixels, in files of {folder.bpp(folder.source_bytes):.2f} bpp.
The archives' shard files, which also hold keys and digests, took up to {100 * overhead:.1f} % more than the bytes below. No
restore was further than {told:.4f} dB from the PSNR that its archive tells.{jpeg if spikes else ""}

{findings(folder)}

![Bits per pixel against PSNR and SSIM on {folder.name}](images/bytes-{folder.name}.png)

{table([*ROW_HEADINGS, *RATIO_HEADINGS], [row_cells(folder, each) for each in folder.rows])}

*Floor met*: images of {folder.images} that reach the floor. *Lean*: entries that are an LR alone. *Kept*: those that are the
source. *Other*: alpha, metadata and sources.

### Codecs on {folder.name}

{table(CODEC_HEADINGS, codec_rows(folder, floors))}

*Each image*: every image just reaches that PSNR; images that no quality tried takes there count with the nearest, and are
counted beside. *One quality*: the same for all images, at that mean PSNR; PSNR-Y and SSIM are of this one."""


def row_cells(folder: Folder, row: Row) -> list[str]:
    cells = [f"x{row.scale}", row.target]
    cells += [f"{folder.bpp(size):.3f}" for size in (row.bytes, row.lr, row.latent, row.rest)]
    cells += [f"{row.psnr:.2f}", f"{row.worst:.2f}", f"{row.psnr_y:.2f}", f"{row.ssim:.4f}"]
    cells += ["" if row.met is None else f"{row.met}", f"{row.lean}", f"{row.kept}"]
    cells += ["not reached" if row.to_avif is None else f"**{row.to_avif:.2f}**"]
    cells += ["" if row.to_avif_each is None else f"{row.to_avif_each:.2f}"]
    cells += ["not reached" if row.to_lr_avif is None else f"**{row.to_lr_avif:.2f}**"]
    return [*cells, "" if row.to_own_lr_avif is None else f"{row.to_own_lr_avif:.2f}"]


def codec_rows(folder: Folder, floors: Sequence[float]) -> list[list[str]]:
    rows = []
    for floor in floors:
        for codec, images in folder.curves.items():
            each, missed = each_at(images, floor)
            total = whole(images)
            one, reached = bytes_at(total, floor)
            curve = rising(total)
            levels = [point.psnr for point in curve]
            y, similarity = (np.interp(floor, levels, [getattr(p, name) for p in curve]) for name in ("psnr_y", "ssim"))
            mean_cells = [f"{folder.bpp(one):.3f}", f"{y:.2f}", f"{similarity:.4f}"] if reached else ["not reached", "", ""]
            rows.append([f"{floor:g}", codec, f"{folder.bpp(each):.3f}", f"{missed}", *mean_cells])
    return rows


def findings(folder: Folder) -> str:
    """Return what the figures say of wins and losses, floors met, and the best scale for each floor."""
    at_floors = [row for row in folder.rows if row.floor is not None]
    missed = [
        f"{name(row)} ({folder.images - (row.met or 0)}, worst {row.worst:.2f} dB)"
        for row in at_floors
        if row.met != folder.images
    ]
    lines = [
        "- Floors: " + (f"missed at {', '.join(missed)}." if missed else "every image reaches every floor.")
        if at_floors
        else ""
    ]
    others = {
        "to_avif": "AVIF at the same mean PSNR",
        "to_lr_avif": "a lossless LR and that AVIF",
        "to_own_lr_avif": "its own LR and that AVIF",
    }
    for ratio, title in others.items():
        known = [(row, round(getattr(row, ratio), 2)) for row in folder.rows if getattr(row, ratio) is not None]
        for verb, chosen in (
            ("More", [pair for pair in known if pair[1] > 1]),
            ("No more", [pair for pair in known if pair[1] <= 1]),
        ):
            listed = ", ".join(f"{name(row)} ({value:.2f})" for row, value in chosen)
            lines.append(f"- {verb} bytes than {title}: {listed or 'nowhere'}.")
    for floor in dict.fromkeys(row.floor for row in at_floors):
        best = min((row for row in at_floors if row.floor == floor), key=lambda row: row.bytes)
        ratio = "beyond the sweep of AVIF" if best.to_avif is None else f"{best.to_avif:.2f} x AVIF"
        lines.append(f"- Fewest bytes at a floor of {floor:g} dB: x{best.scale}, {folder.bpp(best.bytes):.3f} bpp, {ratio}.")
    return "\n".join(line for line in lines if line)


def name(row: Row) -> str:
    return f"x{row.scale} {row.target}"
