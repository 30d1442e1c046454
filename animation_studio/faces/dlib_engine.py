"""The engine that works after `pip install` alone: dlib's networks, which are in the public domain.

Found by dlib's HOG detector, and where that finds nothing by its CNN; aligned and embedded (128
numbers, euclidean) by dlib's ResNet. dlib's predictor of 68 points lies beside these weights and is
never used: its training pictures forbid commercial use.

At 1024x1024 on one core of a Xeon, HOG takes 0.17 s and the CNN 5.8 s (0.6 s at the 384 pixels
used here). HOG misses faces in profile or far out of focus (26 of 29 found in the test pictures,
nothing else); the CNN finds those, but on every picture it would be the whole cost.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FaceError, MissingPackageError
from .align import check_points
from .engine import Face, ModelId
from .weights import hash_of_weights

if TYPE_CHECKING:
    from .engine import Picture, Vectors

__all__ = ["DlibEngine"]

# dlib's example calls two faces one person when their distance is under 0.6, which is a score of
# 0.4 here: http://dlib.net/face_recognition.py.html. Of the 404 pairs of different people in the
# test pictures 10 pass that and none passes 0.5 (highest 0.464); the one person who is in two of
# them scores 0.586, and no edit of an easy picture takes a face under 0.72.
_THRESHOLD = 0.5
# What face_recognition.py.html and the network's training use.
_CHIP_SIDE, _CHIP_PADDING = 150, 0.25
# HOG sees faces of 80 pixels and more, so pictures are enlarged, but no more than shows anything
# new; at this side faces of 53 pixels in a 1024x1024 picture are seen.
_LONG_SIDE, _LARGEST_SCALE = 1536, 1.5
# In the test pictures the least sure face has 0.23, the surest of what is none 0.05.
_HOG_LEAST = 0.1
# A face that fills the picture needs something around it: of 29 cut at hair and chin 27 are found
# with this border (of the longer side), 25 without.
_BORDER, _BORDERED_SIDE = 0.25, 512
# The surest thing that is no face stays under 0.5, dlib's faces are mostly over 1.
_CNN_SIDE, _CNN_LEAST, _CNN_SHORTEST = 384, 0.5, 64
# The network holds Python's lock (0.08 s a face): ComfyUI's server must come through between calls.
_CHIPS_AT_ONCE = 4
_MOST_WORKERS = 4

_INSTALL = (
    "Install them into ComfyUI's Python: pip install dlib-bin face_recognition_models (a dlib "
    "that you compiled yourself serves as well: then leave dlib-bin out), or choose another engine."
)


class DlibEngine:
    """dlib's detectors, five points and ResNet. Safe to call from several threads.

    `warnings` are for the user, such as why this engine was chosen. Raises MissingPackageError with
    the install line where a package is missing, and FaceError for damaged weights.
    """

    def __init__(self, warnings: Sequence[str] = ()) -> None:
        self._warnings = tuple(warnings)
        self._dlib = _module()
        folder = _weights_folder()
        recogniser = folder / "dlib_face_recognition_resnet_model_v1.dat"
        points = folder / "shape_predictor_5_face_landmarks.dat"
        finder = folder / "mmod_human_face_detector.dat"
        self._points = _load(self._dlib.shape_predictor, points)
        self._cnn = _load(self._dlib.cnn_face_detection_model_v1, finder)
        self._recogniser = _load(self._dlib.face_recognition_model_v1, recogniser)
        sha256 = hash_of_weights(recogniser)
        self._model = ModelId("dlib", "face_recognition_resnet_v1", sha256, 128, "euclidean")
        # HOG detectors write into themselves while they look: one for each thread that looks.
        self._idle: list[Any] = []
        self._idle_lock = threading.Lock()
        # dlib's networks keep the last activations; they are not reentrant.
        self._network_lock = threading.Lock()

    @property
    def model(self) -> ModelId:
        """dlib's ResNet."""
        return self._model

    @property
    def provider(self) -> str:
        """ "dlib CUDA" where dlib was compiled for it, else "dlib CPU"."""
        return "dlib CUDA" if self._dlib.DLIB_USE_CUDA else "dlib CPU"

    @property
    def default_threshold(self) -> float:
        """0.5, a distance of 0.5: stricter than dlib's own example, which takes 0.6."""
        return _THRESHOLD

    @property
    def warnings(self) -> Sequence[str]:
        """What came with the choice of this engine."""
        return self._warnings

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """Return the faces of each picture, largest first; `score` is the detector's own margin."""
        workers = min(len(pictures), _MOST_WORKERS, os.cpu_count() or 1)
        if workers < 2:
            return [self._find(picture) for picture in pictures]
        with ThreadPoolExecutor(workers, "animation-studio-dlib") as pool:
            return list(pool.map(self._find, pictures))

    def align(self, picture: Picture, face: Face) -> Picture:
        """Return the face upright in dlib's chip of 150x150, black where the picture ends."""
        # dlib itself answers points in one place with a crop of nothing.
        check_points(face.points)
        left, top, right, bottom = (round(value) for value in face.box)
        box = self._dlib.rectangle(left, top, right - 1, bottom - 1)
        points = [self._dlib.point(round(x), round(y)) for x, y in face.points]
        shape = self._dlib.full_object_detection(box, points)
        with _failures("aligning a face"):
            chip: Picture = self._dlib.get_face_chip(
                np.ascontiguousarray(picture), shape, _CHIP_SIDE, _CHIP_PADDING
            )
        return chip

    def embed(self, crops: Sequence[Picture]) -> Vectors:
        """Return the embeddings of chips, float32 [n, 128], of length about 1.4 as dlib's are."""
        found = np.empty((len(crops), self._model.dimensions), dtype=np.float32)
        for start in range(0, len(crops), _CHIPS_AT_ONCE):
            some = [np.ascontiguousarray(crop) for crop in crops[start : start + _CHIPS_AT_ONCE]]
            with self._network_lock, _failures("embedding faces"):
                vectors = self._recogniser.compute_face_descriptor(some, 0)
            found[start : start + len(some)] = vectors
        return found

    def _find(self, picture: Picture) -> list[Face]:
        if not picture.size:
            return []
        for look in (self._look, self._look_with_border, self._look_with_network):
            faces = look(np.ascontiguousarray(picture))
            if faces:
                return sorted(faces, key=lambda face: -face.area)
        return []

    def _look(self, picture: Picture) -> list[Face]:
        view, scale = _resized(picture, _LONG_SIDE)
        return [self._face(picture, box, scale, score) for box, score in self._hog_boxes(view)]

    def _look_with_border(self, picture: Picture) -> list[Face]:
        view, scale = _resized(picture, _BORDERED_SIDE)
        border = round(max(view.shape[:2]) * _BORDER)
        around = np.pad(view, ((border, border), (border, border), (0, 0)))
        shift = self._dlib.point(-border, -border)
        return [
            self._face(picture, self._dlib.translate_rect(box, shift), scale, score)
            for box, score in self._hog_boxes(around)
        ]

    def _look_with_network(self, picture: Picture) -> list[Face]:
        view, scale = _resized(picture, _CNN_SIDE)
        if min(view.shape[:2]) < _CNN_SHORTEST:
            return []
        with self._network_lock, _failures("looking for faces"):
            found = self._cnn(view, 0)
        return [
            self._face(picture, one.rect, scale, one.confidence)
            for one in found
            if one.confidence >= _CNN_LEAST
        ]

    def _hog_boxes(self, view: Picture) -> Iterator[tuple[Any, float]]:
        with self._hog_detector() as detector, _failures("looking for faces"):
            boxes, scores, _ = detector.run(view, 0, _HOG_LEAST)
        return zip(boxes, scores, strict=True)

    @contextmanager
    def _hog_detector(self) -> Iterator[Any]:
        with self._idle_lock:
            detector = self._idle.pop() if self._idle else None
        # Making one takes 0.15 s, which no other thread should wait for.
        detector = detector or self._dlib.get_frontal_face_detector()
        try:
            yield detector
        finally:
            with self._idle_lock:
                self._idle.append(detector)

    def _face(self, picture: Picture, box: Any, scale: float, score: float) -> Face:  # noqa: ANN401
        """Put the box of a resized view back on its picture and find the five points there."""
        left, top = box.left() / scale, box.top() / scale
        # dlib's right and bottom belong to the box.
        right, bottom = (box.right() + 1) / scale, (box.bottom() + 1) / scale
        whole = (round(left), round(top), round(right) - 1, round(bottom) - 1)
        with _failures("finding the points of a face"):
            parts = self._points(picture, self._dlib.rectangle(*whole)).parts()
        points = tuple((float(part.x), float(part.y)) for part in parts)
        return Face((left, top, right, bottom), float(score), points)


