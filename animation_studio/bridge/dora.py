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

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import comfy.lora
import comfy.model_management
import torch
from comfy.weight_adapter import WeightAdapterBase

__all__ = ["PatchSequence", "PeftDora"]

Function = Callable[[torch.Tensor], torch.Tensor]


class _Adapter(WeightAdapterBase, ABC):  # type: ignore[misc]  # ComfyUI has no types
    """What core asks of an adapter.

    Newer cores rebuild one as `type(adapter)(adapter.loaded_keys, weights)` with `weights` copied
    to the GPU while nobody waits: everything travels in `weights`, whose tensors the constructor
    must not read.
    """

    def __init__(self, loaded_keys: set[str], weights: Sequence[Any]) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    @abstractmethod
    def patched(
        self, weight: torch.Tensor, key: str, strength: float, function: Function | None
    ) -> torch.Tensor:
        """Return what core shall put in the place of `weight`."""

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
        """Patch `weight` in place (core's call)."""
        return weight.copy_(self.patched(weight, key, strength, function))


class PeftDora(_Adapter):
    """A DoRA module in PEFT's format.

    `weights` are up [out, r, ...], down [r, in, ...], magnitude [out] and alpha (a float, or None
    for a scale of 1).
    """

    name = "peft_dora"

    def patched(
        self, weight: torch.Tensor, key: str, strength: float, function: Function | None
    ) -> torch.Tensor:
        """Return `weight` with this module, taking it for the original one."""
        return self.applied(weight, weight, strength, function)

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
        *tensors, alpha = self.weights
        up, down, magnitude = (
            comfy.model_management.cast_to_device(tensor, weight.device, torch.float32)
            for tensor in tensors
        )
        scale = 1.0 if alpha is None else alpha / down.shape[0]
        delta = torch.mm(up.flatten(start_dim=1), down.flatten(start_dim=1))
        delta = delta.reshape(weight.shape) * scale
        if function is not None:
            delta, magnitude = function(delta), function(magnitude)
        norm = (original.float() + delta).flatten(start_dim=1).norm(dim=1)
        factor = (magnitude / norm).reshape(-1, *[1] * (weight.ndim - 1))
        current = weight.float()
        patched: torch.Tensor = current + strength * (factor * (current + delta) - current)
        return patched


class PatchSequence(_Adapter):
    """Several patches of one weight in order, for weights that have a `PeftDora` among them.

    Core hands each patch the weight as the patches before left it; DoRA's norm needs the weight
    from before all of them. `weights` are pairs (strength, patch).
    """

    name = "patch_sequence"

    def patched(
        self, weight: torch.Tensor, key: str, strength: float, function: Function | None
    ) -> torch.Tensor:
        """Return `weight` with all patches, `strength` of the whole."""
        original = weight.to(torch.float32, copy=True)
        current = original.clone()
        for own_strength, patch in self.weights:
            if isinstance(patch, PeftDora):
                current = patch.applied(current, original, own_strength, function)
            else:
                step = [(own_strength, patch, 1.0, None, function)]
                current = comfy.lora.calculate_weight(step, current, key)
        return original + strength * (current - original)
