"""People as OpenPose keypoints: the models, and the JSON in which they travel.

Two forms are read: OpenPose's own JSON (`{"people": [...], "canvas_width": ..., "canvas_height":
...}`) and the POSE_KEYPOINT value of ComfyUI's OpenPose and DWPose nodes, a list of such objects,
one a frame. Coordinates are pixels of the canvas, x to the right, y down; some node versions write
fractions of the canvas instead, which is recognised. Layouts of the keypoints:
https://github.com/CMU-Perceptual-Computing-Lab/openpose/blob/master/doc/02_output.md
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..errors import ControlError, StudioError
from ..files import read_limited

__all__ = [
    "BODY_POINTS",
    "FACE_POINTS",
    "HAND_POINTS",
    "MAX_FILE_BYTES",
    "MAX_PEOPLE",
    "Keypoint",
    "Person",
    "Points",
    "Pose",
]

MAX_FILE_BYTES = 1 << 20
MAX_PEOPLE = 20
MAX_CANVAS = 16384
MAX_COORDINATE = 1e6

BODY_POINTS = 18
HAND_POINTS = 21
# 68 facial landmarks, or those and the two pupils.
FACE_POINTS = (68, 70)

# BODY_25 has the middle of the hips at 8 and the feet at 19-24; the 18-point body has neither.
_BODY_25_TO_18 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
# nose, neck, right arm, left arm, right leg, left leg, eyes, ears (the person's own right first).
_BODY_MIRROR = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
_FACE_MIRROR = (
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *range(27, 31),  # bridge of the nose
    *range(35, 30, -1),  # nostrils
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *range(54, 47, -1),  # outer lips, upper
    *range(59, 54, -1),  # outer lips, lower
    *range(64, 59, -1),  # inner lips, upper
    *range(67, 64, -1),  # inner lips, lower
    *(69, 68),  # pupils
)


class Keypoint(NamedTuple):
    """One found point: x and y in canvas pixels, confidence above 0."""

    x: float
    y: float
    confidence: float = 1.0


Points = tuple[Keypoint | None, ...]


class Person(BaseModel):
    """One person: 18 body points in OpenPose (COCO) order, and optional hands and face.

    A point that was not found is None. Left and right are the person's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    body: Points
    face: Points | None = None
    hand_left: Points | None = None
    hand_right: Points | None = None

    @field_validator("body")
    @classmethod
    def _body_has_18(cls, points: Points) -> Points:
        return _counted(points, (BODY_POINTS,))

    @field_validator("face")
    @classmethod
    def _face_has_68_or_70(cls, points: Points | None) -> Points | None:
        return None if points is None else _counted(points, FACE_POINTS)

    @field_validator("hand_left", "hand_right")
    @classmethod
    def _hand_has_21(cls, points: Points | None) -> Points | None:
        return None if points is None else _counted(points, (HAND_POINTS,))

    def mirrored(self, width: float) -> Person:
        """Return this person flipped left-right on a canvas of `width` pixels, sides swapped."""
        return self.model_copy(
            update={
                "body": tuple(_flipped(self.body[index], width) for index in _BODY_MIRROR),
                "face": _mirrored_face(self.face, width),
                "hand_left": _mirrored_hand(self.hand_right, width),
                "hand_right": _mirrored_hand(self.hand_left, width),
            }
        )


