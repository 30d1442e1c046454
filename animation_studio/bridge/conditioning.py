"""Prompts to conditioning, and ControlNets onto conditioning, by ComfyUI's own functions."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import comfy.controlnet

from ..errors import ControlError
from .comfy_types import Clip, Conditioning, ControlNet

if TYPE_CHECKING:
    import torch

__all__ = ["apply_control", "encode", "load_control_net"]

# Loaded ControlNets by path, mtime and size. They live as long as a conditioning that uses them,
# so that a changed strength does not read gigabytes again and nothing is kept beyond that.
_loaded: WeakValueDictionary[tuple[str, int, int], ControlNet] = WeakValueDictionary()
_SOURCE = "animation_studio_source"


def encode(clip: Clip, text: str) -> tuple[Conditioning, dict[str, int]]:
    """Encode `text` as CLIPTextEncode does; return it with the CLIP windows used by each encoder.

    A window holds 75 tokens; the encoders are named as ComfyUI names them ("l", "g").
    """
    tokens = clip.tokenize(text)
    windows = {encoder: len(batches) for encoder, batches in tokens.items()}
    return clip.encode_from_tokens_scheduled(tokens), windows


def load_control_net(path: Path) -> ControlNet:
    """Return the ControlNet in `path`, loaded once while anything uses it.

    Raises ControlError when the file holds no ControlNet that ComfyUI knows or cannot be read.
    """
    info = path.stat()
    key = (str(path), info.st_mtime_ns, info.st_size)
    control_net = _loaded.get(key)
    if control_net is None:
        try:
            control_net = comfy.controlnet.load_controlnet(str(path))
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ControlError(
                f"{path}: this ControlNet cannot be read ({error}). Fetch the file again."
            ) from error
        if control_net is None:
            raise ControlError(
                f"{path}: ComfyUI finds no ControlNet in this file. Check that `model` in "
                "controlnet_config.yaml names a ControlNet and not a checkpoint or a LoRA."
            )
        _loaded[key] = control_net
    return control_net


def apply_control(
    positive: Conditioning,
    negative: Conditioning,
    control_net: ControlNet,
    image: torch.Tensor,
    *,
    strength: float,
    start: float,
    end: float,
) -> tuple[Conditioning, Conditioning]:
    """Put a ControlNet on both conditionings exactly as core's "Apply ControlNet" does.

    `image` is the map, float [batch, height, width, 3] in 0..1; `start` and `end` are fractions of
    the sampling from 0 to 1. A ControlNet that is there already stays: they work together.
    """
    # Not `import nodes`: inside a pack with a package of that name it must be ComfyUI's, always.
    core = importlib.import_module("nodes").ControlNetApplyAdvanced()
    positive, negative = core.apply_controlnet(
        positive, negative, control_net, image, strength, start, end
    )
    for _, options in (*positive, *negative):
        if (applied := options.get("control")) is not None:
            # Core applies a copy; the copy keeps its original, and with it `_loaded`, alive.
            setattr(applied, _SOURCE, getattr(applied, _SOURCE, control_net))
    return positive, negative
