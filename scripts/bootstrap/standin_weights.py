"""What the stand-in model files contain: names, shapes and random values of every tensor.

Shapes come from ComfyUI's own model classes, built on torch's `meta` device (no memory, no
initialisation), so that ComfyUI detects the files as what they stand for. Values are drawn with
numpy, per tensor, from a seed made of the file's and the tensor's name: the same on every machine.

Imports torch and ComfyUI: `prepare(comfyui)` first, and only when something has to be made.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "Layout",
    "Values",
    "controlnet_layout",
    "draw",
    "lora_layout",
    "prepare",
    "sd15_layout",
    "sdxl_layout",
]

LORA_RANK = 4
# Std of a weight is GAIN / sqrt(fan_in): signals neither die nor explode through the stack.
GAIN = 0.7
# The hint passes eight convolutions with SiLU, which halves small signals; 2 keeps it alive, so
# that another control map gives another picture.
HINT_GAIN = 2.0
# Sharper attention over the prompt's tokens: one other word is to change the picture visibly.
CROSS_ATTENTION_GAIN = 1.5
# Random noise predictions leave latents about ten times as large as real ones; the VAE, which
# squeezes them by tanh, is told so. With its gain that gives pictures of some contrast.
LATENT_EXCESS = 10.0
VAE_OUT_GAIN = 1.5
LORA_DOWN_GAIN = 1.0
LORA_UP_STD = 0.08

# The signature that core knows as KOALA-700M, an SDXL-class UNet, at a third of the width:
# comfy/supported_models.py, class KOALA_700M(SDXL).
SDXL_UNET: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 1, 1],
    "transformer_depth": [0, 2, 5],
    "transformer_depth_output": [0, 0, 2, 2, 5, 5],
    "transformer_depth_middle": 5,
    "num_heads": -1,
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
    "context_dim": 2048,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
    "use_spatial_transformer": True,
    "legacy": False,
}
# Any UNet with 320 channels, context 768 and no vector conditioning is SD1.5 to core.
SD15_UNET: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 1],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_linear_in_transformer": False,
    "context_dim": 768,
    "adm_in_channels": None,
    "use_spatial_transformer": True,
    "legacy": False,
}


@dataclass(frozen=True)
class Values:
    """How one tensor is filled: normal values of a standard deviation, around a constant."""

    shape: tuple[int, ...]
    std: float = 0.0
    mean: float = 0.0
    dtype: str = "F16"  # safetensors' name; "I64" counts 0, 1, 2, ...


Layout = dict[str, Values]


def prepare(comfyui: Path) -> None:
    """Make ComfyUI's own modules importable from its source folder, without touching a GPU."""
    sys.path.insert(0, str(comfyui))
    from comfy.cli_args import args

    args.cpu = True


def draw(seed: str, layout: Layout) -> Iterator[bytes]:
    """Yield the little-endian bytes of each tensor of a layout, in its order."""
    for name, values in layout.items():
        count = math.prod(values.shape)
        if values.dtype == "I64":
            yield np.arange(count, dtype="<i8").tobytes()
        elif values.std == 0.0:
            yield np.full(count, values.mean, dtype="<f2").tobytes()
        else:
            entropy = [zlib.crc32(seed.encode()), zlib.crc32(name.encode())]
            numbers = np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))
            data = numbers.standard_normal(count, dtype=np.float32)
            data *= values.std
            data += values.mean
            yield data.astype("<f2").tobytes()


def sdxl_layout() -> Layout:
    """An SDXL-class checkpoint: UNet, both text encoders at full size, TAESD as VAE."""
    import comfy.supported_models

    config = comfy.supported_models.SDXL(dict(SDXL_UNET))
    clip = config.process_clip_state_dict_for_saving(_clip_sdxl())
    return {
        **_filled(_unet(SDXL_UNET), "model.diffusion_model."),
        **_filled(clip, ""),
        **_vae(0.13025),  # latent_formats.SDXL.scale_factor
    }


def sd15_layout() -> Layout:
    """An SD1.5-class checkpoint: a small UNet, CLIP-L at full size, TAESD as VAE."""
    import comfy.supported_models

    config = comfy.supported_models.SD15(dict(SD15_UNET))
    clip = config.process_clip_state_dict_for_saving(_clip_sd15())
    return {
        **_filled(_unet(SD15_UNET), "model.diffusion_model."),
        **_filled(clip, ""),
        **_vae(0.18215),  # latent_formats.SD15.scale_factor
    }


def controlnet_layout() -> Layout:
    """A ControlNet for the SDXL-class UNet, as core saves one (`zero_convs`, not all zero here)."""
    import comfy.cldm.cldm
    import comfy.ops
    import torch

    config = {k: v for k, v in SDXL_UNET.items() if k != "out_channels"}
    with torch.device("meta"):
        net = comfy.cldm.cldm.ControlNet(
            **config, hint_channels=3, dtype=torch.float16, operations=comfy.ops.manual_cast
        )
    return _filled(net.state_dict(), "")