class Pose(BaseModel):
    """People on a canvas of `canvas_width` by `canvas_height` pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    canvas_width: int = Field(ge=2, le=MAX_CANVAS)
    canvas_height: int = Field(ge=2, le=MAX_CANVAS)
    people: tuple[Person, ...] = Field(default=(), max_length=MAX_PEOPLE)
    name: str = Field(default="", max_length=100)
    description: str = Field(default="", max_length=500)

    @classmethod
    def from_openpose(cls, data: object, *, source: str = "OpenPose JSON") -> Pose:
        """Build a pose from one decoded OpenPose object.

        Bodies of 18 or 25 points (BODY_25, reduced to 18), hands of 21, faces of 68 or 70 points,
        three numbers each; a missing key, null or an empty list means none; unknown keys are
        ignored. A point is missing when its confidence is 0 (or below) or it lies at (0, 0); in
        hands and faces also when it lies on or beyond the canvas's left or top edge, which is how
        the annotators mark it. If no coordinate of the frame is above 1, they are fractions of
        the canvas. Raises ControlError, naming `source`, the key and what is wrong with it.
        """
        return _parse_frame(data, source)

    @classmethod
    def from_keypoints(cls, data: object, frame: int = 0, *, source: str = "POSE_KEYPOINT") -> Pose:
        """Build a pose from frame number `frame` (from 0) of a POSE_KEYPOINT value.

        `data` is a list of OpenPose objects, one a frame, or a single such object. Raises
        ControlError when there is no such frame, and as `from_openpose` does.
        """
        if isinstance(data, Mapping):
            data = [data]
        if not isinstance(data, Sequence) or isinstance(data, (str, bytes, bytearray)):
            raise ControlError(
                f"{source}: a list of OpenPose objects was expected, not {_kind(data)}. "
                "Connect the POSE_KEYPOINT output of an OpenPose or DWPose node."
            )
        if not 0 <= frame < len(data):
            raise ControlError(
                f"{source}: there is no frame {frame}; it has {len(data)} (the first is 0)."
            )
        where = source if len(data) == 1 else f"{source}, frame {frame}"
        return _parse_frame(data[frame], where)

    @classmethod
    def read(cls, path: Path) -> Pose:
        """Read a pose file: UTF-8 JSON of at most 1 MiB, in either form (a list's first frame).

        Raises ControlError, naming the file, when it cannot be read or holds no pose.
        """
        try:
            data = json.loads(read_limited(path, MAX_FILE_BYTES, "pose file"))
        except OSError as error:
            raise ControlError(f"{path}: cannot be read: {error.strerror or error}.") from error
        except StudioError as error:
            raise ControlError(str(error)) from error
        except (ValueError, RecursionError) as error:
            # ValueError covers JSONDecodeError, bad UTF-8 and numbers of absurd length.
            raise ControlError(f"{path}: this is not JSON: {error}.") from error
        return cls.from_keypoints(data, source=str(path))

    def to_openpose(self) -> dict[str, object]:
        """Return the pose as an OpenPose object: flat lists of x, y, confidence in pixels.

        Numbers are rounded to 1/100 pixel. `name` and `description` are added where set.
        """
        data: dict[str, object] = {}
        if self.name:
            data["name"] = self.name
        if self.description:
            data["description"] = self.description
        data["canvas_width"] = self.canvas_width
        data["canvas_height"] = self.canvas_height
        data["people"] = [_person_to_openpose(person) for person in self.people]
        return data

    def to_json(self) -> bytes:
        """Return the pose as compact OpenPose JSON (UTF-8, one line)."""
        text = json.dumps(
            self.to_openpose(), ensure_ascii=False, separators=(",", ":"), allow_nan=False
        )
        return (text + "\n").encode()

    def mirrored(self) -> Pose:
        """Return the pose flipped left-right; what was a right arm is now a left one."""
        people = tuple(person.mirrored(self.canvas_width) for person in self.people)
        return self.model_copy(update={"people": people})


def _counted(points: Points, allowed: tuple[int, ...]) -> Points:
    if len(points) not in allowed:
        expected = " or ".join(str(count) for count in allowed)
        raise ValueError(f"{expected} points expected, got {len(points)}")
    for point in points:
        if point is None:
            continue
        if not all(math.isfinite(v) and abs(v) <= MAX_COORDINATE for v in point):
            raise ValueError(f"a coordinate is not finite, or above {MAX_COORDINATE:,.0f}")
    return points


def _flipped(point: Keypoint | None, width: float) -> Keypoint | None:
    return None if point is None else Keypoint(width - point.x, point.y, point.confidence)


def _mirrored_face(points: Points | None, width: float) -> Points | None:
    if points is None:
        return None
    return tuple(_flipped(points[index], width) for index in _FACE_MIRROR[: len(points)])


def _mirrored_hand(points: Points | None, width: float) -> Points | None:
    return None if points is None else tuple(_flipped(point, width) for point in points)


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _parse_frame(data: object, source: str) -> Pose:
    if not isinstance(data, Mapping):
        raise ControlError(f"{source}: an OpenPose object was expected, not {_kind(data)}.")
    people = data.get("people")
    if people is None and "animals" in data:
        raise ControlError(f"{source}: this holds animals; only people can be drawn.")
    if not isinstance(people, Sequence) or isinstance(people, (str, bytes, bytearray)):
        raise ControlError(f"{source}: 'people' must be a list, not {_kind(people)}.")
    if len(people) > MAX_PEOPLE:
        raise ControlError(
            f"{source}: 'people' has {len(people):,} entries; at most {MAX_PEOPLE} are drawn."
        )
    width = _canvas_side(data, "canvas_width", source)
    height = _canvas_side(data, "canvas_height", source)
    raw = [_parse_person(person, f"{source}: people[{i}]") for i, person in enumerate(people)]
    if _are_fractions(raw):
        raw = [{key: _scaled(points, width, height) for key, points in p.items()} for p in raw]
    return Pose(
        canvas_width=width,
        canvas_height=height,
        people=tuple(_person(parts) for parts in raw if any(map(any, parts.values()))),
        name=_text(data, "name", 100, source),
        description=_text(data, "description", 500, source),
    )


def _canvas_side(data: Mapping[str, object], key: str, source: str) -> int:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ControlError(
            f"{source}: '{key}' must be the canvas size in pixels, not {_kind(value)}."
        )
    side = float(value)
    if not (math.isfinite(side) and side == int(side) and 2 <= side <= MAX_CANVAS):
        raise ControlError(f"{source}: '{key}' is {value}; 2 to {MAX_CANVAS} pixels are possible.")
    return int(side)


def _text(data: Mapping[str, object], key: str, limit: int, source: str) -> str:
    value = data.get(key, "")
    if not isinstance(value, str) or len(value) > limit:
        raise ControlError(f"{source}: '{key}' must be a text of at most {limit} characters.")
    return value


def _parse_person(person: object, where: str) -> dict[str, Points]:
    if not isinstance(person, Mapping):
        raise ControlError(f"{where} must be an object, not {_kind(person)}.")
    body = _parse_points(person, "pose_keypoints_2d", (BODY_POINTS, 25), where)
    if len(body) == 25:
        body = tuple(body[index] for index in _BODY_25_TO_18)
    hands = (HAND_POINTS,)
    parts = {
        "face": _parse_points(person, "face_keypoints_2d", FACE_POINTS, where),
        "hand_left": _parse_points(person, "hand_left_keypoints_2d", hands, where),
        "hand_right": _parse_points(person, "hand_right_keypoints_2d", hands, where),
    }
    seen = {key: _without_marks(points) for key, points in parts.items()}
    return {"body": body, **seen}


def _parse_points(
    person: Mapping[str, object], key: str, counts: tuple[int, ...], where: str
) -> Points:
    values = person.get(key)
    if values is None:
        return ()
    where = f"{where}.{key}"
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes, bytearray)):
        raise ControlError(f"{where} must be a list of numbers, not {_kind(values)}.")
    if len(values) not in (0, *(3 * count for count in counts)):
        expected = " or ".join(str(3 * count) for count in counts)
        raise ControlError(
            f"{where} has {len(values):,} numbers; {expected} are expected (x, y, confidence of "
            f"{' or '.join(map(str, counts))} points)."
        )
    numbers = [_number(value, f"{where}[{index}]") for index, value in enumerate(values)]
    return tuple(
        Keypoint(x, y, confidence) if confidence > 0 and (x or y) else None
        for x, y, confidence in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    )


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ControlError(f"{where} must be a number, not {_kind(value)}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or abs(number) > MAX_COORDINATE:
        raise ControlError(
            f"{where} is {number}; a finite number up to {MAX_COORDINATE:,.0f} is expected."
        )
    return number


def _without_marks(points: Points) -> Points:
    """Drop the -1 with which the annotators mark hand and face points that they did not find."""
    return tuple(None if p is None or p.x <= 0 or p.y <= 0 else p for p in points)


def _are_fractions(people: Sequence[Mapping[str, Points]]) -> bool:
    found = [p for parts in people for points in parts.values() for p in points if p is not None]
    return bool(found) and all(point.x <= 1 and point.y <= 1 for point in found)


def _scaled(points: Points, width: int, height: int) -> Points:
    return tuple(
        None if p is None else Keypoint(p.x * width, p.y * height, p.confidence) for p in points
    )


def _person(parts: Mapping[str, Points]) -> Person:
    return Person(
        body=parts["body"] or (None,) * BODY_POINTS,
        face=_or_none(parts["face"]),
        hand_left=_or_none(parts["hand_left"]),
        hand_right=_or_none(parts["hand_right"]),
    )


def _or_none(points: Points) -> Points | None:
    return points if any(points) else None


def _person_to_openpose(person: Person) -> dict[str, list[float]]:
    parts = {
        "pose_keypoints_2d": person.body,
        "face_keypoints_2d": person.face,
        "hand_left_keypoints_2d": person.hand_left,
        "hand_right_keypoints_2d": person.hand_right,
    }
    return {key: _flat(points) for key, points in parts.items() if points is not None}


def _flat(points: Points) -> list[float]:
    return [_short(value) for point in points for value in (point or (0.0, 0.0, 0.0))]


def _short(value: float) -> float:
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded
