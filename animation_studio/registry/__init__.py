"""The registry: the user's YAML files as typed entries.

In: folders that hold `lora_registry.yaml`, `character_presets.yaml`, `sdxl_config.yaml`,
`controlnet_config.yaml` and `services.yaml` (shipped defaults first, then the user's). Out: a
`Registry` of characters, entries, quality presets, controls and services, with every problem
located by file, line and key; the prompts assembled from them; and the `Look`, what one picture is
made of.
"""

from .load import CONFIG_FILES, RegistryStore, load_registry
from .look import (
    AUTO_WEIGHT,
    NONE,
    OWN,
    Choice,
    Look,
    LookEntry,
    LookRequest,
    Prompts,
    SamplingValues,
    look_prompts,
    resolve_choices,
    sampling_for,
)
from .models import (
    EMOTIONS,
    ENTRY_KINDS,
    CannySettings,
    CharacterPreset,
    ControlType,
    DepthSettings,
    EntryKind,
    GenerationParams,
    OpenposeSettings,
    QualityPreset,
    RegistryEntry,
    content_hash,
)
from .problems import Problem, nearest
from .prompts import assemble_prompt, normalised
from .registry import Character, GenerationDefaults, PreprocessorSettings, Registry
from .samplers import SamplerPair, SamplerVocabulary, resolve_scheduler
from .services import ALL, AUTO_SERVICE, NO_SERVICE, GpuSettings, ServiceEntry

__all__ = [
    "ALL",
    "AUTO_SERVICE",
    "AUTO_WEIGHT",
    "CONFIG_FILES",
    "EMOTIONS",
    "ENTRY_KINDS",
    "NONE",
    "NO_SERVICE",
    "OWN",
    "CannySettings",
    "Character",
    "CharacterPreset",
    "Choice",
    "ControlType",
    "DepthSettings",
    "EntryKind",
    "GenerationDefaults",
    "GenerationParams",
    "GpuSettings",
    "Look",
    "LookEntry",
    "LookRequest",
    "OpenposeSettings",
    "PreprocessorSettings",
    "Problem",
    "Prompts",
    "QualityPreset",
    "Registry",
    "RegistryEntry",
    "RegistryStore",
    "SamplerPair",
    "SamplerVocabulary",
    "SamplingValues",
    "ServiceEntry",
    "assemble_prompt",
    "content_hash",
    "load_registry",
    "look_prompts",
    "nearest",
    "normalised",
    "resolve_choices",
    "resolve_scheduler",
    "sampling_for",
]
