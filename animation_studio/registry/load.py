"""From configuration folders to a Registry: layers in, typed entries and problems out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pydantic import Field

from ..errors import ConfigError
from .look import NONE, OWN
from .models import (
    ENTRY_KINDS,
    CannySettings,
    CharacterPreset,
    ControlType,
    DepthSettings,
    EntryKind,
    OpenposeSettings,
    QualityPreset,
    RegistryEntry,
    Size,
    _Model,
)
from .problems import Problem
from .registry import Character, GenerationDefaults, PreprocessorSettings, Registry
from .samplers import SamplerVocabulary, resolve_scheduler
from .services import SERVICE_CHOICES, GpuSettings, ServiceEntry
from .tables import Table, check_keys, section, validate
from .yaml_source import KeyPath, YamlSource, read_yaml

__all__ = ["CONFIG_FILES", "RegistryStore", "load_registry"]

_LORAS, _PRESETS = "lora_registry.yaml", "character_presets.yaml"
_SDXL, _CONTROLS = "sdxl_config.yaml", "controlnet_config.yaml"
_SERVICES = "services.yaml"
CONFIG_FILES = (_LORAS, _PRESETS, _SDXL, _CONTROLS, _SERVICES)

_SECTIONS: dict[EntryKind, str] = {kind: f"{kind}s" for kind in ENTRY_KINDS}
_SETTINGS: dict[str, type[PreprocessorSettings]] = {
    "openpose": OpenposeSettings,
    "depth": DepthSettings,
    "canny": CannySettings,
}


class _Generation(_Model):
    """The values beside `quality_presets:` in `sdxl_config.yaml`."""

    default_size: Size | None = None
    scheduler: str | None = None
    quality_presets: dict[str, object] = Field(default_factory=dict)  # known; its table reads it


def _reserved(word: str, source: YamlSource, path: KeyPath) -> list[Problem]:
    if path[-1] != word:
        return []
    return [source.problem(path, f"{word!r} is a choice of the nodes themselves; rename the entry")]


class _Loading:
    """The state of one load: tables filled layer by layer, problems gathered."""

    def __init__(self, layers: Sequence[Path], vocabulary: SamplerVocabulary | None) -> None:
        self.layers = list(layers)
        self.vocabulary = vocabulary
        self.problems: list[Problem] = []
        self.unreadable: dict[str, Problem] = {}
        self.entries = {
            kind: Table(_LORAS, (name,), RegistryEntry) for kind, name in _SECTIONS.items()
        }
        self.presets = Table(_PRESETS, (), CharacterPreset)
        self.quality = Table(_SDXL, ("generation", "quality_presets"), QualityPreset)
        self.controls = Table(_CONTROLS, ("controlnets",), ControlType)
        self.services = Table(_SERVICES, ("services",), ServiceEntry)
        self.gpu: dict[str, object] = {}
        self.broken_gpu: dict[str, list[Problem]] = {}
        self.defaults = GenerationDefaults()
        self.broken_settings: dict[str, list[Problem]] = {}
        self.settings: dict[str, PreprocessorSettings] = {
            name: model() for name, model in _SETTINGS.items()
        }

    def read(self, file: Path) -> None:
        source = read_yaml(file)
        self.problems += source.problems
        if not source.readable:
            self.unreadable[file.name] = source.problems[-1]
            return
        # A later layer's readable file does not heal an unreadable earlier one: its entries may
        # still be the ones that are missing.
        {
            _LORAS: self._loras,
            _PRESETS: self._presets,
            _SDXL: self._sdxl,
            _CONTROLS: self._controls,
            _SERVICES: self._services,
        }[file.name](source)

    def _loras(self, source: YamlSource) -> None:
        self.problems += check_keys(source.data, set(_SECTIONS.values()), source, ())
        for table in self.entries.values():
            self.problems += table.overlay(source, self._check_entry)

    def _check_entry(
        self, entry: RegistryEntry, source: YamlSource, path: KeyPath
    ) -> list[Problem]:
        return _reserved(NONE, source, path)

    def _presets(self, source: YamlSource) -> None:
        self.problems += self.presets.overlay(source, self._check_preset)

    def _check_preset(
        self, preset: CharacterPreset, source: YamlSource, path: KeyPath
    ) -> list[Problem]:
        place = (*path, "generation_params", "scheduler")
        return [
            *_reserved(NONE, source, path),
            *self._check_scheduler(preset.generation_params.scheduler, source, place),
        ]

    def _check_quality(
        self, preset: QualityPreset, source: YamlSource, path: KeyPath
    ) -> list[Problem]:
        return [
            *_reserved(OWN, source, path),
            *self._check_scheduler(preset.scheduler, source, (*path, "scheduler")),
        ]

    def _check_scheduler(
        self, name: str | None, source: YamlSource, path: KeyPath
    ) -> list[Problem]:
        try:
            if name is not None:
                resolve_scheduler(name, self.vocabulary)
        except ConfigError as error:
            return [source.problem(path, str(error))]
        return []

    def _sdxl(self, source: YamlSource) -> None:
        self.problems += check_keys(source.data, {"generation"}, source, ())
        raw, problems = section(source, ("generation",))
        self.problems += problems
        for key, value in raw.items():
            if key != "quality_presets":
                self._generation_value(key, value, source)
        self.problems += self.quality.overlay(source, self._check_quality)

    def _generation_value(self, key: str, value: object, source: YamlSource) -> None:
        """Take one value beside `quality_presets:`; alone, so that it fails alone."""
        values, problems = validate(_Generation, {key: value}, source, ("generation",))
        if values is not None:
            problems += self._check_scheduler(values.scheduler, source, ("generation", key))
        self.problems += problems
        if values is not None and not problems:
            self.defaults = GenerationDefaults(
                size=values.default_size or self.defaults.size,
                scheduler=values.scheduler or self.defaults.scheduler,
            )

    def _controls(self, source: YamlSource) -> None:
        self.problems += check_keys(source.data, {"controlnets", "preprocessing"}, source, ())
        self.problems += self.controls.overlay(source, lambda *_: [])
        raw, problems = section(source, ("preprocessing",))
        self.problems += problems
        self.problems += check_keys(raw, set(_SETTINGS), source, ("preprocessing",))
        for name, model in _SETTINGS.items():
            if raw.get(name) is not None:
                value, problems = validate(model, raw[name], source, ("preprocessing", name))
                self.problems += problems
                self.settings.pop(name, None)
                self.broken_settings.pop(name, None)
                if value is None:
                    self.broken_settings[name] = problems
                else:
                    self.settings[name] = value

    def _services(self, source: YamlSource) -> None:
        self.problems += check_keys(source.data, {"services", "gpu"}, source, ())
        self.problems += self.services.overlay(source, self._check_service)
        raw, problems = section(source, ("gpu",))
        value, found = validate(GpuSettings, raw, source, ("gpu",))
        problems += found
        self.problems += problems
        if value is None or any(problem.severity == "error" for problem in problems):
            self.broken_gpu["settings"] = problems
        else:
            # Key by key, so that whoever names his device keeps the other layers' figures.
            self.gpu |= raw

    def _check_service(self, _: ServiceEntry, source: YamlSource, path: KeyPath) -> list[Problem]:
        return [problem for word in SERVICE_CHOICES for problem in _reserved(word, source, path)]

    def characters(self) -> tuple[dict[str, Character], dict[str, list[Problem]]]:
        """Join registry entries and presets into the cast, and return what could not be joined."""
        entries, presets = self.entries["character"], self.presets
        cast: dict[str, Character] = {}
        broken: dict[str, list[Problem]] = {}
        tables = (entries.entries, presets.entries, entries.broken, presets.broken)
        for key in dict.fromkeys(key for table in tables for key in table):
            preset = presets.entries.get(key, CharacterPreset())
            lora = key if preset.lora_name is None else preset.lora_name
            entry = entries.entries.get(lora)
            faults = presets.broken.get(key, []) + entries.broken.get(lora, [])
            if entry is None and not faults and not self._explained(key, lora):
                faults = [self._no_entry(key, lora)]
                self.problems += faults
            if faults:
                broken[key] = faults
            elif entry is not None:
                cast[key] = Character(id=key, entry=entry, preset=preset)
        return cast, broken

    def _explained(self, key: str, lora: str) -> bool:
        """Whether it is known why the entry of preset `key` is missing: no second problem then.

        Either its file could not be read, or a `null` took it away in a later layer than the
        preset's, as one removes a shipped character.
        """
        removed = self.entries["character"].removed.get(lora)
        if removed is None:
            return _LORAS in self.unreadable
        source, _ = self.presets.places[key]
        return self.layers.index(removed.parent) > self.layers.index(source.file.parent)

    def _no_entry(self, key: str, lora: str) -> Problem:
        source, path = self.presets.places[key]
        known = ", ".join(self.entries["character"].entries) or "none"
        return source.problem(
            (*path, "lora_name"),
            f"no character {lora!r} in {_LORAS}; add it under characters: or name one of: {known}",
        )


def load_registry(layers: Sequence[Path], vocabulary: SamplerVocabulary | None = None) -> Registry:
    """Load the configuration files of every folder in `layers`, later folders over earlier ones.

    A folder or file that does not exist is skipped; what is there and is no readable file (a
    folder, a link to nothing) is a problem, and so is a file without permission. Never raises for
    what the files contain: what is wrong is in the result's `problems`, and in the message when a
    broken entry is asked for.
    """
    loading = _Loading(layers, vocabulary)
    for folder in layers:
        for name in CONFIG_FILES:
            if _stands(folder / name):
                loading.read(folder / name)
    cast, broken = loading.characters()
    tables = {kind: dict(loading.entries[kind].entries) for kind in ENTRY_KINDS}
    return Registry(
        characters=cast,
        entries=tables,
        quality=dict(loading.quality.entries),
        controls=dict(loading.controls.entries),
        preprocessors=loading.settings,
        defaults=loading.defaults,
        services=dict(loading.services.entries),
        gpu=GpuSettings.model_validate(loading.gpu),
        broken={kind: dict(loading.entries[kind].broken) for kind in ENTRY_KINDS}
        | {
            "character": broken,
            "quality preset": dict(loading.quality.broken),
            "control": dict(loading.controls.broken),
            "preprocessing": loading.broken_settings,
            "service": dict(loading.services.broken),
            "gpu": loading.broken_gpu,
        },
        unreadable=loading.unreadable,
        problems=tuple(loading.problems),
        folders=tuple(layers),
    )


def _stands(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # reading it will say why
    return True


# Times and size alone would miss a file put in place by a rename with its old time, and a file
# that became readable: the inode and the change time see both.
_Stamp: TypeAlias = tuple[str, int, int, int, int]


@dataclass(frozen=True)
class _Loaded:
    stamp: tuple[object, ...]
    registry: Registry


class RegistryStore:
    """The registry of some folders, read again when, and only when, a file changed.

    Safe from several threads. `current()` costs a few `stat` calls when nothing changed.
    """

    def __init__(self, layers: Sequence[Path], vocabulary: SamplerVocabulary | None = None) -> None:
        self._layers = tuple(layers)
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    def current(self) -> Registry:
        """Return the registry as the files stand now."""
        with self._lock:
            stamp = (self._known_samplers(), *self._stamps())
            if self._loaded is None or self._loaded.stamp != stamp:
                registry = load_registry(self._layers, self._vocabulary)
                self._loaded = _Loaded(stamp, registry)
            return self._loaded.registry

    def _known_samplers(self) -> int:
        """Count what schedulers are checked against; packs that load later add to it."""
        known = self._vocabulary
        return len(known.samplers) + len(known.schedulers) if known else 0

    def _stamps(self) -> Iterator[_Stamp]:
        for path in (folder / name for folder in self._layers for name in CONFIG_FILES):
            try:
                info = path.stat()
            except OSError:
                continue
            yield (str(path), info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino)
