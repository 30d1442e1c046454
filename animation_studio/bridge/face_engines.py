"""Face engines as the running ComfyUI offers them: its folders, its GPU, its CLIP vision models."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import comfy.model_management
import numpy as np
import torch

from ..errors import FaceError
from ..faces.packs import AUTO, available_packs
from ..faces.packs import engine_names as names_of
from .folders import insightface_folders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..faces.engine import FaceEngine, ModelId, Picture
    from .comfy_types import ClipVision, ClipVisionOutput

__all__ = ["AUTO", "AUTO_THRESHOLD", "CLIP_VISION", "engine_for", "engine_names", "engine_state"]

CLIP_VISION = "clip_vision"
# The widget's word for "the character's own".
AUTO_THRESHOLD = -1.0
# Crops of 224x224 in one forward pass: a ViT-H then stays under 2 GB in half precision.
_CLIP_BATCH = 16

# What each CLIP vision model in memory is called; finding out takes a forward pass.
_clip_models: weakref.WeakKeyDictionary[object, ModelId] = weakref.WeakKeyDictionary()


def engine_names() -> list[str]:
    """Return the engines to choose from; no model is opened and no package imported."""
    return [*names_of(insightface_folders()), CLIP_VISION]


def engine_state() -> str:
    """Return what changes when model packs come or go."""
    return repr(sorted(available_packs(insightface_folders()).items()))


def engine_for(name: str, clip_vision: ClipVision | None = None) -> FaceEngine:
    """Return the engine `name`; "clip_vision" needs the CLIP_VISION that an input gave.

    Raises FaceError for a name that is none, a missing model folder and a missing input, and
    MissingPackageError with the install line.
    """
    from ..faces.engines import open_engine

    device = comfy.model_management.get_torch_device()
    found = AUTO if name == CLIP_VISION else name
    if name == CLIP_VISION and clip_vision is None:
        raise FaceError(
            "engine clip_vision needs a model: connect a Load CLIP Vision node to clip_vision, or "
            "choose another engine."
        )
    engine = open_engine(
        found,
        insightface_folders(),
        wants_gpu=device.type == "cuda",
        device_id=device.index or 0,
    )
    if name != CLIP_VISION or clip_vision is None:
        return engine
    from ..faces.clip_engine import ClipEngine

    model = clip_vision
    return ClipEngine(engine, lambda crops: _encode(model, crops), _clip_model(model))


def _encode(clip_vision: ClipVision, crops: Sequence[Picture]) -> NDArray[np.float32]:
    parts = []
    for start in range(0, len(crops), _CLIP_BATCH):
        pixels = torch.from_numpy(np.stack(crops[start : start + _CLIP_BATCH])).float() / 255.0
        try:
            encoded = clip_vision.encode_image(pixels, crop=False)
        except comfy.model_management.OOM_EXCEPTION as error:
            raise FaceError(
                f"the CLIP vision model ran out of memory on {len(pixels)} faces. Close what else "
                "uses the GPU, or take a smaller CLIP vision model."
            ) from error
        parts.append(_pooled(encoded).float().cpu().numpy())
    return np.concatenate(parts)


def _pooled(encoded: ClipVisionOutput) -> torch.Tensor:
    """One vector a picture: the projected embedding, or the mean of the patches without one."""
    embeds: torch.Tensor | None = getattr(encoded, "image_embeds", None)
    if embeds is not None and embeds.ndim == 2:
        return embeds
    states: torch.Tensor = encoded.last_hidden_state
    return states.mean(dim=1)


def _clip_model(clip_vision: ClipVision) -> ModelId:
    from ..faces.engine import ModelId

    model = _clip_models.get(clip_vision)
    if model is None:
        probe = _encode(clip_vision, [np.zeros((32, 32, 3), np.uint8)])
        name = f"{type(clip_vision.model).__name__} {clip_vision.image_size}px"
        model = ModelId(CLIP_VISION, name, _weights_hash(clip_vision), probe.shape[1])
        _clip_models[clip_vision] = model
    return model


def _weights_hash(clip_vision: ClipVision) -> str:
    """SHA-256 of the weights by name, as they are in memory: the file behind them is not known.

    Of each tensor some 4096 evenly spaced values count, as half precision, since the machine
    decides whether a model is loaded in half or whole: enough to tell any two models apart, and
    one of 2.5 GB takes a moment instead of seconds.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(clip_vision.get_sd().items()):
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 4096)].half().cpu().numpy()
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(np.ascontiguousarray(sample).tobytes())
    return digest.hexdigest()