def lora_layout(base: str) -> Layout:
    """A kohya LoRA over every attention and feed-forward layer of the UNet and of CLIP-L.

    SDXL's second encoder is left alone: patching its 695 M parameters takes a CPU longer than
    everything else in a run. `base` is "sdxl" (kohya's names of that UNet's own blocks) or "sd15"
    (diffusers' block names).
    """
    sdxl = base == "sdxl"
    unet = _unet(SDXL_UNET if sdxl else SD15_UNET)
    rename = (lambda key: key) if sdxl else _diffusers_names()
    layout: Layout = {}
    for key, tensor in unet.items():
        if key.endswith(".weight") and _is_attention(key):
            name = rename(key.removesuffix(".weight")).replace(".", "_")
            layout.update(_lora_pair(f"lora_unet_{name}", tuple(tensor.shape)))
    prefix = "lora_te1" if sdxl else "lora_te"
    for key, tensor in (_clip_sdxl() if sdxl else _clip_sd15()).items():
        encoder, _, rest = key.removesuffix(".weight").partition(".transformer.")
        layer = ".layers." in rest and key.endswith(("_proj.weight", "fc1.weight", "fc2.weight"))
        if layer and encoder == "clip_l":
            name = f"{prefix}_{rest.replace('.', '_')}"
            layout.update(_lora_pair(name, tuple(tensor.shape)))
    return layout


def _lora_pair(name: str, shape: tuple[int, ...]) -> Layout:
    """Return lora_down, lora_up and alpha (= rank: scale 1) of one layer, shaped as kohya does."""
    window = shape[2:]
    return {
        f"{name}.alpha": Values((), mean=float(LORA_RANK)),
        f"{name}.lora_down.weight": Values(
            (LORA_RANK, *shape[1:]), std=LORA_DOWN_GAIN / math.sqrt(math.prod(shape[1:]))
        ),
        f"{name}.lora_up.weight": Values(
            (shape[0], LORA_RANK, *(1 for _ in window)), std=LORA_UP_STD
        ),
    }


def _is_attention(key: str) -> bool:
    return (".transformer_blocks." in key and ".norm" not in key) or key.endswith(
        (".proj_in.weight", ".proj_out.weight")
    )


def _diffusers_names() -> Callable[[str], str]:
    import comfy.utils

    names = comfy.utils.unet_to_diffusers(dict(SD15_UNET))
    own = {
        value.removesuffix(".weight"): key.removesuffix(".weight") for key, value in names.items()
    }
    return lambda key: own[key]


def _unet(config: Mapping[str, Any]) -> dict[str, Any]:
    import comfy.ops
    import torch
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    with torch.device("meta"):
        net = UNetModel(**config, dtype=torch.float16, operations=comfy.ops.manual_cast)
    return dict(net.state_dict())


def _clip_sdxl() -> dict[str, Any]:
    import comfy.sdxl_clip
    import torch

    return dict(comfy.sdxl_clip.SDXLClipModel(device="meta", dtype=torch.float16).state_dict())


def _clip_sd15() -> dict[str, Any]:
    import comfy.sd1_clip
    import torch

    return dict(comfy.sd1_clip.SD1ClipModel(device="meta", dtype=torch.float16).state_dict())


def _filled(state: Mapping[str, Any], prefix: str) -> Layout:
    return {prefix + key: _values(key, tuple(tensor.shape)) for key, tensor in state.items()}


def _values(key: str, shape: tuple[int, ...]) -> Values:
    """Decide one tensor's values: norms 1, biases 0, the rest normal by its fan-in."""
    if key.endswith("position_ids"):
        return Values(shape, dtype="I64")
    if key.endswith("logit_scale"):
        return Values(shape, mean=4.6055)  # ln(100), CLIP's own
    if key.endswith("bias"):
        return Values(shape)
    if len(shape) < 2:
        return Values(shape, mean=1.0)
    if "token_embedding" in key:
        return Values(shape, std=GAIN)
    if "position" in key:
        return Values(shape, std=GAIN / 4)
    gain = GAIN
    if "input_hint_block" in key:
        gain = HINT_GAIN
    elif "attn2.to_q" in key or "attn2.to_k" in key:
        gain = CROSS_ATTENTION_GAIN
    elif key == "taesd_decoder.19.weight":
        gain = VAE_OUT_GAIN
    return Values(shape, std=gain / math.sqrt(math.prod(shape[1:])))


def _vae(scale_factor: float) -> Layout:
    """TAESD, its decoder around mid grey; `vae_scale` undoes the latent format's factor."""
    import comfy.taesd.taesd
    import torch

    with torch.device("meta"):
        net = comfy.taesd.taesd.TAESD()
    layout = _filled(net.state_dict(), "first_stage_model.")
    layout["first_stage_model.vae_scale"] = Values((), mean=scale_factor / LATENT_EXCESS)
    layout["first_stage_model.vae_shift"] = Values(())
    layout["first_stage_model.taesd_decoder.19.bias"] = Values((3,), mean=0.5)
    return layout
