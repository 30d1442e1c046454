"""Loading a look: entries to LoRA patches, prompts and conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import LoraError
from ..lora import AdapterUse, MatchReport, compose, shared_cache
from ..registry import (
    Choice,
    Look,
    LookEntry,
    LookRequest,
    look_prompts,
    resolve_choices,
    sampling_for,
)
from . import studio
from .comfy_types import Clip, Conditioning, Model
from .conditioning import encode
from .folders import lora_file
from .patching import ComfyTarget

__all__ = ["LoadedLook", "load_look"]


@dataclass(frozen=True)
class LoadedLook:
    """What the loader node gives out, and the lines it shows."""

    model: Model
    clip: Clip
    positive: Conditioning
    negative: Conditioning
    look: Look
    lines: list[str]


def load_look(model: Model, clip: Clip, request: LookRequest) -> LoadedLook:
    """Patch model and clip with the LoRAs of `request`, assemble and encode its prompts.

    Nothing chosen, or every weight 0, gives the very model and clip that came in. Raises
    ConfigError for an entry or weight that cannot be used and LoraError for a file that cannot.
    """
    if clip is None:
        raise LoraError(
            "the clip input is empty: this checkpoint holds no text encoders. Load them with a "
            "CLIP loader, or choose a whole checkpoint."
        )
    registry = studio.registry()
    choices = resolve_choices(registry, request)
    entries = [_entry(choice) for choice in choices]
    (model, clip), reports = compose(ComfyTarget(model, clip), _uses(entries))
    prompts = look_prompts(choices, request.scene, request.negative)
    positive, positive_windows = encode(clip, prompts.positive)
    negative, negative_windows = encode(clip, prompts.negative)
    character = next((choice.character for choice in choices if choice.character), None)
    look = Look(
        entries=entries,
        prompts=prompts.model_copy(
            update={"positive_windows": positive_windows, "negative_windows": negative_windows}
        ),
        sampling=sampling_for(registry, character=character, vocabulary=studio.vocabulary()),
        character=character.id if character else None,
        consistency_threshold=character.preset.consistency_threshold if character else None,
        warnings=[report.warning for report in reports if report.warning],
    )
    return LoadedLook(model, clip, positive, negative, look, _lines(look, reports))


def _entry(choice: Choice) -> LookEntry:
    path, entry = choice.entry.lora_path, choice.entry
    return LookEntry(
        kind=choice.kind,
        id=choice.id,
        name=choice.character.name if choice.character else entry.name,
        weight=choice.weight,
        lora_path=path,
        lora_file=str(lora_file(path, f"{choice.kind} {choice.id!r}")) if path else None,
        trigger_words=entry.trigger_words,
        content_hash=choice.content_hash,
    )


def _uses(entries: Sequence[LookEntry]) -> list[AdapterUse]:
    cache = shared_cache()
    return [
        AdapterUse(cache.get(entry.lora_file), entry.weight, entry.weight, label=entry.name)
        for entry in entries
        if entry.lora_file is not None and entry.weight != 0.0
    ]


def _lines(look: Look, reports: Sequence[MatchReport]) -> list[str]:
    """The look in the words shown on the node: weights, matches, windows, warnings."""
    lines = [f"{entry.kind} {entry.id}: weight {entry.weight:g}" for entry in look.entries]
    lines += [report.summary for report in reports]
    for name, windows in (
        ("prompt", look.prompts.positive_windows),
        ("negative", look.prompts.negative_windows),
    ):
        if windows:
            lines.append(f"{name}: {max(windows.values())} CLIP window(s) of 75 tokens")
    return lines
