"""The networks of the optional package controlnet_aux, with weights that lie on this machine.

Only the network classes and the decoding of their output are taken from the package. Weights are
looked for in the folders given, never fetched, and read with `weights_only=True`: the files are
pickles, and the package's own constructors leave it to the installed PyTorch whether code inside
them may run. Written against controlnet_aux 0.0.10.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

# The class only: torch raises it for a file that is not a plain list of tensors.
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from ..errors import ControlError, MissingPackageError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = [
    "BODY_WEIGHTS",
    "DEPTH_WEIGHTS",
    "FACE_WEIGHTS",
    "HAND_WEIGHTS",
    "depth_network",
    "find_weights",
    "network_picture",
    "openpose_detector",
    "unload",
]

BODY_WEIGHTS = "body_pose_model.pth"
HAND_WEIGHTS = "hand_pose_model.pth"
FACE_WEIGHTS = "facenet.pth"
# By model_type in lower case: the file, and the encoder inside.
DEPTH_WEIGHTS = {
    "dpt_large": ("dpt_large-midas-2f21e586.pt", "vitl16_384"),
    "dpt_hybrid": ("dpt_hybrid-midas-501f0c75.pt", "vitb_rn50_384"),
}

_HUB = "https://huggingface.co/lllyasviel/Annotators"
_DPT = "https://github.com/isl-org/DPT/releases/tag/1_0"
_PAGES = {"dpt_large-midas-2f21e586.pt": _DPT}
# Flat, as the hub's repository is laid out by other packs, and as the hub's own cache keeps it.
_PLACES = ("{}", "lllyasviel/Annotators/{}", "models--lllyasviel--Annotators/snapshots/*/{}")

# What a detector learned its sizes on: the shorter side of the picture.
_NETWORK_SIDE = 512

_networks: dict[tuple[str, str, int, int, str], Any] = {}
_lock = threading.Lock()


def find_weights(names: Sequence[str], folders: Sequence[Path]) -> dict[str, Path]:
    """Return where each weights file lies, by name.

    Looked for in each folder itself, in its `lllyasviel/Annotators`, and as in a Hugging Face
    cache. Raises ControlError that names every missing file, the folders and where to get them.
    """
    found = {name: path for name in names if (path := _find(name, folders))}
    missing = [name for name in names if name not in found]
    if missing:
        wanted = "; ".join(f"{name} from {_PAGES.get(name, _HUB)}" for name in missing)
        raise ControlError(
            f"Weights of the preprocessor are missing: {', '.join(missing)}. Looked in "
            f"{', '.join(map(str, folders)) or 'no folder'} (and lllyasviel/Annotators in each). "
            f"Nothing is downloaded by itself: put there {wanted}."
        )
    return found


def openpose_detector(weights: Mapping[str, Path], device: str) -> Any:  # noqa: ANN401
    """Return controlnet_aux's OpenposeDetector with the networks whose weights are given.

    Raises MissingPackageError, and ControlError when a file does not hold the network.
    """
    package = _module("controlnet_aux.open_pose")
    parts: dict[str, Any] = {BODY_WEIGHTS: None, HAND_WEIGHTS: None, FACE_WEIGHTS: None}
    kinds = {
        BODY_WEIGHTS: (package.body.Body, package.body.bodypose_model, True),
        HAND_WEIGHTS: (package.hand.Hand, package.hand.handpose_model, True),
        FACE_WEIGHTS: (package.face.Face, package.face.FaceNet, False),
    }
    for name, path in weights.items():
        kind, build, nested = kinds[name]
        # Without __init__, which would load the file in its own way; the face estimator's three
        # numbers are never read again after it.
        part = kind.__new__(kind)
        part.model = _network(name, build, path, device, nested=nested)
        parts[name] = part
    return package.OpenposeDetector(*parts.values())


def depth_network(model_type: str, path: Path, device: str) -> Callable[[torch.Tensor], Any]:
    """Return the DPT network: [1, 3, H, W] floats of -1..1 to relative nearness [1, H, W].

    Raises MissingPackageError, and ControlError when the file does not hold the network.
    """
    module = _module("controlnet_aux.midas.midas.dpt_depth")
    backbone = DEPTH_WEIGHTS[model_type][1]

    def build() -> torch.nn.Module:
        network: torch.nn.Module = module.DPTDepthModel(
            path=None, backbone=backbone, non_negative=True
        )
        return network

    network: Callable[[torch.Tensor], Any] = _network(model_type, build, path, device)
    return network


def network_picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture at the size that the networks are used at: shorter side about 512."""
    resized: NDArray[np.uint8] = _module("controlnet_aux.util").resize_image(image, _NETWORK_SIDE)
    return resized


