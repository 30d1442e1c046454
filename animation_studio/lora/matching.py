"""Which modules of a LoRA fit which weights of a model, before anything is patched."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .parts import group, target_size

if TYPE_CHECKING:
    import torch

__all__ = ["FEW_MATCHED", "KeySpace", "Match", "MatchReport", "match"]

# Below this share of modules a warning is shown. A LoRA on the checkpoint it was made for matches
# everything; distilled SDXL models (SSD-1B, KOALA) lack a third of SDXL's blocks and still give a
# usable result; the 1.5-against-XL files that share layer names stay under it.
FEW_MATCHED = 0.6
_EXAMPLES = 3


@dataclass(eq=False, frozen=True)
class KeySpace:
    """The patchable weights of one model or text encoder, worked out once per model.

    `targets` maps module names of LoRA files to weights; `sizes` gives (output width, number of
    elements) of each weight whose size is known.
    """

    name: str
    targets: Mapping[str, Hashable]
    sizes: Mapping[Hashable, tuple[int, int]]


@dataclass(frozen=True)
class Match:
    """The modules of one adapter that fit a KeySpace, and those whose weight has another size."""

    total: int
    matched: frozenset[str]
    wrong_size: frozenset[str]
    unmatched: tuple[str, ...]


@dataclass(frozen=True)
class MatchReport:
    """How much of one adapter fits the model, in numbers and in a sentence."""

    label: str
    file: str
    format: str
    base: str | None
    total: int
    matched: int
    wrong_size: int
    unmatched_examples: tuple[str, ...]
    level: Literal["ok", "few"]
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for the node: what was loaded, in which form, and how much of it fits."""
        base = f" for {self.base}" if self.base else ""
        return (
            f"{self.label}: {self.file} ({self.format}{base}), {self.matched} of {self.total} "
            "modules"
        )

    @property
    def warning(self) -> str | None:
        """What the user should be warned of, or None."""
        found = list(self.notes)
        if self.level != "ok":
            found.insert(
                0,
                f"only {self.matched} of {self.total} modules fit this checkpoint "
                f"({self.wrong_size} have another size), so the LoRA works in part; not used, for "
                f"example: {', '.join(self.unmatched_examples)}. Was it made for another model?",
            )
        return f"{self.label}: {self.file}: {' '.join(found)}" if found else None


def match(tensors: Mapping[str, torch.Tensor], spaces: tuple[KeySpace, ...]) -> Match:
    """Match the modules in `tensors` (core's names) against all `spaces` of a model.

    A tensor that is no known part of a module counts as a module that fits nothing.
    """
    modules, unknown = group(tensors)
    matched: set[str] = set()
    wrong_size: set[str] = set()
    for module, parts in modules.items():
        for space in spaces:
            if module in space.targets:
                size = target_size(parts, tensors)
                known = space.sizes.get(space.targets[module])
                fits = size is None or known is None or size == known
                (matched if fits else wrong_size).add(module)
    rest = [module for module in modules if module not in matched] + unknown
    return Match(
        total=len(modules) + len(unknown),
        matched=frozenset(matched),
        wrong_size=frozenset(wrong_size - matched),
        unmatched=tuple(name[:120] for name in rest[:_EXAMPLES]),
    )
