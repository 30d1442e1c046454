"""One control: its map, its ControlNet, and both on the conditioning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.utils

from ..control import NETWORKS, preprocess, unload_preprocessors
from ..errors import ControlError
from ..files import file_stamp
from ..registry import AUTO_WEIGHT, NONE, ControlType, content_hash
from . import studio
from .comfy_types import Conditioning
from .conditioning import apply_control, load_control_net
from .folders import annotator_folders, controlnet_file
from .images import to_bytes, to_image

if TYPE_CHECKING:
    import torch

__all__ = ["ControlRequest", "ControlResult", "check_control", "run_control"]

# The smallest map that a ControlNet can use: its hint encoder halves three times.
_MIN_SIDE = 8
# Room for the largest preprocessor: DPT-Large has 1.3 GB of 32-bit weights and needs as much again.
_ANNOTATOR_BYTES = 3 << 30


@dataclass(frozen=True)
class ControlRequest:
    """What a Control's widgets say. `start` and `end` are fractions of the sampling, 0 to 1."""

    control: str
    image_is_map: bool
    strength: float
    start: float
    end: float


@dataclass(frozen=True)
class ControlResult:
    """Both conditionings with the control, the map, and the lines shown on the node."""

    positive: Conditioning
    negative: Conditioning
    map: torch.Tensor
    lines: list[str]
    warnings: list[str]


def check_control(name: str) -> None:
    """Raise ConfigError or ControlError for a control that cannot be used, before anything runs."""
    if name == NONE:
        return
    controlnet_file(studio.registry().control(name), name)


def control_fingerprint(name: str | None) -> str:
    """Return what changes when a control's configuration, ControlNet or weights do.

    None, a choice that comes by link: those of every control. Raises ControlError where a named
    one has no ControlNet.
    """
    if name == NONE:
        return NONE
    registry = studio.registry()
    parts = [] if name else [registry.content_hash]
    for one in [name] if name else registry.controls:
        control = registry.control(one)
        parts.append(content_hash(control, registry.preprocessing(one)))
        try:
            parts.append(file_stamp(controlnet_file(control, one)))
        except ControlError:
            if name:
                raise
    for folder in annotator_folders():
        parts += sorted(file_stamp(file) for file in folder.glob("*") if file.is_file())
    return content_hash(*parts)


def run_control(
    positive: Conditioning, negative: Conditioning, image: torch.Tensor, request: ControlRequest
) -> ControlResult:
    """Make the map from `image` (unless it is one), find the ControlNet and apply it.

    The control `none` changes nothing: a plan may want none. `image` is float [batch, height,
    width, 3]. Raises ControlError for a picture, strength or range that cannot be used and
    ConfigError for an unknown control.
    """
    if request.control == NONE:
        return ControlResult(positive, negative, image, ["no control"], [])
    control = studio.registry().control(request.control)
    strength = control.default_strength if request.strength == AUTO_WEIGHT else request.strength
    _check(request, strength, image)
    map_ = image if request.image_is_map else _map_of(image, control, request.control)
    file = controlnet_file(control, request.control)
    if strength != 0.0:
        positive, negative = apply_control(
            positive,
            negative,
            load_control_net(file),
            map_[..., :3] if map_.shape[-1] >= 3 else map_[..., :1].repeat(1, 1, 1, 3),
            strength=strength,
            start=request.start,
            end=request.end,
        )
    made = "the picture as it is" if request.image_is_map else control.preprocessor
    lines = [f"{request.control}: {file.name}, strength {strength:g}", f"map: {made}"]
    warnings = []
    if not bool(map_.any()):
        warnings.append(
            f"The {request.control} map is black: it found nothing in this picture and will steer "
            "towards nothing. Choose another picture."
        )
    return ControlResult(positive, negative, map_, lines, warnings)


def _check(request: ControlRequest, strength: float, image: torch.Tensor) -> None:
    if not math.isfinite(strength) or not 0.0 <= strength <= 10.0:
        raise ControlError(
            f"control {request.control!r}: strength is {strength}; it should be a number from 0 to "
            f"10, or {AUTO_WEIGHT:g} for the strength of the configuration"
        )
    if not 0.0 <= request.start < request.end <= 1.0:
        raise ControlError(
            f"control {request.control!r}: start_percent is {request.start:g} and end_percent "
            f"{request.end:g}; start should lie before end, both from 0 to 1"
        )
    height, width = image.shape[1:3]
    if min(height, width) < _MIN_SIDE:
        raise ControlError(
            f"control {request.control!r}: the picture is {width}x{height} pixels; at least "
            f"{_MIN_SIDE}x{_MIN_SIDE} are needed. Connect a larger one."
        )


def _map_of(image: torch.Tensor, control: ControlType, name: str) -> torch.Tensor:
    if control.preprocessor == "none":
        return image
    settings = studio.registry().preprocessing(name)
    pictures = to_bytes(image)
    progress = comfy.utils.ProgressBar(len(pictures))
    device = comfy.model_management.get_torch_device()
    if control.preprocessor in NETWORKS:
        comfy.model_management.free_memory(_ANNOTATOR_BYTES, device)
    maps = []
    try:
        for picture in pictures:
            comfy.model_management.throw_exception_if_processing_interrupted()
            maps.append(
                preprocess(
                    control.preprocessor,
                    picture,
                    settings=settings.model_dump() if settings else {},
                    annotator_folders=annotator_folders(),
                    device=str(device),
                )
            )
            progress.update(1)
    finally:
        # ComfyUI does not know of these networks, so it could not make room by unloading them.
        if control.preprocessor in NETWORKS:
            unload_preprocessors()
            comfy.model_management.soft_empty_cache()
    return to_image(maps)
