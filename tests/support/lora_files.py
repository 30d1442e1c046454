"""PEFT adapters on the tiny SDXL, saved in every form that LoRA files come in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
LINEAR = [*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "time_emb_proj"]
CONV = ["conv1", "conv2", "conv_shortcut", "conv_in", "conv_out", "downsamplers.0.conv"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def trained(network: torch.nn.Module, *configs: LoraConfig, seed: int = 0) -> PeftModel:
    """Wrap a copy of `network` with one adapter per config ("a0", "a1", ...), weights drawn."""
    draw = torch.Generator().manual_seed(seed)
    wrapped = get_peft_model(copy.deepcopy(network), configs[0], adapter_name="a0")
    for index, config in enumerate(configs[1:], start=1):
        wrapped.add_adapter(f"a{index}", config)
    for name, parameter in wrapped.named_parameters():
        noise = torch.randn(parameter.shape, generator=draw)
        if "lora_magnitude_vector" in name:
            parameter.data *= 1.0 + 0.2 * noise
        elif "lora_" in name:
            parameter.data = 0.05 * noise
    return wrapped.eval()


def active(wrapped: PeftModel, strengths: Mapping[str, float]) -> PeftModel:
    """Make the named adapters active, in order, scaled as diffusers' set_adapters does it."""
    wrapped.base_model.set_adapter(list(strengths))
    for module in wrapped.modules():
        if hasattr(module, "set_scale"):
            for name, strength in strengths.items():
                module.set_scale(name, strength)
    return wrapped


def merged(wrapped: PeftModel) -> dict[str, torch.Tensor]:
    """Return the weights after PEFT has merged the active adapters, on a copy."""
    whole = copy.deepcopy(wrapped)
    return dict(whole.merge_and_unload(adapter_names=whole.active_adapters).state_dict())


def layers(wrapped: PeftModel, adapter: str) -> dict[str, torch.Tensor]:
    """Return an adapter's tensors under the names of the wrapped network (`X.lora_A.weight`)."""
    state = get_peft_model_state_dict(wrapped, adapter_name=adapter)
    return {key.removeprefix("base_model.model."): tensor for key, tensor in state.items()}


def options(wrapped: PeftModel, adapter: str) -> dict[str, Any]:
    """Return an adapter's configuration as diffusers writes it into metadata."""
    found = wrapped.peft_config[adapter].to_dict()
    return {key: list(value) if isinstance(value, set) else value for key, value in found.items()}


def scale_of(wrapped: PeftModel, adapter: str, module: str) -> float:
    """Return the scale that PEFT itself gives a module of an adapter."""
    return wrapped.base_model.model.get_submodule(module).scaling[adapter]


def peft_folder(wrapped: PeftModel, folder: Path, adapter: str = "a0") -> Path:
    """Save as PEFT does; another adapter than "default" gets a subfolder of its name."""
    wrapped.save_pretrained(str(folder), selected_adapters=[adapter])
    return folder / adapter


def diffusers_file(wrapped: PeftModel, folder: Path, adapter: str = "a0") -> Path:
    """Save as diffusers' SDXL training scripts do: `unet.X.lora_A.weight`, with metadata."""
    StableDiffusionXLLoraLoaderMixin.save_lora_weights(
        folder,
        unet_lora_layers=layers(wrapped, adapter),
        unet_lora_adapter_metadata=options(wrapped, adapter),
    )
    return folder / "pytorch_lora_weights.safetensors"


def diffusers_up_down(wrapped: PeftModel, folder: Path, adapter: str = "a0") -> Path:
    """Save with diffusers' earlier names where it has them (`unet.X.to_q.lora.up.weight`)."""
    StableDiffusionXLLoraLoaderMixin.save_lora_weights(
        folder,
        unet_lora_layers=convert_state_dict_to_diffusers(layers(wrapped, adapter)),
        unet_lora_adapter_metadata=options(wrapped, adapter),
    )
    return folder / "pytorch_lora_weights.safetensors"


def without_prefix(wrapped: PeftModel, folder: Path, adapter: str = "a0") -> Path:
    """Save as diffusers' `unet.save_lora_adapter` does: no prefix, metadata without one."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"lora_adapter_metadata": json.dumps(options(wrapped, adapter))}
    save_file(layers(wrapped, adapter), folder / "unprefixed.safetensors", metadata=metadata)
    return folder / "unprefixed.safetensors"


def raw_names(wrapped: PeftModel, folder: Path, adapter: str = "a0") -> Path:
    """Save PEFT's folder with the adapter's name left in the keys (`X.lora_A.default.weight`)."""
    saved = peft_folder(wrapped, folder, adapter)
    state = {
        "base_model.model."
        + key.replace("lora_A.weight", "lora_A.default.weight")
        .replace("lora_B.weight", "lora_B.default.weight")
        .replace("lora_magnitude_vector", "lora_magnitude_vector.default.weight"): tensor
        for key, tensor in layers(wrapped, adapter).items()
    }
    save_file(state, saved / "adapter_model.safetensors")
    return saved


def renamed(rename: Callable[[str], str]) -> Callable[..., Path]:
    """Return a writer of kohya's parts (lora_up, lora_down, alpha) under other module names."""

    def save(wrapped: PeftModel, folder: Path, adapter: str = "a0") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        state = {}
        for key, tensor in layers(wrapped, adapter).items():
            module, part = key.rsplit(".lora_", 1)
            end = {"A.weight": ".lora_down.weight", "B.weight": ".lora_up.weight"}[part]
            state[rename(module) + end] = tensor
            if part == "A.weight":
                alpha = scale_of(wrapped, adapter, module) * tensor.shape[0]
                state[f"{rename(module)}.alpha"] = torch.tensor(alpha)
        save_file(state, folder / "renamed.safetensors")
        return folder / "renamed.safetensors"

    return save


def processors(wrapped: PeftModel, folder: Path, adapter: str = "a0") -> Path:
    """Save as diffusers did before PEFT: `unet.X.processor.to_q_lora.up.weight`, scale 1."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {}
    for key, tensor in layers(wrapped, adapter).items():
        module, part = key.rsplit(".lora_", 1)
        block, layer = module.removesuffix(".0").rsplit(".", 1)
        end = {"A.weight": "down", "B.weight": "up"}[part]
        scale = scale_of(wrapped, adapter, module) if end == "up" else 1.0
        state[f"unet.{block}.processor.{layer}_lora.{end}.weight"] = tensor * scale
    save_file(state, folder / "processors.safetensors")
    return folder / "processors.safetensors"
