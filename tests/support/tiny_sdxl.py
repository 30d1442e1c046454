"""A tiny SDXL, once as diffusers has it and once as ComfyUI has it, with the same random weights.

Real classes of both, only narrow and shallow: context width 2048, text encoders 768 and 1280 wide,
as SDXL's, so that LoRAs for it look like SDXL's. PEFT wraps the diffusers side, which makes it the
measure of what a patched ComfyUI weight has to be.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

LEVELS = (32, 64, 64)
TEXT_LAYERS = 3
COMFY_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1, 2, 2],
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [0, 1, 2],
    "transformer_depth_output": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": 2,
    "num_head_channels": 64,
    "num_heads": -1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "context_dim": 2048,
    "num_classes": "sequential",
    "adm_in_channels": 1280 + 6 * 8,
    "legacy": False,
    "use_checkpoint": False,
    "dtype": torch.float32,
}


@dataclass(frozen=True)
class TinySdxl:
    """The same weights on both sides; `keys` maps diffusers' weight names to ComfyUI's."""

    model: Any
    clip: Any
    unet: torch.nn.Module
    text_encoder: torch.nn.Module
    text_encoder_2: torch.nn.Module
    keys: dict[str, dict[str, str]]


def build() -> TinySdxl:
    """Build both sides from one seed; ComfyUI's modules must be importable."""
    torch.manual_seed(0)
    unet, encoders = _diffusers_unet(), (_text_encoder(768), _text_encoder(1280))
    model, clip = _comfy_model(), _comfy_clip()
    keys = {
        "unet": _unet_keys(unet),
        "text_encoder": _text_keys(encoders[0], "clip_l"),
        "text_encoder_2": _text_keys(encoders[1], "clip_g"),
    }
    for side, source, target in (
        ("unet", unet, model.model),
        ("text_encoder", encoders[0], clip.cond_stage_model),
        ("text_encoder_2", encoders[1], clip.cond_stage_model),
    ):
        state, into = source.state_dict(), target.state_dict()
        for name, key in keys[side].items():
            into[key].copy_(state[name])
    return TinySdxl(model, clip, unet, *encoders, keys)


def copied(network: torch.nn.Module) -> torch.nn.Module:
    """Return a copy that a test may change."""
    return copy.deepcopy(network)


def patched_weight(patcher: Any, key: str) -> torch.Tensor:
    """Return the weight that ComfyUI samples with: the real one with all patches, in 32 bits."""
    import comfy.lora
    import comfy.utils

    weight = comfy.utils.get_attr(patcher.model, key).detach().clone().float()
    return comfy.lora.calculate_weight(patcher.patches.get(key, []), weight, key)


def comfy_forward(patcher: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Run ComfyUI's UNet with its patches applied, and take them out again."""
    patcher.patch_model()
    try:
        with torch.no_grad():
            return patcher.model.diffusion_model(
                inputs["sample"], inputs["t"], context=inputs["context"], y=inputs["y"]
            )
    finally:
        patcher.unpatch_model()


def diffusers_forward(unet: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Run diffusers' UNet (or PEFT's wrapping of it) on the same inputs."""
    with torch.no_grad():
        return unet(
            inputs["sample"],
            inputs["t"],
            inputs["context"],
            added_cond_kwargs={"text_embeds": inputs["text"], "time_ids": inputs["ids"]},
        ).sample


def inputs(unet: Any) -> dict[str, torch.Tensor]:
    """Random inputs for both sides: latents, time, text context, pooled text and sizes."""
    draw = torch.Generator().manual_seed(1)
    text = torch.randn(1, 1280, generator=draw)
    ids = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]])
    sizes = unet.add_time_proj(ids.flatten()).reshape(1, -1)
    return {
        "sample": torch.randn(1, 4, 8, 8, generator=draw),
        "t": torch.tensor([300.0]),
        "context": torch.randn(1, 77, 2048, generator=draw),
        "text": text,
        "ids": ids,
        "y": torch.cat([text, sizes], dim=1),
    }


def _diffusers_unet() -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=32,
        block_out_channels=LEVELS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=1,  # heads, in fact; ComfyUI makes heads 64 wide
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=1280 + 6 * 8,
    ).eval()


def _text_encoder(width: int) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=100,
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=4,
        projection_dim=width,
        bos_token_id=98,
        eos_token_id=99,
    )
    kind = CLIPTextModelWithProjection if width == 1280 else CLIPTextModel
    return kind(config).eval()


def _comfy_model() -> Any:
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    network = comfy.model_base.SDXL(comfy.supported_models.SDXL(dict(COMFY_UNET)), device="cpu")
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(network, load_device=cpu, offload_device=cpu)


def _comfy_clip() -> Any:
    import comfy.sd
    import comfy.sdxl_clip
    from comfy.supported_models_base import ClipTarget

    small = {"num_hidden_layers": TEXT_LAYERS, "intermediate_size": 64, "num_attention_heads": 4}
    target = ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel)
    options = {"clip_l_model_config": small, "clip_g_model_config": small}
    clip = comfy.sd.CLIP(target, model_options={**options, "dtype": torch.float32})
    # Weights are left uninitialised by ComfyUI; those without a twin on the other side stay unused.
    for parameter in clip.cond_stage_model.parameters():
        parameter.data.zero_()
    return clip


def _unet_keys(unet: torch.nn.Module) -> dict[str, str]:
    import comfy.utils

    pairs = comfy.utils.unet_to_diffusers({**COMFY_UNET})
    # Each residual block has a skip convolution in the map, and few have one in the network.
    there = unet.state_dict()
    return {name: f"diffusion_model.{key}" for name, key in pairs.items() if name in there}


def _text_keys(encoder: torch.nn.Module, clip: str) -> dict[str, str]:
    keys = {}
    for name in encoder.state_dict():
        inner = name.removeprefix("text_model.")
        if inner.startswith("encoder."):
            keys[name] = f"{clip}.transformer.text_model.{inner}"
    return keys
