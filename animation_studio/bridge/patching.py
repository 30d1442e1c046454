"""ComfyUI's MODEL and CLIP as a target of LoRA composition.

Only core's own functions name, load and apply patches: comfy.lora's key maps and loader, and
ModelPatcher.add_patches. They are called with their first positional arguments alone, which have
been the same from 0.3.75 to today.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import comfy.lora
import comfy.lora_convert
import comfy.model_base
import torch

from ..lora import Adapter, KeySpace, Layer
from ..lora.base_model import CONTEXT_BASES
from ..lora.parts import PEFT_MAGNITUDE
from .comfy_types import Clip, Model
from .dora import PatchSequence, PeftDora

__all__ = ["ComfyTarget", "base_name"]

# One KeySpace per loaded network, for as long as ComfyUI keeps the network.
_spaces: WeakKeyDictionary[Any, KeySpace] = WeakKeyDictionary()


class ComfyTarget:
    """A MODEL with its CLIP, patched together (lora.PatchTarget of (model, clip))."""

    def __init__(self, model: Model, clip: Clip) -> None:
        self._model = model
        self._clip = clip
        self.base = base_name(model)
        self.spaces = (
            _space(model.model, "model", comfy.lora.model_lora_keys_unet),
            _space(clip.cond_stage_model, "clip", comfy.lora.model_lora_keys_clip),
        )

    def core_tensors(self, adapter: Adapter) -> Mapping[str, Any]:
        """Return the adapter's tensors after core's conversion of a few special files."""
        converted: Mapping[str, Any] = comfy.lora_convert.convert_lora(adapter.tensors)
        return converted

    def patches(self, tensors: Mapping[str, Any], targets: Mapping[str, Any]) -> Mapping[Any, Any]:
        """Return core's patches by weight, and `PeftDora` where a module follows PEFT's DoRA."""
        dora = {module for module in targets if f"{module}{PEFT_MAGNITUDE}" in tensors}
        plain = {module: key for module, key in targets.items() if module not in dora}
        # log_missing off: what is missing is counted and reported by composition.
        patches: dict[Any, Any] = comfy.lora.load_lora(tensors, plain, False)
        for module in dora:
            patches[targets[module]] = _peft_dora(tensors, module)
        return patches

    def patched(self, layers: Sequence[Layer]) -> tuple[Model, Clip]:
        """Return one clone of each that carries all layers in order."""
        clones = (self._model.clone(), self._clip.clone())
        for index, clone in enumerate(clones):
            _add(clone, [(layer.patches[index], layer.strengths[index]) for layer in layers])
        return clones

    def unpatched(self) -> tuple[Model, Clip]:
        """Return the model and clip that came in."""
        return self._model, self._clip


def base_name(model: Model) -> str | None:
    """Name the base model of a MODEL: "SD 1.5", "SD 2", "SDXL", ..., or core's class name.

    SSD-1B, KOALA and the like are SDXL: their LoRAs are named and sized alike.
    """
    network = model.model
    for kind, name in (("SDXLRefiner", "SDXL refiner"), ("SDXL", "SDXL"), ("SD3", "SD 3")):
        if isinstance(network, getattr(comfy.model_base, kind)):
            return name
    width = network.model_config.unet_config.get("context_dim")
    # SD 1.x and 2.x have no class of their own.
    if type(network) is comfy.model_base.BaseModel and width in CONTEXT_BASES:
        return CONTEXT_BASES[width]
    return type(network).__name__


def _space(
    network: torch.nn.Module, name: str, key_map: Callable[[Any, dict[str, Any]], dict[str, Any]]
) -> KeySpace:
    space = _spaces.get(network)
    if space is None:
        targets: dict[str, Hashable] = key_map(network, {})
        sizes: dict[Hashable, tuple[int, int]] = {
            key: (weight.shape[0], math.prod(weight.shape))
            for key, weight in network.state_dict().items()
            # Packed integers (quantised weights) do not show the size of what they stand for.
            if weight.is_floating_point() and weight.ndim > 0
        }
        space = _spaces[network] = KeySpace(name, targets, sizes)
    return space


def _peft_dora(tensors: Mapping[str, Any], module: str) -> PeftDora:
    alpha = tensors.get(f"{module}.alpha")
    weights = (
        tensors[f"{module}.lora_up.weight"],
        tensors[f"{module}.lora_down.weight"],
        tensors[f"{module}{PEFT_MAGNITUDE}"],
        None if alpha is None else alpha.item(),
    )
    return PeftDora(set(), weights)


def _add(clone: Model | Clip, layers: Sequence[tuple[Mapping[Any, Any], float]]) -> None:
    """Add all layers to one clone; weights with a PEFT DoRA get their patches as one sequence."""
    layers = [(patches, strength) for patches, strength in layers if strength != 0.0 and patches]
    sequenced = {
        key
        for patches, _ in layers
        for key, patch in patches.items()
        if isinstance(patch, PeftDora)
    }
    for patches, strength in layers:
        plain = {key: patch for key, patch in patches.items() if key not in sequenced}
        if plain:
            clone.add_patches(plain, strength)
    if sequenced:
        clone.add_patches(
            {
                key: PatchSequence(
                    set(),
                    [(strength, patches[key]) for patches, strength in layers if key in patches],
                )
                for key in sequenced
            }
        )
