"""Which references a character has, and new ones from pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ..errors import FaceError
from ..files import file_stamp
from ..registry import content_hash
from . import studio
from .face_engines import engine_for, engine_state
from .face_pictures import pictures_of
from .folders import reference_file, references_folder
from .images import to_image

if TYPE_CHECKING:
    import torch

    from ..faces.engine import FaceEngine, Picture
    from ..faces.references import References
    from .comfy_types import ClipVision

__all__ = [
    "MadeReferences",
    "WhichFace",
    "lost_references",
    "make_references",
    "reference_files",
    "references_fingerprint",
    "references_of",
]

WhichFace: TypeAlias = Literal["largest", "all", "leftmost", "rightmost"]


# Files that this process saved, and how often some of them were found gone, by character.
_saved: dict[str, set[Path]] = {}
_losses: dict[str, int] = {}


@dataclass(frozen=True)
class MadeReferences:
    """References made from pictures, the aligned faces as IMAGE, and the lines a node shows."""

    references: References
    crops: torch.Tensor
    lines: list[str]
    warnings: list[str]


def reference_files(character: str) -> list[Path]:
    """Return the .npy files of a character: the configuration's, then those that nodes saved."""
    from ..faces.references import stored_references

    preset = studio.registry().character(character).preset
    configured = [reference_file(path) for path in preset.reference_embeddings]
    try:
        stored = stored_references(references_folder(), character)
    except FaceError:
        # An id that is no name of a folder has nothing there; Face References tells when it saves.
        stored = []
    return list(dict.fromkeys([*configured, *stored]))


def references_of(character: str, engine: FaceEngine) -> References:
    """Return what a character of the registry looks like to an engine.

    Raises ConfigError for an unknown character, and FaceError where it has no reference, or none
    that this engine's model made.
    """
    from ..faces.references import load_references

    files = reference_files(character)
    name = studio.registry().character(character).name
    if not files:
        raise FaceError(
            f"character {character!r} has no references yet. Give one or more pictures of {name}'s "
            "face to a Face References node, or list .npy files as reference_embeddings in "
            "character_presets.yaml."
        )
    return load_references(character, name, files, engine.model)


def references_fingerprint(characters: Sequence[str], engine: str) -> str:
    """Return what changes when references, preset or engine of the characters do.

    No characters: those of the whole registry. Raises as `references_of` for an unknown one.
    """
    registry = studio.registry()
    parts: list[str] = [engine, engine_state()]
    for character in characters or registry.names("character"):
        parts.append(content_hash(registry.character(character).preset))
        for file in reference_files(character):
            parts += [file_stamp(file), file_stamp(file.with_suffix(".json"))]
    return content_hash(*parts)


def lost_references(character: str) -> int:
    """Return a number that is new when references saved in this process have been deleted.

    ComfyUI would otherwise take a node that saved them as done.
    """
    there = {path for path in _saved.get(character, set()) if path.is_file()}
    if there != _saved.get(character, set()):
        _saved[character] = there
        _losses[character] = _losses.get(character, 0) + 1
    return _losses.get(character, 0)


def make_references(
    images: Sequence[torch.Tensor],
    character: str,
    *,
    engine: str,
    which: WhichFace,
    save: bool,
    clip_vision: ClipVision | None = None,
) -> MadeReferences:
    """Turn the faces of pictures into references of `character`, saved unless `save` is off.

    `images` are float [batch, height, width, 3 or 4]. Raises FaceError where no picture shows a
    face, and as `engine_for` and `save_references` do.
    """
    from ..faces.references import NewReference, References, save_references

    if which not in get_args(WhichFace):
        words = ", ".join(get_args(WhichFace))
        raise FaceError(f"which_face is {which!r}; it should be one of {words}")
    opened = engine_for(engine, clip_vision)
    name = studio.registry().character(character).name
    read = pictures_of(images)
    made, warnings = [], list(opened.warnings)
    for number, picture in enumerate(read, 1):
        crops = _crops(opened, picture, which) if not isinstance(picture, str) else []
        if not crops:
            reason = picture if isinstance(picture, str) else "no face was found"
            warnings.append(f"picture {number}: {reason}")
            continue
        made += [
            NewReference(vector, crop, f"picture {number}, face {face}")
            for face, (vector, crop) in enumerate(zip(opened.embed(crops), crops, strict=True), 1)
        ]
    if not made:
        raise FaceError(
            f"no reference of {character!r} was made: {'; '.join(warnings)}. Use pictures that "
            "show the face from the front, at least 60 pixels wide."
        )
    lines = [f"{len(made)} references of {name} with {opened.model}, {opened.provider}"]
    files = tuple(one.source for one in made)
    if save:
        saved = save_references(references_folder(), character, made, opened.model)
        files = tuple(one.path.name for one in saved)
        _saved.setdefault(character, set()).update(one.path for one in saved)
        lines += [f"{'saved' if one.fresh else 'there already:'} {one.path.name}" for one in saved]
    import numpy as np

    vectors = np.stack([one.vector for one in made])
    references = References(character, name, opened.model, vectors, files, ())
    return MadeReferences(references, to_image([one.crop for one in made]), lines, warnings)


def _crops(engine: FaceEngine, picture: Picture, which: WhichFace) -> list[Picture]:
    faces = engine.detect([picture])[0]
    if which in ("leftmost", "rightmost"):
        faces.sort(key=lambda face: face.box[0] + face.box[2], reverse=which == "rightmost")
    if which != "all":
        faces = faces[:1]
    return [engine.align(picture, face) for face in faces]
