"""Typed forms of the configuration files: one model per entry, named by the user's own words.

The models are strict: a number in quotes is not a number. Unknown keys are not errors (they warn,
see `load`). Every field that the pack adds to the user's files is optional.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

__all__ = [
    "EMOTIONS",
    "CannySettings",
    "CharacterPreset",
    "ControlType",
    "DepthSettings",
    "EntryKind",
    "GenerationParams",
    "OpenposeSettings",
    "QualityPreset",
    "RegistryEntry",
    "content_hash",
]

EntryKind: TypeAlias = Literal["character", "background", "style", "pose", "expression"]
ENTRY_KINDS: tuple[EntryKind, ...] = get_args(EntryKind)

# How a line can be spoken and a character feel.
EMOTIONS = ("neutral", "happy", "sad", "excited", "determined")

# Weights beyond this break every known model; the bound catches a slipped decimal point.
MAX_WEIGHT = 10.0
# ComfyUI's own bounds of the KSampler and EmptyLatentImage widgets.
MAX_STEPS = 10_000
MAX_CFG = 100.0
MAX_SIDE = 16_384


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("should be a finite number")
    return value


def _size_of_latent(value: tuple[int, int]) -> tuple[int, int]:
    for side in value:
        if not 16 <= side <= MAX_SIDE or side % 8:
            raise ValueError(
                f"each side should be a multiple of 8 from 16 to {MAX_SIDE}, as [width, height]"
            )
    return value


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _two_numbers(value: object) -> object:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("should be two whole numbers, [width, height]")
    return tuple(value)


def _path_text(value: str) -> str:
    if any(ord(character) < 32 for character in value):
        raise ValueError(
            "holds a control character; in double quotes a backslash begins an escape: write the "
            "path with / or in single quotes"
        )
    return value


Weight: TypeAlias = Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT), AfterValidator(_finite)]
Strength: TypeAlias = Annotated[float, Field(ge=0.0, le=MAX_WEIGHT), AfterValidator(_finite)]
Size: TypeAlias = Annotated[
    tuple[int, int], BeforeValidator(_two_numbers), AfterValidator(_size_of_latent)
]
Threshold: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]
FaceEngineName: TypeAlias = Literal["insightface", "dlib", "clip_vision"]
Words: TypeAlias = Annotated[list[str], BeforeValidator(_one_or_many)]
PathText: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_path_text)]
Paths: TypeAlias = Annotated[list[PathText], BeforeValidator(_one_or_many)]


class _Model(BaseModel):
    # Built when a file is first read: ComfyUI's start, which reads none, does not wait for it.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", defer_build=True)


def content_hash(*parts: BaseModel | str | float | None) -> str:
    """Return 16 hexadecimal digits that change when any part's content does."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.model_dump(mode="json") if isinstance(part, BaseModel) else part
        digest.update(json.dumps(data, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


class RegistryEntry(_Model):
    """A character, background, style, pose or expression of `lora_registry.yaml`.

    `lora_path` is absolute or relative to ComfyUI's `loras` folders; without it the entry is words
    only. `default_weight` is the LoRA's strength on model and text encoders.
    """

    name: str
    lora_path: PathText | None = None
    default_weight: Weight = 0.8
    trigger_words: Words = Field(default_factory=list)
    description: str = ""


class GenerationParams(_Model):
    """A character's own sampling values; what is left out comes from the `standard` preset."""

    steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    cfg_scale: float | None = Field(default=None, ge=0.0, le=MAX_CFG)
    size: Size | None = None
    scheduler: str | None = None


class CharacterPreset(_Model):
    """An entry of `character_presets.yaml`.

    `lora_name` is a key of `characters:` in the registry (default: the preset's own key);
    `reference_embeddings` are .npy files, absolute or relative to a configuration folder;
    `consistency_threshold` is a cosine similarity of ArcFace (insightface) embeddings, 0 to 1.
    Scores of other engines mean something else, so each has a threshold of its own in
    `consistency_thresholds`, by engine.
    """

    character_name: str | None = None
    lora_name: str | None = None
    lora_weight: Weight | None = None
    base_prompt: str = ""
    negative_prompt: str = ""
    reference_embeddings: Paths = Field(default_factory=list)
    consistency_threshold: Threshold = 0.65
    consistency_thresholds: dict[FaceEngineName, Threshold] = Field(default_factory=dict)
    generation_params: GenerationParams = Field(default_factory=GenerationParams)

    def threshold_for(self, engine: str) -> float | None:
        """Return the character's threshold for scores of a face engine, None where it has none."""
        for name, threshold in self.consistency_thresholds.items():
            if name == engine:
                return threshold
        return self.consistency_threshold if engine == "insightface" else None


class QualityPreset(_Model):
    """An entry of `quality_presets:` in `sdxl_config.yaml`."""

    steps: int = Field(ge=1, le=MAX_STEPS)
    cfg_scale: float = Field(ge=0.0, le=MAX_CFG)
    size: Size | None = None
    scheduler: str | None = None
    description: str = ""


class ControlType(_Model):
    """An entry of `controlnets:` in `controlnet_config.yaml`.

    `model` is a hub repository ("owner/name") or a file name in ComfyUI's `controlnet` folders;
    `file` is looked for first, for a repository whose file does not bear its name; `preprocessor`
    makes the map from a picture ("none": the picture is the map).
    """

    model: PathText
    file: PathText | None = None
    default_strength: Strength = 1.0
    preprocessor: str = "none"


class OpenposeSettings(_Model):
    """`preprocessing: openpose:`: what is detected beside the body."""

    detect_hands: bool = True
    detect_face: bool = True


class DepthSettings(_Model):
    """`preprocessing: depth:`: which MiDaS model estimates depth."""

    model_type: str = "DPT_Large"


class CannySettings(_Model):
    """`preprocessing: canny:`: OpenCV's hysteresis thresholds on 8-bit gradients, 0 to 1020."""

    low_threshold: float = Field(default=100.0, ge=0.0, allow_inf_nan=False)
    high_threshold: float = Field(default=200.0, ge=0.0, allow_inf_nan=False)
