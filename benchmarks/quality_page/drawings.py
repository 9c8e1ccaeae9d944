"""Pictures that no photograph is like, drawn for docs/quality.md: text, line art, a screenshot, gradients, skies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.core.records import Pixels

SKY_NOISE = 0.7
"""Standard deviation of the drawn sky's noise, in 8-bit levels."""


def drawings() -> dict[str, Pixels]:
    """Draw text, line art and a screenshot, 288 x 384 pixels each."""
    painters = {
        "text, black on white": lambda pen: write_text(pen, "black"),
        "text, white on dark": lambda pen: write_text(pen, "white"),
        "screenshot": draw_window,
        "lines of 1 pixel": draw_lines,
        "checkerboards": draw_checks,
    }
    return {name: painted(paint, dark="dark" in name) for name, paint in painters.items()}


def painted(paint: Callable[[ImageDraw.ImageDraw], None], *, dark: bool) -> Pixels:
    canvas = Image.new("RGB", (384, 288), (24, 26, 36) if dark else "white")
    paint(ImageDraw.Draw(canvas))
    return np.array(canvas)


def write_text(pen: ImageDraw.ImageDraw, colour: str) -> None:
    top = 6
    for size in (9, 10, 11, 12, 14, 16, 18, 22, 28, 36):
        words = f"{size} px: The quick brown fox jumps over 1,234,567 lazy dogs"
        pen.text((6, top), words, fill=colour, font=ImageFont.load_default(size))
        top += round(size * 1.5)


def draw_window(pen: ImageDraw.ImageDraw) -> None:
    pen.rectangle((0, 0, 383, 25), fill=(44, 62, 80))
    pen.text((8, 6), "Settings", fill="white", font=ImageFont.load_default(13))
    for index, colour in enumerate(((231, 76, 60), (241, 196, 15), (46, 204, 113))):
        pen.ellipse((84 + 20 * index, 7, 95 + 20 * index, 18), fill=colour)
    pen.rectangle((0, 26, 90, 287), fill=(236, 240, 241))
    for index, word in enumerate(("General", "Pictures", "Storage", "Network", "About")):
        if index == 1:
            pen.rectangle((0, 32 + 26 * index, 90, 55 + 26 * index), fill=(52, 152, 219))
        shade = "white" if index == 1 else (60, 60, 60)
        pen.text((10, 36 + 26 * index), word, fill=shade, font=ImageFont.load_default(12))
    for index, (word, colour) in enumerate((("Save", (39, 174, 96)), ("Cancel", (192, 57, 43)), ("Help", (142, 68, 173)))):
        left = 104 + 66 * index
        pen.rounded_rectangle((left, 150, left + 58, 174), 5, fill=colour)
        pen.text((left + 12, 155), word, fill="white", font=ImageFont.load_default(12))
    for index in range(4):
        pen.rectangle((104, 40 + 26 * index, 116, 52 + 26 * index), outline=(120, 120, 120))
        pen.text((124, 39 + 26 * index), f"Option {index + 1} of this page", fill="black", font=ImageFont.load_default(11))
    pen.line((107, 46, 110, 50, 115, 41), fill=(39, 174, 96), width=2)
    for index in range(24):
        tall = 20 + round(40 * abs(math.sin(index)))
        pen.rectangle((104 + 11 * index, 280 - tall, 111 + 11 * index, 280), fill=(40 + 8 * index, 120, 220 - 8 * index))


def draw_lines(pen: ImageDraw.ImageDraw) -> None:
    for index in range(13):
        angle = index * math.pi / 24
        pen.line((8, 8, 8 + 360 * math.cos(angle), 8 + 270 * math.sin(angle)), fill="black")
    for radius in range(10, 90, 10):
        pen.ellipse((120 - radius, 120 - radius, 120 + radius, 120 + radius), outline=(190, 30, 30))
    for index in range(12):
        gap = 2 + index // 2
        pen.line((200 + index * gap, 200, 200 + index * gap, 280), fill=(20, 60, 200))
        pen.line((280, 200 + index * gap, 380, 200 + index * gap), fill=(10, 120, 40))


def draw_checks(pen: ImageDraw.ImageDraw) -> None:
    for row in range(288):
        for column in range(384):
            side = (1, 2, 4, 8)[(row // 96 + column // 96) % 4]
            if (row // side + column // side) % 2:
                pen.point((column, row), fill="black")


def smooth_pictures() -> dict[str, list[Pixels]]:
    """Draw gradients in several directions and colours, flat colours, and skies."""
    down, across = (axis / 191 for axis in np.mgrid[:192, :192].astype(np.float64))
    around = np.hypot(down - 0.5, across - 0.5) * math.sqrt(2)
    pairs = [
        ((0, 0, 0), (255, 255, 255)),
        ((20, 40, 160), (240, 200, 60)),
        ((200, 30, 40), (30, 160, 60)),
        ((90, 90, 90), (110, 130, 90)),
    ]
    gradients = [blend(ramp, *pair) for pair in pairs for ramp in (down, across, (down + across) / 2, around)]
    values = (0, 128, 255)
    flats = [np.full((192, 192, 3), (r, g, b), np.uint8) for r in values for g in values for b in values]
    draw = np.random.default_rng(0)
    skies = []
    for top, bottom in (((60, 110, 190), (190, 215, 240)), ((20, 20, 60), (230, 130, 80)), ((150, 160, 170), (215, 220, 225))):
        noise = draw.normal(0, SKY_NOISE, (192, 192, 3))
        skies.append(blend(down, top, bottom, noise))
    return {"gradients": gradients, "flat colours": flats, "skies": skies}


def blend(ramp: np.ndarray, low: Sequence[int], high: Sequence[int], noise: np.ndarray | float = 0.0) -> Pixels:
    levels = np.array(low) + ramp[..., None] * (np.array(high) - np.array(low)) + noise
    return levels.round().clip(0, 255).astype(np.uint8)
