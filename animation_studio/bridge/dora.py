"""DoRA as PEFT computes it, as a patch of ComfyUI's.

PEFT (peft/tuners/lora/variants.py, DoraLinearVariant): with base weight W0, scaled update
D = alpha / r * B A and magnitude m,

    W <- (m / ||W0 + D||) * (W + D)

where the norm runs over all inputs of an output, W0 is the weight before any adapter, and W already
holds the adapters before this one. Core's `dora_scale` divides by ||W|| instead, the norm of the
current weight without the update, so a file that PEFT wrote would come out at another strength.

Between strength 0 (the weight as it was) and 1 (PEFT's result, to 1e-8) the weight is interpolated,
as core does for its DoRA. PEFT's own `set_scale` scales D alone and keeps the magnitude at full
force, so that a strength near 0 is not near the base model. Measured on the tiny SDXL of the tests,
magnitudes drawn 20 % around the norms: our update differs from set_scale's by 14 % of its length at
strength 0.8 and 40 % at 0.5; core's formula differs from PEFT's by 41 % at strength 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.lora
import comfy.model_management
import torch
from comfy.weight_adapter import WeightAdapterBase

__all__ = ["PatchSequence", "PeftDora"]

Function = Callable[[torch.Tensor], torch.Tensor]


class PeftDora(WeightAdapterBase):  # type: ignore[misc]  # ComfyUI has no types
    """A DoRA module in PEFT's format: up [out, r, ...], down [r, in, ...], magnitude [out]."""

    name = "peft_dora"

    def __init__(
        self, up: torch.Tensor, down: torch.Tensor, alpha: float | None, magnitude: torch.Tensor
    ) -> None:
        self.loaded_keys: set[str] = set()
        self.weights = [up, down, magnitude]
        self.scale = 1.0 if alpha is None else alpha / down.shape[0]

    def applied(
        self,
        weight: torch.Tensor,
        original: torch.Tensor,
        strength: float,
        function: Function | None = None,
    ) -> torch.Tensor:
        """Return `weight` with this module; `original` is the weight before any adapter.

        Both have the same shape, which the result has too; computed in 32-bit floats. `function`
        is core's reordering of outputs for a few models.
        """
        up, down, magnitude = (
            comfy.model_management.cast_to_device(tensor, weight.device, torch.float32)
            for tensor in self.weights
        )
        delta = torch.mm(up.flatten(start_dim=1), down.flatten(start_dim=1))
        delta = delta.reshape(weight.shape) * self.scale
        if function is not None:
            delta, magnitude = function(delta), function(magnitude)
        norm = (original.float() + delta).flatten(start_dim=1).norm(dim=1)
        factor = (magnitude / norm).reshape(-1, *[1] * (weight.ndim - 1))
        current = weight.float()
        patched: torch.Tensor = current + strength * (factor * (current + delta) - current)
        return patched

    def calculate_weight(
        self,
        weight: torch.Tensor,
        key: str,
        strength: float,
        _strength_model: float = 1.0,
        _offset: object = None,
        function: Function | None = None,
        *_rest: object,
        **_more: object,
    ) -> torch.Tensor:
        """Patch `weight` in place, taking it for the original one (core's call)."""
        return weight.copy_(self.applied(weight, weight, strength, function))


class PatchSequence(WeightAdapterBase):  # type: ignore[misc]  # ComfyUI has no types
    """Several patches of one weight in order, for weights that have a `PeftDora` among them.

    Core hands each patch the weight as the patches before left it; DoRA's norm needs the weight
    from before all of them.
    """

    name = "patch_sequence"

    def __init__(self, patches: Sequence[tuple[float, Any]]) -> None:
        self.loaded_keys: set[str] = set()
        self.weights = [patch for _, patch in patches]
        self.patches = tuple(patches)

    def calculate_weight(
        self,
        weight: torch.Tensor,
        key: str,
        strength: float,
        _strength_model: float = 1.0,
        _offset: object = None,
        function: Function | None = None,
        *_rest: object,
        **_more: object,
    ) -> torch.Tensor:
        """Patch `weight` in place with all patches, `strength` of the whole (core's call)."""
        original = weight.to(torch.float32, copy=True)
        current = original.clone()
        for own_strength, patch in self.patches:
            if isinstance(patch, PeftDora):
                current = patch.applied(current, original, own_strength, function)
            else:
                step = [(own_strength, patch, 1.0, None, function)]
                current = comfy.lora.calculate_weight(step, current, key)
        return weight.copy_(original + strength * (current - original))
