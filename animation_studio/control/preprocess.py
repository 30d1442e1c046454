"""From a reference picture to the map of a control: canny, openpose and depth.

The names are those of `preprocessor` in controlnet_config.yaml. Canny needs nothing; the others
need the optional package controlnet_aux and weights that the user has put on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ControlError
from . import annotators
from .canny import canny
from .draw import MAX_SIDE, MIN_SIDE, draw_pose
from .skeleton import BODY_POINTS, MAX_PEOPLE, Keypoint, Person, Points, Pose

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NETWORKS", "PREPROCESSORS", "preprocess", "unload_preprocessors"]

# Beyond this the picture, enlarged to a shorter side of 512, would not fit a network.
_MAX_ASPECT = 8
_FACE_POINTS = 70

_Folders = Sequence[Path]
_Settings = Mapping[str, object]


def preprocess(
    kind: str,
    image: NDArray[np.uint8],
    *,
    settings: _Settings,
    annotator_folders: _Folders,
    device: str = "cpu",
) -> NDArray[np.uint8]:
    """Return the control map of `image` (RGB, uint8 [H, W, 3]) as RGB of the same size and dtype.

    `kind` is one of PREPROCESSORS; `settings` are those of its section under `preprocessing`:
    canny: low_threshold (100), high_threshold (200); openpose_full and openpose: detect_hands,
    detect_face (true for the first, false for the second); depth_midas: model_type (DPT_Large, or
    DPT_Hybrid). Other settings are ignored. Weights are looked for in `annotator_folders` only
    and never fetched; the networks run on `device` and stay loaded until `unload_preprocessors`.

    Sides of 64 to 8192 pixels are taken, for networks up to 8 times as long as wide. Raises
    ControlError for an unknown kind, a picture or setting out of range and missing or wrong
    weights, and MissingPackageError when controlnet_aux is needed and not there.
    """
    run = _RUNS.get(kind)
    if run is None:
        raise ControlError(
            f"Preprocessor {kind!r} is not known; known are {', '.join(PREPROCESSORS)}. "
            "Correct it in controlnet_config.yaml, or give the control a picture that is a map."
        )
    _check_picture(kind, image)
    return run(kind, image, settings, annotator_folders, device)


def unload_preprocessors() -> None:
    """Forget the loaded networks; the next `preprocess` reads their weights again."""
    annotators.unload()


def _canny(
    kind: str, image: NDArray[np.uint8], settings: _Settings, folders: _Folders, device: str
) -> NDArray[np.uint8]:
    import numpy as np

    del folders, device
    low = _threshold(kind, settings, "low_threshold", 100.0)
    high = _threshold(kind, settings, "high_threshold", 200.0)
    return np.repeat(canny(image, low, high)[:, :, None], 3, axis=2)


def _openpose(
    kind: str, image: NDArray[np.uint8], settings: _Settings, folders: _Folders, device: str
) -> NDArray[np.uint8]:
    full = kind == "openpose_full"
    hands = _flag(kind, settings, "detect_hands", default=full)
    face = _flag(kind, settings, "detect_face", default=full)
    _check_aspect(kind, image)
    names = [annotators.BODY_WEIGHTS]
    names += [annotators.HAND_WEIGHTS] if hands else []
    names += [annotators.FACE_WEIGHTS] if face else []
    weights = annotators.find_weights(names, folders)
    detector = annotators.openpose_detector(weights, device)
    found = detector.detect_poses(
        annotators.network_picture(image), include_hand=hands, include_face=face
    )
    height, width = image.shape[:2]
    return draw_pose(_pose(found, width, height), width, height)


def _depth(
    kind: str, image: NDArray[np.uint8], settings: _Settings, folders: _Folders, device: str
) -> NDArray[np.uint8]:
    import numpy as np
    import torch
    from PIL import Image

    model_type = _model_type(kind, settings)
    _check_aspect(kind, image)
    name = annotators.DEPTH_WEIGHTS[model_type][0]
    path = annotators.find_weights([name], folders)[name]
    network = annotators.depth_network(model_type, path, device)
    picture = torch.from_numpy(annotators.network_picture(image)).float().to(device)
    with torch.no_grad():
        # RGB in -1..1, as MiDaS normalises it for the DPT networks (mean and deviation 0.5).
        nearness = network((picture / 127.5 - 1.0).permute(2, 0, 1)[None])[0]
        nearness = nearness.float().cpu()
    if not torch.isfinite(nearness).all():
        raise ControlError(f"{path}: the network's depth is not finite; the weights are damaged.")
    nearness -= nearness.min()
    highest = float(nearness.max())
    # White is near. A picture without any depth is all black, where the annotator divides by 0.
    grey = (nearness / highest * 255.0 if highest > 0 else nearness).numpy().astype(np.uint8)
    height, width = image.shape[:2]
    fitted = Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR)
    return np.repeat(np.asarray(fitted)[:, :, None], 3, axis=2)


_Run = Callable[..., "NDArray[np.uint8]"]
_RUNS: dict[str, _Run] = {
    "canny": _canny,
    "openpose": _openpose,
    "openpose_full": _openpose,
    "depth_midas": _depth,
}
PREPROCESSORS = tuple(_RUNS)
NETWORKS = frozenset(PREPROCESSORS) - {"canny"}
"""The preprocessors that load a network, which stays until `unload_preprocessors`."""


def _pose(found: Sequence[Any], width: int, height: int) -> Pose:
    """Turn the detector's results (fractions of the picture) into a pose of picture pixels."""

    def points(keypoints: Sequence[Any] | None) -> Points | None:
        if keypoints is None:
            return None
        return tuple(
            None if p is None else Keypoint(float(p.x) * width, float(p.y) * height)
            for p in keypoints
        )

    def part(keypoints: Sequence[Any] | None) -> Points | None:
        # Negative: the detector's mark for a hand or face point that it did not find.
        given = points(keypoints)
        return given and tuple(None if p and (p.x <= 0 or p.y <= 0) else p for p in given)

    best = sorted(found, key=lambda result: -float(result.body.total_score))[:MAX_PEOPLE]
    people = tuple(
        Person(
            body=points(result.body.keypoints) or (None,) * BODY_POINTS,
            hand_left=part(result.left_hand),
            hand_right=part(result.right_hand),
            face=_face(part(result.face)),
        )
        for result in best
    )
    return Pose(canvas_width=width, canvas_height=height, people=people)


