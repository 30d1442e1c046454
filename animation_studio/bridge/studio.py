"""The configuration as the running ComfyUI sees it, read again when a file changes."""

from __future__ import annotations

import contextlib
import logging
from functools import cache
from pathlib import Path

import comfy.samplers

from ..control import PoseLibrary
from ..errors import LoraError
from ..lora import stamp_of
from ..registry import (
    ENTRY_KINDS,
    LookRequest,
    Registry,
    RegistryStore,
    SamplerVocabulary,
    content_hash,
    resolve_choices,
    sampling_for,
)
from .folders import (
    CONFIG_VARIABLE,
    config_layers,
    lora_file,
    named_layers,
    pose_folders,
    user_folder,
)

__all__ = [
    "cast_fingerprint",
    "check_look",
    "look_fingerprint",
    "pose_library",
    "registry",
    "sampling_fingerprint",
    "state_folder",
    "vocabulary",
]

_logger = logging.getLogger("animation_studio")
_reported: set[str] = set()


@cache
def vocabulary() -> SamplerVocabulary:
    """Return the samplers and schedulers of this ComfyUI.

    Core's own lists and no copies: packs that load later add to them, and core compares an output's
    list with a KSampler input's.
    """
    kinds = comfy.samplers.KSampler
    return SamplerVocabulary(samplers=kinds.SAMPLERS, schedulers=kinds.SCHEDULERS)


@cache
def _store() -> RegistryStore:
    for folder in named_layers():
        if not folder.is_dir():
            _logger.error(
                "Animation Studio: %s names %s, which is no folder", CONFIG_VARIABLE, folder
            )
    return RegistryStore(config_layers(), vocabulary())


def registry() -> Registry:
    """Return the registry as the files stand now; log each problem once."""
    current = _store().current()
    for problem in current.problems:
        text = str(problem)
        if text not in _reported:
            _reported.add(text)
            level = logging.ERROR if problem.severity == "error" else logging.WARNING
            _logger.log(level, "Animation Studio: %s", text)
    return current


@cache
def pose_library() -> PoseLibrary:
    """Return the shipped poses with the user's beside and over them."""
    return PoseLibrary(pose_folders())


def state_folder() -> Path:
    """Return where the GPU's lock and journal lie. Raises ConfigError for a broken services.yaml.

    In the user's folder, or where `gpu.state_folder` says.
    """
    chosen = registry().gpu_settings().state_folder
    return Path(chosen).expanduser() if chosen else user_folder() / "gpu"


def check_look(request: LookRequest) -> None:
    """Raise ConfigError or LoraError for a look that cannot be loaded, before anything runs."""
    for choice in resolve_choices(registry(), request):
        if choice.entry.lora_path is not None:
            lora_file(choice.entry.lora_path, f"{choice.kind} {choice.id!r}")


def cast_fingerprint() -> str:
    """Return what changes when any entry, preset or LoRA file of the whole cast does."""
    current = registry()
    stamps = []
    for kind in ENTRY_KINDS:
        for name in current.names(kind):
            path = current.entry(kind, name).lora_path
            with contextlib.suppress(LoraError):
                stamps += [repr(stamp_of(lora_file(path, name)))] if path else []
    return content_hash(current.content_hash, *stamps)


def look_fingerprint(request: LookRequest) -> str:
    """Return what changes when an entry, a preset or a LoRA file that `request` uses does.

    Raises as `check_look`, which ComfyUI takes as "run again".
    """
    current = registry()
    choices = resolve_choices(current, request)
    stamps = [
        repr(stamp_of(lora_file(choice.entry.lora_path, choice.id)))
        for choice in choices
        if choice.entry.lora_path is not None
    ]
    characters = [choice.character for choice in choices if choice.character is not None]
    sampling = sampling_for(
        current, character=characters[0] if characters else None, vocabulary=vocabulary()
    )
    return content_hash(*(choice.content_hash for choice in choices), *stamps, sampling)


def sampling_fingerprint(preset: str | None) -> str:
    """Return what changes when the values of a quality preset (None: `standard`) do."""
    return content_hash(
        sampling_for(registry(), quality=preset or "standard", vocabulary=vocabulary())
    )
