"""Pictures about pictures: faces with their verdicts, and contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from .chart import histogram
from .drawing import (
    BACK,
    CARD,
    FAINT,
    GREEN,
    GREY,
    RED,
    WHITE,
    Color,
    font,
    legible,
    line_height,
    pixels_of,
    tag,
    tag_size,
    wrapped,
)
from .engine import Face
from .judge import PictureVerdict, Unreadable, best_of

if TYPE_CHECKING:
    from .engine import Picture

__all__ = ["annotate", "contact_sheet", "histogram"]

_LEGIBLE_SIDE = 256
_LONGEST_SIDE = 8192
_TYPE = 13
_GAP = 12


def annotate(picture: Picture, verdict: PictureVerdict) -> Picture:
    """Return the picture with its faces boxed and scored and the verdict in a line below.

    A subject's face is green when it matches and red when not, strangers are red, other faces
    grey. Pictures whose shorter side is under 256 pixels are enlarged by a whole factor, so that
    the text can be read; all others keep their size.
    """
    image = Image.fromarray(np.ascontiguousarray(picture))
    factor = max(1, min(-(-_LEGIBLE_SIDE // min(image.size)), _LONGEST_SIDE // max(image.size)))
    if factor > 1:
        image = image.resize(
            (image.width * factor, image.height * factor), Image.Resampling.NEAREST
        )
    size = max(_TYPE, round(min(image.size) / 42))
    _draw_boxes(image, verdict, factor, size)
    _draw_banner(image, verdict, size)
    return pixels_of(image)


def contact_sheet(
    pictures: Sequence[Picture | Unreadable],
    verdicts: Sequence[PictureVerdict],
    *,
    columns: int | None = None,
    side: int = 256,
) -> Picture:
    """Return all pictures as a grid of thumbnails in order, each with number, verdict and score.

    `side` is a thumbnail's longer side in pixels (less where hundreds of pictures would make the
    sheet longer than 8192); `columns` is chosen for a wide sheet when None.
    """
    across = max(1, min(columns or _columns(len(verdicts)), max(1, len(verdicts))))
    down = max(1, -(-len(verdicts) // across))
    side = max(32, min(side, _LONGEST_SIDE // max(across, down) - 100))
    size = max(_TYPE, side // 17)
    # Number and score stand in one line above two lines of reason.
    card = side + _GAP, side + tag_size("0", size)[1] + 2 * line_height(_small(size)) + 2 * _GAP
    head = line_height(size) + _GAP
    sheet = Image.new(
        "RGB", (across * (card[0] + _GAP) + _GAP, down * (card[1] + _GAP) + head), BACK
    )
    draw = ImageDraw.Draw(sheet)
    best = best_of(verdicts)
    title = wrapped(_summary(verdicts), size, sheet.width - 2 * _GAP, 1)[0]
    draw.text((_GAP, head / 2), title, WHITE, font(size), anchor="lm")
    for place, (picture, verdict) in enumerate(zip(pictures, verdicts, strict=True)):
        row, column = divmod(place, across)
        made = _card(picture, verdict, card, side, size, best=place == best)
        sheet.paste(made, (_GAP + column * (card[0] + _GAP), head + row * (card[1] + _GAP)))
    return pixels_of(sheet)


def _draw_boxes(image: Image.Image, verdict: PictureVerdict, scale: float, size: int) -> None:
    """Draw boxes, and tags of type `size` where it is not 0; `scale` is from picture to image."""
    draw = ImageDraw.Draw(image)
    thick = max(2, round(min(image.size) / 250))
    claimed = {one.face: one for one in verdict.subjects if one.face is not None}
    # Faces that matter come last, over the others.
    order = sorted(range(len(verdict.faces)), key=lambda one: (one in claimed, -one))
    for index in order:
        subject = claimed.get(index)
        color, text = GREY, ""
        if subject is not None:
            color = GREEN if subject.match else RED
            text = f"{subject.character} {subject.score:.2f}"
        elif index in verdict.strangers:
            color, text = RED, "stranger"
        left, top, right, bottom = _inside(verdict.faces[index], scale, image.size)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=BACK, width=thick + 2)
        draw.rectangle((left, top, right, bottom), outline=color, width=thick)
        if text and size:
            tag(draw, (left, top - tag_size(text, size)[1]), text, size, color)


def _inside(face: Face, scale: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a face's box in pixels of an image, cut to it and never inside out."""
    left, top, right, bottom = (round(value * scale) for value in face.box)
    left, top = max(0, min(left, size[0] - 3)), max(0, min(top, size[1] - 3))
    return left, top, max(left + 2, min(right, size[0] - 1)), max(top + 2, min(bottom, size[1] - 1))


