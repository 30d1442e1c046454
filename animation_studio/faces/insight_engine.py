"""insightface's detectors and ArcFace recognisers, from a model pack that lies on this machine.

Run through insightface's own classes: SCRFD finds faces and their five points, ArcFaceONNX embeds
what is aligned to them. Of a pack only these two are loaded, not the models of landmarks, age and
sex, which `FaceAnalysis` runs on every face. Both get BGR, as FaceAnalysis gives it to them.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FaceError
from .align import arcface_points, similarity, warp
from .engine import Face, ModelId
from .insight_package import (
    CPU,
    gpu_warning,
    load_model,
    open_package,
    prepare_thread,
    runtime_errors,
)
from .packs import MANIFEST, pack_files
from .weights import hash_of_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .engine import Picture, Vectors

__all__ = ["InsightEngine"]


# insightface's own desktop application takes 0.40 (gui/core/constants.py), its evaluations 0.40 to
# 0.45 for "same person". This is the careful end; characters mostly bring their own.
_THRESHOLD = 0.45
# SCRFD was trained at 640; a face that fills the picture is found when it is seen smaller.
_SIZES = (640, 256, 128)
# ... and some only with something around them, in parts of the longer side.
_BORDER = 0.5
# As FaceAnalysis.prepare sets them.
_LEAST_SCORE, _OVERLAP = 0.5, 0.4
_BATCH = 16
# One session keeps all cores busy; the second worker resizes and decodes meanwhile.
_WORKERS = 2
# The other models of insightface's packs: never needed, and the largest is 140 MB.
_OTHERS = ("1k3d68", "2d106det", "genderage", "inswapper")
_TASKS = {"detection": "detector", "recognition": "recogniser"}


class InsightEngine:
    """A model pack of insightface. Safe to call from several threads.

    `folder` holds a detector (SCRFD with five points) and a recogniser (ArcFace) as ONNX, or a
    manifest of insightface 2.1. `wants_gpu` asks for the CUDA device `device_id`; where the
    sessions run on the CPU after all, `warnings` says so.

    Raises MissingPackageError with the install line, and FaceError for a folder that is missing
    or holds no such two models, and for damaged ones.
    """

    def __init__(self, folder: Path, *, wants_gpu: bool = False, device_id: int = 0) -> None:
        open_package()
        models = _models_of(folder, wants_gpu, device_id)
        self._detector, self._recogniser = (models[task] for task in _TASKS)
        self._errors = runtime_errors()
        self._cv2 = importlib.import_module("cv2")
        self._detector_path = Path(self._detector.model_file)
        self._path = Path(self._recogniser.model_file)
        self._check_detector()
        self._points, self._side = self._crop_form()
        fixed = self._recogniser.input_shape[0]
        self._fixed_batch = fixed if isinstance(fixed, int) else None
        self._batch = self._fixed_batch or _BATCH
        self._pool = ThreadPoolExecutor(_WORKERS, "animation-studio-faces", prepare_thread)
        self._growing = threading.Lock()
        self._model = self._probed(folder.name)
        self._warnings = self._gpu_warnings() if wants_gpu else ()

    @property
    def model(self) -> ModelId:
        """The recogniser, named after its pack and file."""
        return self._model

    @property
    def provider(self) -> str:
        """The first provider of the recogniser's session, as onnxruntime reports it."""
        return str(self._recogniser.session.get_providers()[0])

    @property
    def default_threshold(self) -> float:
        """A cosine of 0.45."""
        return _THRESHOLD

    @property
    def warnings(self) -> Sequence[str]:
        """That it runs on the CPU where the GPU was wanted."""
        return self._warnings

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """Return the faces of each picture, largest first.

        Looked for at 640x640, and where nothing is found at 256 and 128, and with a black border.
        """
        return list(self._pool.map(self._find, pictures))

    def align(self, picture: Picture, face: Face) -> Picture:
        """Return the face as insightface's `norm_crop` cuts it (112x112), but in RGB."""
        return warp(picture, similarity(face.points, self._points), self._side)

    def embed(self, crops: Sequence[Picture]) -> Vectors:
        """Return the embeddings of aligned faces, float32 [n, d], of length 1."""
        size = self._batch
        chunks = [crops[start : start + size] for start in range(0, len(crops), size)]
        parts = [np.empty((0, self._model.dimensions), np.float32)]
        parts += self._pool.map(self._features, chunks)
        vectors = np.concatenate(parts)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        # What has no direction stays as it is, for `similarity` to say so.
        found: Vectors = np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        return found

    def _find(self, picture: Picture) -> list[Face]:
        height, width = picture.shape[:2]
        if not picture.size or max(height, width) > min(height, width) * min(_SIZES):
            # Nothing would be left of it at 128 pixels.
            return []
        view = self._cv2.cvtColor(np.ascontiguousarray(picture), self._cv2.COLOR_RGB2BGR)
        faces = self._look(view, _SIZES)
        if not faces:
            faces = self._look_with_border(view)
        return sorted(faces, key=lambda face: -face.area)

    def _look(self, view: NDArray[np.uint8], sizes: Sequence[int]) -> list[Face]:
        fixed = self._detector.static_input_size
        for size in [fixed] if fixed else [(size, size) for size in sizes]:
            with self._failures(self._detector_path, "looking for faces"):
                boxes, points = self._detector.detect(
                    view, input_size=size, det_thresh=_LEAST_SCORE
                )
            if len(boxes):
                return self._faces(boxes, points)
        return []

    def _look_with_border(self, view: NDArray[np.uint8]) -> list[Face]:
        height, width = view.shape[:2]
        # Shrunk first: a border around a picture of 8192x8192 would be 800 MB.
        scale = min(1.0, _SIZES[0] / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = self._cv2.resize(view, size, interpolation=self._cv2.INTER_AREA)
        border = round(max(size) * _BORDER)
        around = np.pad(small, ((border, border), (border, border), (0, 0)))
        # As far apart as the scales may be after rounding.
        ratio = (width / size[0], height / size[1])
        return [_moved(face, border, ratio) for face in self._look(around, _SIZES[:2])]

    def _faces(self, boxes: NDArray[np.float32], points: NDArray[np.float32]) -> list[Face]:
        if not np.isfinite(boxes).all() or not np.isfinite(points).all():
            raise FaceError(
                f"{self._detector_path}: the detector gave numbers that are not finite. The file "
                "is damaged, or the GPU's memory is faulty: get the model pack again."
            )
        return [
            Face(
                (float(left), float(top), float(right), float(bottom)),
                float(score),
                tuple((float(x), float(y)) for x, y in five),
            )
            for (left, top, right, bottom, score), five in zip(boxes, points, strict=True)
        ]

    def _features(self, crops: Sequence[Picture]) -> Vectors:
        """Embed at most a batch; one that fails is tried again in halves."""
        with self._failures(self._path, "embedding faces"):
            try:
                return self._run(crops)
            except self._errors:
                if len(crops) == 1 or self._fixed_batch:
                    raise
        half = len(crops) // 2
        with self._growing:
            self._batch = max(1, min(self._batch, half))
        return np.concatenate([self._features(crops[:half]), self._features(crops[half:])])

    def _run(self, crops: Sequence[Picture]) -> Vectors:
        inputs = [np.ascontiguousarray(crop[:, :, ::-1]) for crop in crops]
        if self._fixed_batch:
            inputs += [np.zeros_like(inputs[0])] * (self._fixed_batch - len(inputs))
        found = np.asarray(self._recogniser.get_feat(inputs), dtype=np.float32)
        if found.ndim != 2 or len(found) != len(inputs):
            raise ValueError(f"{len(inputs)} faces gave an output of shape {list(found.shape)}")
        return found[: len(crops)]

    @contextmanager
    def _failures(self, path: Path, doing: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise FaceError(
                f"{path}: the model failed while {doing}: {reason}. If memory ran out, close what "
                "else uses it or take the engine dlib; otherwise get the model pack again."
            ) from error

    def _check_detector(self) -> None:
        if not self._detector.use_kps:
            raise FaceError(
                f"{self._detector_path}: this detector gives no points of a face, so faces cannot "
                "be aligned. Use a model pack whose detector does, such as buffalo_l."
            )
        self._detector.nms_thresh = _OVERLAP

    def _crop_form(self) -> tuple[tuple[tuple[float, float], ...], int]:
        try:
            side = int(self._recogniser.input_size[0])
        except (TypeError, ValueError) as error:
            raise FaceError(
                f"{self._path}: the recogniser does not say how large it wants faces. Use another "
                "model pack, such as buffalo_l."
            ) from error
        return arcface_points(side), side

    def _probed(self, pack: str) -> ModelId:
        """Embed nothing once: how long a vector is, stands in no file reliably."""
        nothing = np.zeros((self._side, self._side, 3), dtype=np.uint8)
        length = self._pool.submit(self._features, [nothing]).result().shape[1]
        name = f"{pack}/{self._path.stem}"
        return ModelId("insightface", name, hash_of_weights(self._path), length, "cosine")

    def _gpu_warnings(self) -> tuple[str, ...]:
        available = importlib.import_module("onnxruntime").get_available_providers()
        used = [str(one.session.get_providers()[0]) for one in (self._detector, self._recogniser)]
        warning = gpu_warning(available, CPU if CPU in used else used[0])
        return (warning,) if warning else ()


def _models_of(folder: Path, wants_gpu: bool, device_id: int) -> dict[str, Any]:
    """Return the first detector and the first recogniser, as FaceAnalysis chooses them."""

    def load(path: Path, task: str) -> Any:  # noqa: ANN401
        return load_model(path, task, wants_gpu=wants_gpu, device_id=device_id)

    if not folder.is_dir():
        raise FaceError(f"{folder}: this folder of insightface's models is not there.")
    found = _by_manifest(folder, load) or _by_form(folder, load)
    missing = [word for task, word in _TASKS.items() if task not in found]
    if missing:
        files = ", ".join(path.name for path in pack_files(folder)) or "no .onnx file"
        raise FaceError(
            f"{folder}: there is no {' and no '.join(missing)} of insightface's form here (found: "
            f"{files}). Put a complete model pack there, such as buffalo_l or antelopev2."
        )
    return found


def _by_manifest(folder: Path, load: Callable[[Path, str], Any]) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        return {}
    packages = importlib.import_module("insightface.model_zoo.package_manifest")
    if not packages.has_model_package_manifest(folder):
        return {}
    return {task: load(folder, task) for task in _TASKS}


def _by_form(folder: Path, load: Callable[[Path, str], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in pack_files(folder):
        if path.name.startswith(_OTHERS) or path.name == MANIFEST:
            continue
        model = load(path, "")
        task = getattr(model, "taskname", "")
        if task in _TASKS:
            found.setdefault(task, model)
        if len(found) == len(_TASKS):
            break
    return found


def _moved(face: Face, border: int, ratio: tuple[float, float]) -> Face:
    """Take off a border and scale what remains."""
    wide, high = ratio
    left, top, right, bottom = face.box
    box = (
        (left - border) * wide,
        (top - border) * high,
        (right - border) * wide,
        (bottom - border) * high,
    )
    points = tuple(((x - border) * wide, (y - border) * high) for x, y in face.points)
    return Face(box, face.score, points)
