"""Real faces for tests: pictures, who is where in them, edits after which a person is the same.

scripts/test fetches the pictures (scripts/bootstrap/faces.py) into the prepared folder:

    t1           six people around a table, from the wheel of insightface
    astronaut    Eileen Collins, by NASA, in the public domain, from the wheel of scikit-image
    sample1..6   groups of three to five women, from npm's @vladmandic/face-api

Nobody's names come with them, so a person here is "picture/number", counted from the left. Within
a picture all people are different. Across pictures this was established by looking at all of them:
the right woman of sample1 is the middle one of sample3 (two recognisers, ArcFace's and dlib's,
independently put that pair far before every other). Whether the middle woman of sample1 and the
left one of sample4 are one could not be told; no test should count on either.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from scripts.bootstrap.home import Home

__all__ = [
    "EDITS",
    "KNOWN_FACES",
    "STANDIN_PACK",
    "KnownFace",
    "different_people",
    "face_pictures",
    "insightface_root",
    "overlap",
    "portrait",
    "same_people",
    "who",
]

# The folder of det.onnx and rec.onnx (scripts/bootstrap/standin_faces.py): CenterFace and a
# MobileFaceNet, real weights in the form of insightface's packs.
STANDIN_PACK = "centerface_standin"


@dataclass(frozen=True)
class KnownFace:
    """A face in one of the pictures: where it is (left, top, right, bottom) and whose it is.

    The box is CenterFace's, from the hair line to the chin; a detector with another habit still
    overlaps it by a third or more. `hard` is why a detector or recogniser may be forgiven.
    """

    picture: str
    box: tuple[int, int, int, int]
    person: str
    hard: str = ""


def _of(picture: str, *boxes: tuple[int, int, int, int], **hard: str) -> Iterator[KnownFace]:
    for number, box in enumerate(boxes, start=1):
        yield KnownFace(picture, box, f"{picture}/{number}", hard.get(f"face{number}", ""))


def _known() -> Iterator[KnownFace]:
    yield from _of("sample1", (421, 372, 598, 600), (831, 432, 1032, 660), face2="eyes down")
    yield KnownFace("sample1", (1487, 235, 1675, 424), "sample3/2", "tilted by 25 degrees")
    yield from _of(
        "sample2",
        *((367, 158, 534, 430), (909, 236, 1073, 450), (1447, 173, 1642, 388)),
        face1="in profile",
        face2="eyes down, hair over one",
        face3="eyes down",
    )
    yield from _of("sample3", (586, 341, 795, 605), (1078, 205, 1310, 527), (1490, 278, 1689, 575))
    yield from _of(
        "sample4",
        *((258, 198, 424, 439), (657, 74, 847, 319), (987, 191, 1166, 421), (1275, 149, 1430, 394)),
        face1="out of focus",
        face3="half in profile, eyes down",
    )
    yield from _of(
        "sample5",
        *((370, 870, 576, 1180), (601, 425, 778, 667), (789, 115, 948, 330)),
        *((1124, 207, 1284, 430), (1409, 400, 1606, 668)),
    )
    yield from _of(
        "sample6",
        *((255, 490, 475, 769), (676, 331, 873, 641)),
        *((1176, 313, 1379, 586), (1483, 264, 1700, 563)),
    )
    yield from _of(
        "t1",
        *((60, 269, 168, 394), (274, 155, 371, 268), (464, 267, 572, 412)),
        *((746, 345, 847, 480), (903, 61, 1010, 204), (1135, 270, 1226, 395)),
    )
    yield from _of("astronaut", (180, 62, 271, 178))


KNOWN_FACES = tuple(_known())
# Nobody can tell: neither genuine nor impostor.
_UNSURE = {"sample1/2", "sample4/1"}
_FILES = ("t1.jpg", "astronaut.png", *(f"sample{number}.jpg" for number in range(1, 7)))


def face_pictures(home: Home) -> dict[str, np.ndarray]:
    """Return the pictures by name, uint8 [height, width, 3] in RGB order.

    t1 is 1280x886, astronaut 512x512, the samples 1920 wide and 1280 to 1537 high.
    """
    folder = home.faces / "pictures"
    assert (folder / _FILES[0]).is_file(), f"{folder}: no pictures; scripts/test fetches them"
    pictures = {}
    for name in _FILES:
        with Image.open(folder / name) as image:
            pictures[Path(name).stem] = np.array(image.convert("RGB"))
    return pictures


def insightface_root(home: Home) -> Path:
    """Return the models/insightface folder of the stand-ins: `root` of insightface's FaceAnalysis.

    FaceAnalysis(STANDIN_PACK, root=...) finds models/STANDIN_PACK in it.
    """
    root = home.standins / "models" / "insightface"
    assert (root / "models" / STANDIN_PACK / "rec.onnx").is_file(), (
        f"{root}: no stand-in for insightface's models; scripts/test makes it"
    )
    return root


def who(picture: str, box: tuple[float, float, float, float]) -> KnownFace | None:
    """Return the known face of a picture that a detected box overlaps by a third, or None."""
    found = [face for face in KNOWN_FACES if face.picture == picture]
    best = max(found, key=lambda face: overlap(face.box, box))
    return best if overlap(best.box, box) >= 1 / 3 else None


def overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Return the intersection of two boxes over their union, 0..1."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def same_people() -> list[tuple[KnownFace, KnownFace]]:
    """Return the pairs of one person in two pictures."""
    return [(a, b) for a, b in combinations(KNOWN_FACES, 2) if a.person == b.person]


def different_people() -> list[tuple[KnownFace, KnownFace]]:
    """Return all pairs of two different people: 404 of the 406 pairs."""
    return [
        (a, b)
        for a, b in combinations(KNOWN_FACES, 2)
        if a.person != b.person and {a.person, b.person} != _UNSURE
    ]


def portrait(pictures: dict[str, np.ndarray], face: KnownFace, margin: float = 0.6) -> np.ndarray:
    """Return a picture of one known face: its box and `margin` times its size on every side."""
    left, top, right, bottom = face.box
    across, down = round((right - left) * margin), round((bottom - top) * margin)
    rows = slice(max(0, top - down), bottom + down)
    return np.ascontiguousarray(
        pictures[face.picture][rows, max(0, left - across) : right + across]
    )


def _edited(edit: Callable[[Image.Image], Image.Image]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda picture: np.array(edit(Image.fromarray(picture)).convert("RGB"))


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def _cropped(image: Image.Image) -> Image.Image:
    """Cut a tenth from the left and the top: a border that is not symmetric."""
    return image.crop((image.width // 10, image.height // 10, image.width, image.height))


def _recompressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(io.BytesIO(file.getvalue()))


# What leaves a person who they are: each takes and returns uint8 [height, width, 3] in RGB order.
EDITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "flip": _edited(ImageOps.mirror),
    "crop": _edited(_cropped),
    "smaller": _edited(lambda image: _scaled(image, 0.6)),
    "larger": _edited(lambda image: _scaled(image, 1.5)),
    "brighter": _edited(lambda image: image.point(lambda value: min(255, round(value * 1.3)))),
    "darker": _edited(lambda image: image.point(lambda value: round(value * 0.7))),
    "jpeg": _edited(_recompressed),
    "rotated": _edited(lambda image: image.rotate(8, Image.Resampling.BICUBIC)),
}
