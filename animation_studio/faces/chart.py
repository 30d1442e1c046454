"""The histogram of a calibration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from .calibration import Calibration
from .drawing import (
    BACK,
    CARD,
    FAINT,
    GREEN,
    GREY,
    ORANGE,
    WHITE,
    Color,
    font,
    line_height,
    pixels_of,
    tag,
    tag_size,
    wrapped,
)

if TYPE_CHECKING:
    from .engine import Picture, Vectors

__all__ = ["histogram"]

_SIZE = 1280, 720
_PLOT = 84, 132, 1240, 560
_BINS = 48
_TITLE, _TEXT, _SMALL = 30, 20, 17


def histogram(calibration: Calibration) -> Picture:
    """Return the distributions of genuine and impostor scores with the proposed threshold.

    Both are drawn as shares of their own kind, since there are many more impostor scores. RGB,
    uint8 [720, 1280, 3].
    """
    image = Image.new("RGB", _SIZE, BACK)
    low, high = _range(calibration)
    counts = [
        (color, _shares(scores, low, high))
        for color, scores in ((ORANGE, calibration.impostor), (GREEN, calibration.genuine))
        if len(scores)
    ]
    top = max(float(shares.max()) for _, shares in counts)
    draw = ImageDraw.Draw(image)
    draw.rectangle(_PLOT, fill=CARD)
    _grid(draw, low, high, top)
    for color, shares in counts:
        _bars(image, shares / top, color)
    draw = ImageDraw.Draw(image)
    _lines(draw, calibration, low, high)
    _words(draw, calibration)
    return pixels_of(image)


def _range(calibration: Calibration) -> tuple[float, float]:
    values = [*calibration.impostor, *calibration.genuine, calibration.threshold]
    low, high = float(min(values)), float(max(values))
    margin = max((high - low) * 0.05, 0.01)
    return low - margin, high + margin


def _shares(scores: Vectors, low: float, high: float) -> Vectors:
    counts, _ = np.histogram(scores, bins=_BINS, range=(low, high))
    shares: Vectors = (counts / len(scores)).astype(np.float32)
    return shares


def _at(value: float, low: float, high: float) -> float:
    left, _, right, _ = _PLOT
    return left + (value - low) / (high - low) * (right - left)


def _grid(draw: ImageDraw.ImageDraw, low: float, high: float, most: float) -> None:
    left, top, right, bottom = _PLOT
    step = _step(high - low)
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        x = _at(number * step, low, high)
        draw.line((x, top, x, bottom), FAINT)
        label = f"{number * step:.{max(1, -math.floor(math.log10(step)))}f}"
        draw.text((x, bottom + 10), label, GREY, font(_SMALL), anchor="mt")
    step = _step(most)
    for number in range(1, math.floor(most / step) + 1):
        y = bottom - number * step / most * (bottom - top) * 0.94
        draw.line((left, y, right, y), FAINT)
        draw.text((left - 10, y), f"{number * step:.0%}", GREY, font(_SMALL), anchor="rm")
    draw.text((right, bottom + 36), "score", GREY, font(_SMALL), anchor="rt")
    draw.text((left, top - 12), "share of its kind", GREY, font(_SMALL), anchor="ls")


def _step(length: float) -> float:
    """Return 1, 2 or 5 times a power of ten that cuts a length into four to ten."""
    power = 10.0 ** math.floor(math.log10(length))
    return next(power * one for one in (0.1, 0.2, 0.5, 1.0) if length / (power * one) <= 10)


def _bars(image: Image.Image, heights: Vectors, color: Color) -> None:
    left, top, right, bottom = _PLOT
    width = (right - left) / _BINS
    shade = Image.new("L", image.size)
    draw = ImageDraw.Draw(shade)
    edges = [left + width * number for number in range(_BINS + 1)]
    for number, height in enumerate(heights):
        if height > 0:
            y = bottom - float(height) * (bottom - top) * 0.94
            bar = (round(edges[number]) + 1, round(y), round(edges[number + 1]) - 1, bottom - 1)
            draw.rectangle(bar, fill=170)
            draw.rectangle((bar[0], bar[1], bar[2], bar[1] + 2), fill=255)
    image.paste(Image.new("RGB", image.size, color), mask=shade)


def _lines(draw: ImageDraw.ImageDraw, calibration: Calibration, low: float, high: float) -> None:
    _, top, _, bottom = _PLOT
    if calibration.equal_error_threshold not in (None, calibration.threshold):
        x = _at(calibration.equal_error_threshold, low, high)
        for y in range(top, bottom, 12):
            draw.line((x, y, x, y + 5), GREY, 2)
    x = _at(calibration.threshold, low, high)
    draw.line((x, top, x, bottom), WHITE, 3)
    label = f"threshold {calibration.threshold:g}"
    width, height = tag_size(label, _TEXT)
    tag(draw, (round(x - width / 2), top - height - 4), label, _TEXT, FAINT)


def _words(draw: ImageDraw.ImageDraw, calibration: Calibration) -> None:
    left, _, right, bottom = _PLOT
    names = ", ".join(one.name for one in calibration.per_character)
    title = wrapped(names, _TITLE, right - left, 1)[0]
    draw.text((left, 22), title, WHITE, font(_TITLE))
    how = calibration.rule.replace("best k", f"best {calibration.k}")
    under = wrapped(f"{calibration.model}, score by {how}", _SMALL, right - left, 1)[0]
    draw.text((left, 62), under, GREY, font(_SMALL))
    y = bottom + 36
    x = left
    for color, text in (
        (GREEN, f"{len(calibration.genuine)} genuine scores"),
        (ORANGE, f"{len(calibration.impostor)} impostor scores"),
    ):
        draw.rectangle((x, y + 2, x + 16, y + 18), fill=color)
        draw.text((x + 26, y), text, WHITE, font(_TEXT))
        x += round(font(_TEXT).getlength(text)) + 66
    if calibration.equal_error_threshold not in (None, calibration.threshold):
        draw.line((x, y + 10, x + 6, y + 10), GREY, 2)
        draw.line((x + 12, y + 10, x + 18, y + 10), GREY, 2)
        equal = f"equal errors at {calibration.equal_error_threshold:.2f}"
        draw.text((x + 28, y), equal, GREY, font(_TEXT))
    _verdict(draw, calibration, y + line_height(_TEXT) + 12)


def _verdict(draw: ImageDraw.ImageDraw, calibration: Calibration, y: int) -> None:
    left, _, right, _ = _PLOT
    text = (
        f"At {calibration.threshold:g}: {calibration.measured_far:.1%} of impostors are accepted "
        f"(asked: at most {calibration.false_accept_rate:.2%})"
    )
    if calibration.measured_frr is not None:
        text += f", {calibration.measured_frr:.1%} of genuine faces are rejected"
    draw.text((left, y), wrapped(text, _TEXT, right - left, 1)[0], WHITE, font(_TEXT))
    if calibration.overlap:
        warning = "The scores overlap: no threshold keeps all of these faces apart."
        draw.text((left, y + line_height(_TEXT)), warning, ORANGE, font(_TEXT))
