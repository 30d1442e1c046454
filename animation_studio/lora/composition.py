"""Several LoRAs on one model: matched first, then patched onto one clone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..errors import LoraBaseError, LoraError
from .adapter import Adapter
from .base_model import BASES
from .matching import FEW_MATCHED, KeySpace, Match, MatchReport, match

__all__ = ["AdapterUse", "Layer", "PatchTarget", "Prepared", "compose"]

MAX_STRENGTH = 10.0

Result_co = TypeVar("Result_co", covariant=True)


@dataclass(frozen=True)
class AdapterUse:
    """An adapter with its strength on model and text encoders, and the name messages give it."""

    adapter: Adapter
    strength_model: float
    strength_clip: float
    label: str


@dataclass(frozen=True)
class Prepared:
    """An adapter's patches for one model: per KeySpace, core's patch for each weight.

    The patches reference the adapter's tensors; strengths are not in them.
    """

    match: Match
    patches: tuple[Mapping[Any, Any], ...]


@dataclass(frozen=True)
class Layer:
    """One adapter of a composition: patches and strength per KeySpace, in the target's order."""

    patches: tuple[Mapping[Any, Any], ...]
    strengths: tuple[float, ...]


class PatchTarget(Protocol[Result_co]):
    """What composition needs of a model with its text encoders; the bridge offers it.

    `base` names the model's kind in the words of `Adapter.base`, None for kinds without a name.
    `spaces` are the weights that can be patched: the model's first, then the text encoders'. They
    are the same objects as long as the underlying models are.
    """

    @property
    def base(self) -> str | None:
        """The base model's name."""

    @property
    def spaces(self) -> tuple[KeySpace, ...]:
        """The patchable weights."""

    def core_tensors(self, adapter: Adapter) -> Mapping[str, Any]:
        """Return the adapter's tensors after ComfyUI's own conversion of special files."""

    def patches(self, tensors: Mapping[str, Any], targets: Mapping[str, Any]) -> Mapping[Any, Any]:
        """Return core's patch objects for the modules named in `targets`, by weight."""

    def patched(self, layers: Sequence[Layer]) -> Result_co:
        """Return clones that carry all layers, applied in order."""

    def unpatched(self) -> Result_co:
        """Return the very objects that came in."""


def compose(
    target: PatchTarget[Result_co], uses: Sequence[AdapterUse]
) -> tuple[Result_co, list[MatchReport]]:
    """Patch `target` with all `uses` at once and report what matched, in the order of `uses`.

    A use with strength 0 on model and text encoders is left out; when nothing is left, the objects
    that came in are returned as they are. Raises LoraError for strengths that are no number from
    -10 to 10 and for an adapter of which nothing fits, LoraBaseError for one that was trained for
    another base model; nothing has been patched then.
    """
    for use in uses:
        _check_strengths(use)
    used = [use for use in uses if use.strength_model != 0.0 or use.strength_clip != 0.0]
    if not used:
        return target.unpatched(), []
    for use in used:
        _check_base(use, target.base)
    layers, reports = [], []
    for use in used:
        prepared = _prepared(target, use.adapter)
        reports.append(_report(use, prepared.match, target.base))
        # The model's space comes first; all others are text encoders.
        strengths = [use.strength_model] + [use.strength_clip] * (len(prepared.patches) - 1)
        layers.append(Layer(prepared.patches, tuple(strengths)))
    return target.patched(layers), reports


def _check_strengths(use: AdapterUse) -> None:
    for strength, what in ((use.strength_model, "model"), (use.strength_clip, "text encoder")):
        if not math.isfinite(strength) or abs(strength) > MAX_STRENGTH:
            raise LoraError(
                f"{use.label}: a strength of {strength!r} on the {what} cannot be used. Give a "
                f"number from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}; 0.5 to 1 is usual."
            )


def _check_base(use: AdapterUse, base: str | None) -> None:
    trained = use.adapter.base
    if trained != base and trained in BASES and base in BASES:
        raise LoraBaseError(
            f"{use.label}: {use.adapter.path.name} was trained for {trained}; the checkpoint is "
            f"{base}. Load a {trained} checkpoint, or choose a LoRA made for {base} "
            f"({use.adapter.path})."
        )


def _prepared(target: PatchTarget[Any], adapter: Adapter) -> Prepared:
    """Return the adapter's patches for this target, worked out once for as long as both live."""
    spaces = target.spaces
    kept = [adapter.memo.get(space) for space in spaces]
    known: Prepared | None = kept[0]
    # The same model may come with other text encoders: all spaces must name the same work.
    if known is not None and all(other is known for other in kept):
        return known
    tensors = target.core_tensors(adapter)
    found = match(tensors, spaces)
    patches = tuple(
        target.patches(
            tensors,
            {module: space.targets[module] for module in found.matched if module in space.targets},
        )
        for space in spaces
    )
    prepared = Prepared(found, patches)
    for space in spaces:
        adapter.memo[space] = prepared
    return prepared


def _report(use: AdapterUse, found: Match, base: str | None) -> MatchReport:
    matched, adapter = len(found.matched), use.adapter
    if matched == 0:
        trained = f", trained for {adapter.base}," if adapter.base else ""
        raise LoraError(
            f"{use.label}: {adapter.path.name} ({adapter.format} format{trained} {found.total} "
            f"modules) fits nothing in this {base or 'unknown'} checkpoint: "
            f"{len(found.wrong_size)} modules have another size, the others other names, for "
            f"example {', '.join(found.unmatched)}. Choose a LoRA made for this checkpoint "
            f"({adapter.path})."
        )
    return MatchReport(
        label=use.label,
        file=adapter.path.name,
        format=adapter.format,
        base=adapter.base,
        total=found.total,
        matched=matched,
        wrong_size=len(found.wrong_size),
        unmatched_examples=found.unmatched,
        level="ok" if matched >= FEW_MATCHED * found.total else "few",
        notes=adapter.notes,
    )
