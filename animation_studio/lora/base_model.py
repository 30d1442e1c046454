"""Which base model a LoRA was trained for, told from widths, names and metadata.

Widths of the cross attention's key projection (the text encoders' context): 768 for SD 1.x, 1024
for SD 2.x, 2048 for SDXL, 1280 for the SDXL refiner (ComfyUI's comfy/supported_models.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .parts import Parts, target_size

if TYPE_CHECKING:
    import torch

__all__ = ["BASES", "CONTEXT_BASES", "base_of"]

CONTEXT_BASES = {768: "SD 1.5", 1024: "SD 2", 2048: "SDXL", 1280: "SDXL refiner"}
# Bases whose LoRAs never fit one another. Others (video models, Flux's relatives) share layers, so
# for them only the matched modules decide.
BASES = frozenset({*CONTEXT_BASES.values(), "SD 3", "Flux"})
_CROSS = ("attn2_to_k", "attn2_to_v", "attn2.to_k", "attn2.to_v")
_CROSS_ENDS = tuple(f"{cross}{end}" for cross in _CROSS for end in ("", ".processor", "_lora"))
# Beginnings of kohya's `modelspec.architecture` and `ss_base_model_version`.
_DECLARED = (
    ("stable-diffusion-xl-v1-refiner", "SDXL refiner"),
    ("stable-diffusion-xl", "SDXL"),
    ("sdxl", "SDXL"),
    ("stable-diffusion-v1", "SD 1.5"),
    ("sd_v1", "SD 1.5"),
    ("stable-diffusion-v2", "SD 2"),
    ("sd_v2", "SD 2"),
    ("stable-diffusion-3", "SD 3"),
    ("sd3", "SD 3"),
    ("flux", "Flux"),
)


def base_of(
    modules: Mapping[str, Parts],
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
) -> str | None:
    """Return the base model's name ("SD 1.5", "SDXL", ...), or None when it cannot be told.

    Widths decide before metadata, which merges and conversions often carry along wrongly.
    """
    for name, parts in modules.items():
        if name.endswith(_CROSS_ENDS):
            size = target_size(parts, tensors)
            if size is not None and size[0]:
                base = CONTEXT_BASES.get(size[1] // size[0])
                if base is not None:
                    return base
    for key in ("modelspec.architecture", "ss_base_model_version"):
        declared = metadata.get(key, "").lower()
        for start, base in _DECLARED:
            if declared.startswith(start):
                return base
    return _from_names(modules)


def _from_names(modules: Mapping[str, Parts]) -> str | None:
    second_encoder = False
    for name in modules:
        if "single_transformer_blocks" in name or "_single_blocks_" in name:
            return "Flux"
        if "joint_blocks" in name:
            return "SD 3"
        # Attention in the first level: SD 1.x and 2.x have it, SDXL does not. Without any cross
        # attention the two cannot be told apart; SD 2 files of that kind are not seen in practice.
        if "down_blocks_0_attentions" in name or "input_blocks_1_1_" in name:
            return "SD 1.5"
        second_encoder = second_encoder or name.startswith("lora_te2_text_model_")
    return "SDXL" if second_encoder else None
