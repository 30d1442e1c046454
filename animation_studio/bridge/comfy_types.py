"""Names for ComfyUI's own objects, which carry no types of their own."""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = [
    "Clip",
    "ClipVision",
    "Conditioning",
    "ControlNet",
    "DynamicPrompt",
    "Latent",
    "Model",
    "Vae",
]

Model: TypeAlias = Any  # comfy.model_patcher.ModelPatcher
Clip: TypeAlias = Any  # comfy.sd.CLIP
ClipVision: TypeAlias = Any  # comfy.clip_vision.ClipVisionModel
ControlNet: TypeAlias = Any  # comfy.controlnet.ControlBase
Conditioning: TypeAlias = list[list[Any]]  # [tensor, dict of options] each
Latent: TypeAlias = dict[str, Any]  # {"samples": tensor [batch, channels, height/8, width/8], ...}
Vae: TypeAlias = Any  # comfy.sd.VAE
DynamicPrompt: TypeAlias = Any  # comfy_execution.graph.DynamicPrompt
