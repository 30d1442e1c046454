"""LoRA files: reading, recognising, converting, composing.

In: the path of a .safetensors file or PEFT folder, and a model to patch (a `PatchTarget`; the
bridge makes one of ComfyUI's MODEL and CLIP). Out: an `Adapter` whose tensors bear the names that
ComfyUI core patches, and from `compose` the patched model with a `MatchReport` per adapter.

    adapter = shared_cache().get(path)
    (model, clip), reports = compose(target, [AdapterUse(adapter, 0.8, 0.8, label="Luca")])

Everything that cannot be used as it was trained raises LoraError. torch is imported when the first
file is read, not before.
"""

from __future__ import annotations

from .adapter import Adapter
from .cache import AdapterCache, CacheStats, shared_cache, stamp_of
from .composition import AdapterUse, Layer, PatchTarget, compose
from .files import files_of, read_adapter
from .matching import KeySpace, MatchReport

__all__ = [
    "Adapter",
    "AdapterCache",
    "AdapterUse",
    "CacheStats",
    "KeySpace",
    "Layer",
    "MatchReport",
    "PatchTarget",
    "compose",
    "files_of",
    "read_adapter",
    "shared_cache",
    "stamp_of",
]
