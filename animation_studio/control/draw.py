"""Drawing a pose as the map that OpenPose ControlNets were trained on.

Limb order, colours, shapes and sizes follow the annotator whose maps the training sets hold
(controlnet_aux 0.0.10, `open_pose/util.py`; a test compares the pixels): limbs are ellipses 4
pixels thick at 60 % of their colour, joints discs of radius 4 over them, hands lines 2 pixels
thick in the colours of the rainbow with blue discs, faces white discs of radius 3, all on maps
whose shorter side is 512 pixels. Here those sizes grow with the map, so that a map of 1024 pixels
looks like the annotator's one enlarged. NumPy only: users often have no OpenCV.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from ..errors import ControlError
from .raster import Color, Pixel, fill_disc, fill_polygon
from .skeleton import HAND_POINTS, Keypoint, Person, Points, Pose

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_SCALE", "MAX_SIDE", "MIN_SCALE", "MIN_SIDE", "draw_pose"]

MIN_SIDE, MAX_SIDE = 64, 8192
MIN_SCALE, MAX_SCALE = 0.05, 20.0

# The shorter side of the maps that the annotator draws, and its sizes on them in pixels.
_ANNOTATOR_SIDE = 512
_LIMB_HALF_WIDTH = 4
_JOINT_RADIUS = 4
_FACE_RADIUS = 3
_HAND_LINE_HALF_WIDTH = 1

_LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7)),  # shoulders, arms
    *((1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),  # sides, legs
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),  # head
)
# Once around the hue circle in 18 steps; joint and limb
# number n share a colour.
_COLORS: tuple[Color, ...] = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0)),
    *((0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255)),
    *((0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
_LIMB_INTENSITY = 0.6
# Four bones a finger, each finger from the wrist.
_BONES = tuple((0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, HAND_POINTS))
_HAND_JOINT: Color = (0, 0, 255)
_FACE_POINT: Color = (255, 255, 255)


def draw_pose(
    pose: Pose,
    width: int,
    height: int,
    *,
    mirror: bool = False,
    scale: float = 1.0,
    x: float = 0.0,
    y: float = 0.0,
) -> NDArray[np.uint8]:
    """Draw `pose` and return it as RGB, uint8 [height, width, 3], on black.

    The pose's canvas is fitted into the map, its aspect kept, and centred; then `scale` (0.05 to
    20) magnifies about the centre, and `x` and `y` (-1 to 1) move it by that fraction of the
    map's width and height. `mirror` flips left and right and swaps the sides, so that a right arm
    keeps a right arm's colour. What falls outside is cut. Raises ControlError for sides that are
    not 64 to 8192 pixels and for other values out of range.
    """
    import numpy as np

    _check_side("width", width)
    _check_side("height", height)
    _check_range("scale", scale, MIN_SCALE, MAX_SCALE)
    _check_range("x", x, -1.0, 1.0)
    _check_range("y", y, -1.0, 1.0)
    if mirror:
        pose = pose.mirrored()
    factor = min(width / pose.canvas_width, height / pose.canvas_height) * scale
    left = width * (0.5 + x) - pose.canvas_width / 2 * factor
    top = height * (0.5 + y) - pose.canvas_height / 2 * factor
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    painter = _Painter(canvas)
    for person in pose.people:
        painter.person(_placed(person, factor, left, top))
    return canvas


class _Painter:
    """Draws persons whose points are in map pixels."""

    def __init__(self, canvas: NDArray[np.uint8]) -> None:
        self._canvas = canvas
        self._size: float = min(canvas.shape[:2]) / _ANNOTATOR_SIDE

    def person(self, person: Person) -> None:
        self._body(person.body)
        for hand in (person.hand_left, person.hand_right):
            if hand is not None:
                self._hand(hand)
        radius = self._pixels(_FACE_RADIUS)
        for point in person.face or ():
            if point is not None:
                fill_disc(self._canvas, _pixel(point), radius, _FACE_POINT)

    def _body(self, points: Points) -> None:
        for (start, end), color in zip(_LIMBS, _COLORS, strict=False):
            first, last = points[start], points[end]
            if first is not None and last is not None:
                outline = _ellipse(first, last, self._pixels(_LIMB_HALF_WIDTH))
                fill_polygon(self._canvas, outline, _dimmed(color))
        radius = self._pixels(_JOINT_RADIUS)
        for point, color in zip(points, _COLORS, strict=True):
            if point is not None:
                fill_disc(self._canvas, _pixel(point), radius, color)

    def _hand(self, points: Points) -> None:
        half = self._pixels(_HAND_LINE_HALF_WIDTH)
        for number, (start, end) in enumerate(_BONES):
            first, last = points[start], points[end]
            if first is not None and last is not None:
                self._line(_pixel(first), _pixel(last), half, _rainbow(number / len(_BONES)))
        radius = self._pixels(_JOINT_RADIUS)
        for point in points:
            if point is not None:
                fill_disc(self._canvas, _pixel(point), radius, _HAND_JOINT)

    def _pixels(self, annotator_pixels: int) -> int:
        return max(1, round(annotator_pixels * self._size))

    def _line(self, start: Pixel, end: Pixel, half: int, color: Color) -> None:
        length = math.dist(start, end)
        if length:
            across = (end[1] - start[1]) / length * half, (start[0] - end[0]) / length * half
            sides = ((start, 1), (end, 1), (end, -1), (start, -1))
            quad = [
                (math.floor(px + sign * across[0] + 0.5), math.floor(py + sign * across[1] + 0.5))
                for (px, py), sign in sides
            ]
            fill_polygon(self._canvas, quad, color)
        fill_disc(self._canvas, start, half, color)
        fill_disc(self._canvas, end, half, color)


def _ellipse(first: Keypoint, last: Keypoint, half_width: int) -> list[Pixel]:
    """Return the outline of a limb, a pixel position a degree, cut to whole numbers as there."""
    dx, dy = first.x - last.x, first.y - last.y
    angle = math.radians(int(math.degrees(math.atan2(dy, dx))))
    half_length = int(math.hypot(dx, dy) / 2)
    center = int((first.x + last.x) / 2), int((first.y + last.y) / 2)
    cos, sin = math.cos(angle), math.sin(angle)
    return [
        (round(center[0] + u * cos - v * sin), round(center[1] + u * sin + v * cos))
        for u, v in _unit_circle(half_length, half_width)
    ]


def _unit_circle(a: int, b: int) -> Iterator[tuple[float, float]]:
    for degree in range(360):
        radians = math.radians(degree)
        yield a * math.cos(radians), b * math.sin(radians)


def _dimmed(color: Color) -> Color:
    red, green, blue = (int(channel * _LIMB_INTENSITY) for channel in color)
    return red, green, blue


def _rainbow(hue: float) -> Color:
    red, green, blue = (round(channel * 255) for channel in colorsys.hsv_to_rgb(hue, 1.0, 1.0))
    return red, green, blue


def _pixel(point: Keypoint) -> Pixel:
    return int(point.x), int(point.y)


def _placed(person: Person, factor: float, left: float, top: float) -> Person:
    def placed(points: Points) -> Points:
        return tuple(
            None if p is None else Keypoint(p.x * factor + left, p.y * factor + top, p.confidence)
            for p in points
        )

    parts: dict[str, Any] = {
        name: None if points is None else placed(points) for name, points in person
    }
    return person.model_copy(update=parts)


def _check_side(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ControlError(f"Pose map: {name} must be a whole number of pixels, not {value!r}.")
    if not MIN_SIDE <= int(value) <= MAX_SIDE:
        raise ControlError(
            f"Pose map: {name} is {value}; {MIN_SIDE} to {MAX_SIDE} pixels can be drawn."
        )


def _check_range(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= high:
        raise ControlError(f"Pose map: {name} is {value!r}; {low:g} to {high:g} is possible.")
