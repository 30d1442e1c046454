"""One LoRA in memory, whatever file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import torch

__all__ = ["Adapter"]


@dataclass(eq=False, frozen=True)
class Adapter:
    """A LoRA under the names that ComfyUI core patches.

    `tensors` lie in CPU memory of their own, in the file's dtypes; patches reference them, nothing
    copies them. `total_keys` counts the file's tensors, `nbytes` their bytes. `base` is what it was
    trained for ("SDXL", "SD 1.5", ...), None when that cannot be told. `notes` are sentences the
    user should see. `memo` belongs to composition: what was worked out for a model, for as long as
    both live.
    """

    path: Path
    format: str
    base: str | None
    tensors: dict[str, torch.Tensor]
    total_keys: int
    nbytes: int
    metadata: Mapping[str, str]
    notes: tuple[str, ...] = ()
    memo: WeakKeyDictionary[Any, Any] = field(default_factory=WeakKeyDictionary, repr=False)