def _face(points: Points | None) -> Points | None:
    """Make 70 points of what the face detector gives.

    It leaves out the points that it did not find, which is harmless as all are drawn alike, and
    ends with the peak of its 71st channel, the background, which is no point of the face.
    """
    if points is None:
        return None
    known = points[:-1][:_FACE_POINTS]
    return known + (None,) * (_FACE_POINTS - len(known))


def _check_picture(kind: str, image: NDArray[np.uint8]) -> None:
    if image.dtype.name != "uint8" or image.ndim != 3 or image.shape[2] != 3:
        raise ControlError(
            f"Preprocessor {kind}: the picture is {image.dtype.name} {list(image.shape)}; "
            "uint8 [height, width, 3] is needed."
        )
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE:
        raise ControlError(
            f"Preprocessor {kind}: the picture is {width}x{height} pixels; sides of {MIN_SIDE} to "
            f"{MAX_SIDE} can be used. Give it another reference picture."
        )


def _check_aspect(kind: str, image: NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    if max(height, width) > _MAX_ASPECT * min(height, width):
        raise ControlError(
            f"Preprocessor {kind}: the picture is {width}x{height} pixels; at most {_MAX_ASPECT} "
            "times as long as wide can be used. Crop it first."
        )


def _threshold(kind: str, settings: _Settings, key: str, default: float) -> float:
    value = settings.get(key, default)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ControlError(
            f"Preprocessor {kind}: setting {key} is {value!r}; a number is expected."
        )
    return float(value)


def _flag(kind: str, settings: _Settings, key: str, *, default: bool) -> bool:
    value = settings.get(key, default)
    if not isinstance(value, bool):
        raise ControlError(
            f"Preprocessor {kind}: setting {key} is {value!r}; true or false is expected."
        )
    return value


def _model_type(kind: str, settings: _Settings) -> str:
    value = settings.get("model_type", "DPT_Large")
    known = str(value).lower().replace("-", "_")
    if known not in annotators.DEPTH_WEIGHTS:
        raise ControlError(
            f"Preprocessor {kind}: setting model_type is {value!r}; DPT_Large or DPT_Hybrid is "
            "expected."
        )
    return known