def unload() -> None:
    """Forget all loaded networks, so that their memory can be used for something else."""
    with _lock:
        _networks.clear()


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    for folder in folders:
        for place in _PLACES:
            for path in sorted(folder.glob(place.format(name))):
                if path.is_file():
                    return path
    return None


def _module(name: str) -> Any:  # noqa: ANN401
    try:
        with _quietly():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "controlnet_aux":
            raise MissingPackageError(f"controlnet_aux is not installed. {_INSTALL}") from error
        raise MissingPackageError(
            f"controlnet_aux needs the package {missing!r}, which is not installed. {_INSTALL}"
        ) from error
    except (ImportError, AttributeError, TypeError) as error:
        # Its __init__ imports every detector; a package of another age breaks it in these ways.
        raise MissingPackageError(
            f"controlnet_aux is installed but cannot be imported ({error}). {_INSTALL}"
        ) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep the package's warnings about its old imports and names from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_INSTALL = (
    "Install it into ComfyUI's Python: pip install controlnet_aux (it brings "
    "opencv-python-headless; if you have another opencv, or want nothing else touched: "
    "pip install --no-deps controlnet_aux timm scikit-image lazy_loader)."
)


def _network(
    kind: str,
    build: Callable[[], torch.nn.Module],
    path: Path,
    device: str,
    *,
    nested: bool = False,
) -> Any:  # noqa: ANN401
    """Return the network of `path` on `device`, from the cache while the file is unchanged."""
    status = path.stat()
    key = (kind, str(path), status.st_mtime_ns, status.st_size, device)
    with _lock:
        if key not in _networks:
            weights = _read(path)
            with _quietly():
                network = build()
            _fill(network, weights, path, nested=nested)
            _networks[key] = network.eval().to(_device(device))
        return _networks[key]


def _device(name: str) -> torch.device:
    import torch

    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ControlError(f"Preprocessor: there is no device {name!r}: {error}") from error


def _fill(
    network: torch.nn.Module, weights: dict[str, torch.Tensor], path: Path, *, nested: bool
) -> None:
    """Put the weights read from `path` into the network.

    `nested`: the network's names have one more part in front (its blocks) than the file's.
    """
    if nested:
        wanted = {name: name.partition(".")[2] for name in network.state_dict()}
        missing = [short for short in wanted.values() if short not in weights]
        if missing:
            raise ControlError(
                f"{path}: these are not the weights of this network: {missing[0]!r} and "
                f"{len(missing) - 1} more are not in it. Get the file again from {_HUB}."
            )
        weights = {name: weights[short] for name, short in wanted.items()}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ControlError(
            f"{path}: these are not the weights of this network: {reason} "
            f"Get the file again from {_PAGES.get(path.name, _HUB)}."
        ) from error


def _read(path: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ControlError(
            f"{path}: this is not a readable file of PyTorch weights ({type(error).__name__}: "
            f"{reason}). Get it again from {_PAGES.get(path.name, _HUB)}."
        ) from error
    if isinstance(weights, dict) and "optimizer" in weights:
        weights = weights.get("model")
    if not isinstance(weights, dict) or not all(
        isinstance(value, torch.Tensor) for value in weights.values()
    ):
        raise ControlError(f"{path}: this holds no network weights (a table of tensors).")
    return dict(weights)
