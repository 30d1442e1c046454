"""The look: what one picture is made of, with the values to sample it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from ..errors import ConfigError
from .models import (
    ENTRY_KINDS,
    MAX_WEIGHT,
    EntryKind,
    GenerationParams,
    RegistryEntry,
    content_hash,
)
from .prompts import assemble_prompt
from .registry import Character, Registry
from .samplers import SamplerVocabulary, resolve_scheduler

__all__ = [
    "AUTO_WEIGHT",
    "NONE",
    "OWN",
    "Choice",
    "Look",
    "LookEntry",
    "LookRequest",
    "Prompts",
    "SamplingValues",
    "look_prompts",
    "resolve_choices",
    "sampling_for",
]

# The widgets' words: no entry of this kind; the entry's own weight; the character's own sampling.
NONE = "none"
AUTO_WEIGHT = -1.0
OWN = "character's own"

_AFTER_SCENE: tuple[EntryKind, ...] = ("background", "style")
_BEFORE_SCENE: tuple[EntryKind, ...] = ("expression", "pose")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Prompts(_Frozen):
    """The assembled texts; `*_windows` count CLIP windows of 75 tokens by encoder ({}: unknown)."""

    positive: str
    negative: str
    positive_windows: dict[str, int] = {}
    negative_windows: dict[str, int] = {}


class SamplingValues(_Frozen):
    """What a KSampler and an EmptyLatentImage need. Width and height in pixels.

    `source` says who chose: a quality preset's name or "character's own".
    """

    steps: int
    cfg: float
    sampler: str
    scheduler: str
    width: int
    height: int
    source: str

    @property
    def outputs(self) -> tuple[object, ...]:
        """The values in the order of the Quality Preset node's outputs."""
        return (self.steps, self.cfg, self.sampler, self.scheduler, self.width, self.height)


class LookEntry(_Frozen):
    """One entry of a look. `lora_file` is the file or folder in use, None for words only."""

    kind: EntryKind
    id: str
    name: str
    weight: float
    lora_path: str | None
    lora_file: str | None
    trigger_words: list[str]
    content_hash: str


class Look(_Frozen):
    """Everything that the loader decided, for the other nodes and for the record."""

    entries: list[LookEntry]
    prompts: Prompts
    sampling: SamplingValues
    character: str | None
    consistency_threshold: float | None
    warnings: list[str] = []


@dataclass(frozen=True)
class LookRequest:
    """What a loader's widgets say: an id (or NONE) and a weight (or AUTO_WEIGHT) for each kind."""

    choices: Mapping[EntryKind, str]
    weights: Mapping[EntryKind, float] = field(default_factory=dict)
    scene: str = ""
    negative: str = ""


@dataclass(frozen=True)
class Choice:
    """One chosen entry with the weight it gets; `character` only for that kind."""

    kind: EntryKind
    id: str
    entry: RegistryEntry
    weight: float
    character: Character | None = None

    @property
    def content_hash(self) -> str:
        """Changes when the entry, its preset or the weight does."""
        preset = self.character.preset if self.character else None
        return content_hash(self.entry, preset, self.weight)


def resolve_choices(registry: Registry, request: LookRequest) -> list[Choice]:
    """Return the chosen entries in the fixed order of kinds, each with its weight.

    Raises ConfigError for an entry that is unknown or broken and for a weight that is not a number
    from -10 to 10.
    """
    choices = []
    for kind in ENTRY_KINDS:
        key = request.choices.get(kind, NONE)
        if key == NONE:
            continue
        character = registry.character(key) if kind == "character" else None
        entry = registry.entry(kind, key)
        weight = request.weights.get(kind, AUTO_WEIGHT)
        if weight == AUTO_WEIGHT:
            weight = character.weight if character else entry.default_weight
        if not math.isfinite(weight) or abs(weight) > MAX_WEIGHT:
            raise ConfigError(
                f"{kind}_weight is {weight}; it should be a number from -{MAX_WEIGHT:g} to "
                f"{MAX_WEIGHT:g}, or {AUTO_WEIGHT:g} for the weight of the configuration"
            )
        choices.append(Choice(kind, key, entry, weight, character))
    return choices


def look_prompts(choices: Sequence[Choice], scene: str, negative: str) -> Prompts:
    """Assemble the positive and the negative prompt of a look."""
    chosen = {choice.kind: choice for choice in choices}

    def words(kinds: tuple[EntryKind, ...]) -> list[str]:
        return [w for kind in kinds if kind in chosen for w in chosen[kind].entry.trigger_words]

    character = chosen["character"].character if "character" in chosen else None
    preset = character.preset if character else None
    return Prompts(
        positive=assemble_prompt(
            base=preset.base_prompt if preset else "",
            character_words=words(("character",)),
            before_scene=words(_BEFORE_SCENE),
            scene=scene,
            after_scene=words(_AFTER_SCENE),
        ),
        negative=assemble_prompt(base=preset.negative_prompt if preset else "", scene=negative),
    )


def sampling_for(
    registry: Registry,
    *,
    character: Character | None = None,
    quality: str | None = None,
    own: SamplingValues | None = None,
    vocabulary: SamplerVocabulary | None = None,
) -> SamplingValues:
    """Return the sampling values of a character, or of a quality preset.

    Without `quality` they are the `character`'s own, steps or cfg it lacks from the `standard`
    preset, the rest from that preset or the defaults. With it, steps and cfg are the preset's; size
    and scheduler the preset's if it says them, else those of `own` (a character's values), else the
    defaults. Raises ConfigError for an unknown preset or scheduler.
    """
    values = GenerationParams()
    if character is not None and quality is None:
        values = character.preset.generation_params
    steps, cfg, size, scheduler = values.steps, values.cfg_scale, values.size, values.scheduler
    if steps is None or cfg is None:
        preset = registry.quality_preset(quality or "standard")
        steps = preset.steps if steps is None else steps
        cfg = preset.cfg_scale if cfg is None else cfg
        size, scheduler = size or preset.size, scheduler or preset.scheduler
    size = size or ((own.width, own.height) if own else registry.defaults.size)
    if scheduler is None and own is not None:
        pair = (own.sampler, own.scheduler)
    else:
        pair = resolve_scheduler(scheduler or registry.defaults.scheduler, vocabulary)
    return SamplingValues(
        steps=steps,
        cfg=cfg,
        sampler=pair[0],
        scheduler=pair[1],
        width=size[0],
        height=size[1],
        source=quality or OWN,
    )