def _resized(picture: Picture, long_side: int) -> tuple[Picture, float]:
    """Return the picture with its longer side at most `long_side`, and its scale.

    Small pictures are enlarged as far as _LARGEST_SCALE.
    """
    from PIL import Image

    height, width = picture.shape[:2]
    scale = min(_LARGEST_SCALE, long_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return picture, 1.0
    image = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image), scale


def _module() -> Any:  # noqa: ANN401
    try:
        return importlib.import_module("dlib")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"The engine dlib needs two packages, and dlib is not installed. {_INSTALL}"
        ) from error
    except ImportError as error:
        raise MissingPackageError(
            f"dlib is installed but cannot be imported ({error}). {_INSTALL}"
        ) from error


def _weights_folder() -> Path:
    # Found, not imported: the package's __init__ needs pkg_resources, which new setuptools lack.
    spec = importlib.util.find_spec("face_recognition_models")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "models"
        if folder.is_dir():
            return folder
    raise MissingPackageError(
        "The engine dlib needs two packages, and face_recognition_models (the weights) is not "
        f"installed. {_INSTALL}"
    )


def _load(kind: Callable[[str], Any], path: Path) -> Any:  # noqa: ANN401
    try:
        return kind(str(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise FaceError(
            f"{path}: dlib cannot read these weights ({reason}). Install them again: pip install "
            "--force-reinstall --no-deps face_recognition_models"
        ) from error


@contextmanager
def _failures(doing: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise FaceError(
            f"dlib failed while {doing}: {reason}. If memory ran out, close what else uses it or "
            "give smaller pictures."
        ) from error
