"""The cast and its settings, as every node, route and command sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from pydantic import BaseModel

from ..errors import ConfigError
from .models import (
    CannySettings,
    CharacterPreset,
    ControlType,
    DepthSettings,
    EntryKind,
    OpenposeSettings,
    QualityPreset,
    RegistryEntry,
    content_hash,
)
from .problems import Problem, nearest
from .services import GpuSettings, ServiceEntry

__all__ = ["Character", "GenerationDefaults", "PreprocessorSettings", "Registry"]

PreprocessorSettings: TypeAlias = OpenposeSettings | DepthSettings | CannySettings

T = TypeVar("T")

_FILE_OF = {
    "character": "lora_registry.yaml",
    "background": "lora_registry.yaml",
    "style": "lora_registry.yaml",
    "pose": "lora_registry.yaml",
    "expression": "lora_registry.yaml",
    "quality preset": "sdxl_config.yaml",
    "control": "controlnet_config.yaml",
    "preprocessing": "controlnet_config.yaml",
    "service": "services.yaml",
    "gpu": "services.yaml",
}

# Problems of one entry that fit in a message on a node; all of them are in the log.
_SHOWN = 4


@dataclass(frozen=True)
class Character:
    """One of the cast: a registry entry (LoRA, words) and its preset (prompts, sampling)."""

    id: str
    entry: RegistryEntry
    preset: CharacterPreset

    @property
    def name(self) -> str:
        """The name people read."""
        return self.preset.character_name or self.entry.name

    @property
    def weight(self) -> float:
        """The LoRA's weight where the node says none: the preset's, else the entry's."""
        weight = self.preset.lora_weight
        return self.entry.default_weight if weight is None else weight

    @property
    def content_hash(self) -> str:
        """Changes when anything of the character changes."""
        return content_hash(self.entry, self.preset)


@dataclass(frozen=True)
class GenerationDefaults:
    """Width and height in pixels, and the scheduler's name, where nothing else says them."""

    size: tuple[int, int] = (1024, 1024)
    scheduler: str = "DPMSolverMultistepScheduler"


@dataclass(frozen=True)
class Registry:
    """Everything that the configuration files say, after all layers.

    Lookups by id raise ConfigError with the reason: unknown (naming the nearest), broken (naming
    file, line and key), or hidden behind a file that could not be read.
    """

    characters: Mapping[str, Character]
    entries: Mapping[EntryKind, Mapping[str, RegistryEntry]]
    quality: Mapping[str, QualityPreset]
    controls: Mapping[str, ControlType]
    preprocessors: Mapping[str, PreprocessorSettings]
    defaults: GenerationDefaults
    services: Mapping[str, ServiceEntry]
    gpu: GpuSettings
    broken: Mapping[str, Mapping[str, list[Problem]]]
    unreadable: Mapping[str, Problem]
    problems: tuple[Problem, ...]
    folders: tuple[Path, ...]

    @property
    def content_hash(self) -> str:
        """Changes when any usable entry that a picture is made of does: services are none."""
        tables: list[Mapping[str, BaseModel]] = [*self.entries.values(), self.quality]
        tables += [self.controls, self.preprocessors]
        tables.append({key: character.preset for key, character in self.characters.items()})
        parts = [part for table in tables for row in table.items() for part in row]
        return content_hash(*parts, repr(self.defaults))

    def choices(self, kind: EntryKind) -> list[str]:
        """Return the ids for a combo: the usable ones, then the broken, which say why when used."""
        names = self.names(kind)
        return [*names, *(key for key in self.broken[kind] if key not in names)]

    def names(self, kind: EntryKind) -> list[str]:
        """Return the ids of the usable entries of one kind, in the order of the files."""
        return list(self.characters if kind == "character" else self.entries[kind])

    def character(self, key: str) -> Character:
        """Return the character `key`."""
        return self._get("character", key, self.characters, "character_presets.yaml")

    def entry(self, kind: EntryKind, key: str) -> RegistryEntry:
        """Return the entry `key` of one kind; for a character, its registry part."""
        if kind == "character":
            return self.character(key).entry
        return self._get(kind, key, self.entries[kind])

    def quality_preset(self, key: str) -> QualityPreset:
        """Return the quality preset `key`."""
        return self._get("quality preset", key, self.quality)

    def control(self, key: str) -> ControlType:
        """Return the control type `key`."""
        return self._get("control", key, self.controls)

    def preprocessing(self, key: str) -> PreprocessorSettings | None:
        """Return the `preprocessing:` settings of the control `key`, None where it has none."""
        if key in self.broken["preprocessing"]:
            self._get("preprocessing", key, self.preprocessors)
        return self.preprocessors.get(key)

    def service(self, key: str) -> ServiceEntry:
        """Return the service `key`."""
        return self._get("service", key, self.services)

    def language_models(self) -> list[str]:
        """Return the keys of the services that are language models, in the order of the file."""
        return [key for key, entry in self.services.items() if entry.role == "llm"]

    def gpu_settings(self) -> GpuSettings:
        """Return the `gpu:` section; ConfigError where it or its file is broken."""
        return self._get("gpu", "settings", {} if self.broken["gpu"] else {"settings": self.gpu})

    def _get(self, kind: str, key: str, table: Mapping[str, T], *more_files: str) -> T:
        for name in (_FILE_OF[kind], *more_files):
            if name in self.unreadable:
                raise ConfigError(
                    f"{kind} {key!r}: {self.unreadable[name]}. Until that file can be read, "
                    f"nothing from {name} is used, so that no older entry slips in."
                )
        if key in table:
            return table[key]
        faults = self.broken[kind].get(key)
        if faults:
            more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            reasons = "; ".join(map(str, faults[:_SHOWN]))
            raise ConfigError(f"{kind} {key!r} cannot be used: {reasons}{more}")
        known = ", ".join(table) or "none"
        raise ConfigError(
            f"{kind} {key!r} is not in the configuration.{nearest(key, table)} Known: {known}. "
            f"Add it to {_FILE_OF[kind]} in {self.folders[-1] if self.folders else 'your folder'}."
        )
