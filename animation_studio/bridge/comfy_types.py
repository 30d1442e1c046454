"""Names for ComfyUI's own objects, which carry no types of their own."""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = [
    "Clip",
    "ClipVision",
    "ClipVisionOutput",
    "Conditioning",
    "ControlNet",
    "DynamicPrompt",
    "Model",
]

Model: TypeAlias = Any  # comfy.model_patcher.ModelPatcher
Clip: TypeAlias = Any  # comfy.sd.CLIP
ClipVision: TypeAlias = Any  # comfy.clip_vision.ClipVisionModel
ClipVisionOutput: TypeAlias = Any  # comfy.clip_vision.Output
ControlNet: TypeAlias = Any  # comfy.controlnet.ControlBase
Conditioning: TypeAlias = list[list[Any]]  # [tensor, dict of options] each
DynamicPrompt: TypeAlias = Any  # comfy_execution.graph.DynamicPrompt
