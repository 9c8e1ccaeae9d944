"""The plots of docs/bytes.md: a folder's archives among the curves of the codecs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.bytes_page.curves import Point, rising, whole
from benchmarks.bytes_page.rows import Folder, Row
from pipeline.core.records import Tier


def plot(path: Path, folder: Folder) -> None:
    """Draw bits per pixel against PSNR-RGB, PSNR-Y and SSIM, archives and codecs, as one PNG."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(9, 9.5), layout="constrained")
        panels = figure.subplot_mosaic([["psnr", "psnr"], ["psnr_y", "ssim"]], height_ratios=(3, 2))
        titles = {"psnr": f"{folder.name}: mean PSNR-RGB, dB", "psnr_y": "mean PSNR-Y, dB", "ssim": "mean SSIM"}
        for value, title in titles.items():
            draw(panels[value], folder, value)
            panels[value].set_ylabel(title)
            panels[value].set_xlabel("bits per source pixel")
            panels[value].grid(alpha=0.3)
        panels["psnr"].legend()
        figure.savefig(path, dpi=110, metadata={"Software": None})


def draw(panel: Axes, folder: Folder, value: str) -> None:
    """Draw one panel: codecs dashed, as far as archives go; each scale's archives joined, those without a latent alone."""
    furthest = 1.15 * max(row.bytes for row in folder.rows)

    def line(points: Sequence[Row | Point]) -> tuple[list[float], list[float]]:
        return [folder.bpp(point.bytes) for point in points], [getattr(point, value) for point in points]

    for codec, images in folder.curves.items():
        panel.plot(*line([point for point in rising(whole(images)) if point.bytes <= furthest]), "--", linewidth=1, label=codec)
    for index, scale in enumerate(dict.fromkeys(row.scale for row in folder.rows), start=len(folder.curves)):
        own = sorted((row for row in folder.rows if row.scale == scale), key=lambda row: row.bytes)
        lean = [row for row in own if row.target == Tier.LEAN.value]
        others = [row for row in own if row.target != Tier.LEAN.value]
        panel.plot(*line(others), "o-", color=f"C{index}", markersize=4, label=f"iarn x{scale}")
        panel.plot(*line(lean), "*", color=f"C{index}", markersize=9, label=f"iarn x{scale}, lean")
