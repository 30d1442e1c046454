"""Module names: what a file calls a layer, and what ComfyUI core calls it.

Core 0.3.75 knows diffusers' layers by kohya's names (`lora_unet_` and the path with underscores)
and drops diffusers' and PEFT's own spellings without a word (measured: facts of issue 2).
"""

from __future__ import annotations

import re

__all__ = ["PEFT_PREFIX", "component_of", "core_name", "file_format", "strip_peft"]

PEFT_PREFIX = "base_model.model."
_UNET_ROOTS = (
    "down_blocks.",
    "mid_block.",
    "up_blocks.",
    "conv_in",
    "conv_out",
    "time_embedding.",
    "add_embedding.",
)
_TEXT_ROOTS = ("text_model.", "encoder.layers.", "text_projection")
_TRANSFORMER_ROOTS = ("transformer_blocks.", "single_transformer_blocks.", "joint_")
# diffusers once named the text encoders' attention as the UNet's.
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_OLD_TEXT_END = re.compile(r"\.(to_q|to_k|to_v|to_out)$")


def strip_peft(module: str) -> str:
    """Drop the prefix that PEFT puts before the names of the model it wraps."""
    while module.startswith(PEFT_PREFIX):
        module = module[len(PEFT_PREFIX) :]
    return module


def component_of(module: str) -> tuple[str | None, str]:
    """Return the model's part a diffusers or PEFT name belongs to, and the name inside it.

    The part is "unet", "text_encoder", "text_encoder_2", "transformer", "text" (a text encoder,
    which one only its width tells), or None for names of other conventions.
    """
    inner = strip_peft(module)
    for prefix in ("unet", "text_encoder_2", "text_encoder", "transformer"):
        if inner.startswith(f"{prefix}."):
            return prefix, strip_peft(inner[len(prefix) + 1 :])
    if inner.startswith(_UNET_ROOTS):
        return "unet", inner
    if inner.startswith(_TEXT_ROOTS):
        return "text", inner
    if inner.startswith(_TRANSFORMER_ROOTS):
        return "transformer", inner
    return None, inner


def core_name(component: str | None, inner: str) -> str | None:
    """Return the module name that core patches, or None where the file's own name is to stay."""
    if component == "unet":
        # `...processor.to_q` + `_lora.up.weight` is a form that core knows.
        return None if ".processor." in inner else "lora_unet_" + inner.replace(".", "_")
    if component in ("text_encoder", "text_encoder_2"):
        number = 2 if component == "text_encoder_2" else 1
        inner = inner.removeprefix("text_model.")
        inner = _OLD_TEXT_END.sub(lambda found: f".{_OLD_TEXT[found[1]]}", inner)
        level = "" if inner.startswith("text_projection") else "text_model_"
        return f"lora_te{number}_{level}{inner.replace('.', '_')}"
    if component == "transformer":
        return f"transformer.{inner}"
    return None


def file_format(modules: list[str], *, lycoris: bool) -> str:
    """Name the form of a file from its module names, in the words shown to the user."""
    if lycoris or any(name.startswith("lycoris_") for name in modules):
        return "LyCORIS"
    for name in modules:
        if name.startswith(("lora_unet_", "lora_te", "lora_transformer_", "lora_prior_")):
            return "kohya"
        if name.startswith(PEFT_PREFIX):
            return "PEFT"
        if name.startswith(("diffusion_model.", "text_encoders.")):
            return "ComfyUI"
        component, inner = component_of(name)
        if component is not None:
            return "diffusers (attention processors)" if ".processor." in inner else "diffusers"
    return "unknown naming"
