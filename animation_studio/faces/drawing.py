"""Colours, type and lines of text for pictures about verdicts, with Pillow's own font."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from .engine import Picture

__all__ = [
    "BACK",
    "CARD",
    "FAINT",
    "GREEN",
    "GREY",
    "ORANGE",
    "RED",
    "WHITE",
    "Color",
    "font",
    "legible",
    "line_height",
    "pixels_of",
    "tag",
    "tag_size",
    "wrapped",
]

Color: TypeAlias = tuple[int, int, int]

BACK: Color = (18, 20, 24)
CARD: Color = (32, 35, 41)
FAINT: Color = (58, 63, 72)
GREY: Color = (160, 167, 178)
WHITE: Color = (240, 242, 245)
GREEN: Color = (38, 158, 82)
RED: Color = (200, 50, 55)
ORANGE: Color = (225, 130, 40)

# A character that no font has; what draws the same is missing from the font too.
_MISSING = "\U0010fffe"
_DASHES = str.maketrans("\u2010\u2011\u2012\u2013\u2014\u2212", "------")


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that comes with Pillow, `size` pixels high."""
    return ImageFont.load_default(size)


def line_height(size: int) -> int:
    """Return the distance between lines of text of this size, in pixels."""
    return round(size * 1.3)


def legible(text: str) -> str:
    """Return text on one line as the font can write it: without accents, "?" for what it lacks."""
    plain = unicodedata.normalize("NFKD", text.translate(_DASHES))
    return "".join(
        one if one == " " or (one.isprintable() and _has(one)) else "?"
        for one in plain
        if not unicodedata.combining(one)
    )


def wrapped(text: str, size: int, width: int, lines: int) -> list[str]:
    """Break text into at most `lines` lines of at most `width` pixels; the last may end in "…"."""
    face = font(size)
    found: list[str] = []
    words = legible(text).split()
    while words and len(found) < lines:
        line = words.pop(0)
        while words and face.getlength(f"{line} {words[0]}") <= width:
            line += f" {words.pop(0)}"
        if len(found) == lines - 1 and words:
            line += "…"
        found.append(_cut(line, size, width))
    return found


def tag(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, size: int, color: Color
) -> tuple[int, int]:
    """Draw text on a filled, rounded tag at its top left corner; return its width and height.

    The tag moves left or down so that it stays inside the picture.
    """
    width, height = tag_size(text, size)
    left = max(0, min(corner[0], draw.im.size[0] - width))
    top = max(0, min(corner[1], draw.im.size[1] - height))
    radius = size // 4
    draw.rounded_rectangle((left, top, left + width - 1, top + height - 1), radius, fill=color)
    middle = (left + width / 2, top + height / 2)
    draw.text(middle, legible(text), WHITE, font(size), anchor="mm")
    return width, height


def tag_size(text: str, size: int) -> tuple[int, int]:
    """Return the width and height that `tag` takes, in pixels."""
    return round(font(size).getlength(legible(text)) + size * 0.8), line_height(size) + 2


def pixels_of(image: Image.Image) -> Picture:
    """Return an RGB image as uint8 [height, width, 3] that may be written to."""
    pixels: Picture = np.array(image, dtype=np.uint8)
    return pixels


def _cut(line: str, size: int, width: int) -> str:
    if font(size).getlength(line) <= width:
        return line
    line = line.removesuffix("…")
    while line and font(size).getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


@lru_cache(maxsize=4096)
def _has(character: str) -> bool:
    return _drawn(character) != _drawn(_MISSING)


def _drawn(character: str) -> bytes:
    image = Image.new("L", (32, 40))
    ImageDraw.Draw(image).text((4, 4), character, 255, font(20))
    return image.tobytes()