def _draw_banner(image: Image.Image, verdict: PictureVerdict, size: int) -> None:
    word, color = _word(verdict)
    pad = size // 2
    chip = tag_size(word, size)
    room = image.width - chip[0] - 3 * pad
    lines = wrapped(verdict.reason, size, max(room, size), 3)
    height = max(chip[1], len(lines) * line_height(size)) + 2 * pad
    top = image.height - height
    shade = Image.new("RGB", (image.width, height), BACK)
    image.paste(shade, (0, top), Image.new("L", shade.size, 200))
    draw = ImageDraw.Draw(image)
    tag(draw, (pad, top + (height - chip[1]) // 2), word, size, color)
    middle = top + height / 2 - (len(lines) - 1) * line_height(size) / 2
    for number, line in enumerate(lines):
        place = (chip[0] + 2 * pad, middle + number * line_height(size))
        draw.text(place, line, WHITE, font(size), anchor="lm")


def _card(
    picture: Picture | Unreadable,
    verdict: PictureVerdict,
    size: tuple[int, int],
    side: int,
    type_size: int,
    *,
    best: bool,
) -> Image.Image:
    word, color = _word(verdict)
    card = Image.new("RGB", size, CARD)
    draw = ImageDraw.Draw(card)
    thumbnail = _thumbnail(picture, verdict, side, type_size)
    edge = (size[0] - side) // 2
    draw.rectangle((edge, edge, edge + side - 1, edge + side - 1), fill=BACK)
    card.paste(
        thumbnail,
        (edge + (side - thumbnail.width) // 2, edge + (side - thumbnail.height) // 2),
    )
    top = edge + side + edge
    chip = tag(draw, (edge, top), f"{verdict.index + 1}  {word}", type_size, color)
    middle = top + chip[1] / 2
    score = "no score" if verdict.score is None else f"{verdict.score:.2f}"
    draw.text(
        (size[0] - edge, middle), f"best  {score}" if best else score, WHITE, font(type_size), "rm"
    )
    small = _small(type_size)
    for number, line in enumerate(wrapped(verdict.reason, small, side, 2)):
        height = top + chip[1] + edge / 2 + (number + 0.5) * line_height(small)
        draw.text((edge, height), line, GREY, font(small), anchor="lm")
    draw.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=color, width=2)
    return card


def _thumbnail(
    picture: Picture | Unreadable, verdict: PictureVerdict, side: int, type_size: int
) -> Image.Image:
    if isinstance(picture, Unreadable) or not picture.size:
        blank = Image.new("RGB", (side, side), FAINT)
        draw = ImageDraw.Draw(blank)
        draw.text((side / 2, side / 2), "not readable", GREY, font(type_size), anchor="mm")
        return blank
    image = Image.fromarray(np.ascontiguousarray(picture))
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    how = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    image = image.resize((width, height), how)
    _draw_boxes(image, verdict, scale, 0)
    return image


def _word(verdict: PictureVerdict) -> tuple[str, Color]:
    return ("KEPT", GREEN) if verdict.keep else ("REJECTED", RED)


def _summary(verdicts: Sequence[PictureVerdict]) -> str:
    if not verdicts:
        return "no pictures"
    kept = sum(verdict.keep for verdict in verdicts)
    names = ", ".join(one.character for one in verdicts[0].subjects)
    return legible(f"{names}: {kept} of {len(verdicts)} kept")


def _columns(count: int) -> int:
    """Return a number of columns that leaves few holes and makes the sheet wider than high."""
    wish = max(1, math.ceil(math.sqrt(count * 1.6)))
    return min(range(wish, wish + 2), key=lambda columns: (-count % columns, columns))


def _small(size: int) -> int:
    return max(_TYPE - 1, round(size * 0.86))
