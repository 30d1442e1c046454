"""References: the embeddings that say what a character's face looks like.

They lie beside the user's configuration as `<folder>/<character>/<character>_N.npy`, each with a
`.json` of the same name that says which model made it, and a `.png` that shows the aligned face.
The `.npy` is a plain one: `np.load` reads it anywhere.
"""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FaceError
from .engine import ModelId
from .reference_file import StoredReference, note_of, png_of, read_reference, write_reference
from .similarity import normalised, similarities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .engine import Picture, Vectors

__all__ = [
    "NewReference",
    "References",
    "SavedReference",
    "load_references",
    "save_references",
    "stored_references",
]

# Engines whose vectors people keep as plain `.npy`, by habit of the packages' own examples. Of the
# others' models there are many with vectors of one length: a plain file says too little.
_PLAIN_ENGINES = {"insightface", "dlib"}
# The same face of the same picture again, computed elsewhere (GPU or CPU), scores over this; two
# frames of a film do not.
_SAME_SCORE = {"cosine": 0.9995, "euclidean": 0.97}
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\ud800-\udfff<>:"/\\|?*]')
# File systems allow 255 bytes; the number, the suffix and a temporary file's name need some.
_ID_BYTES = 180
_saving = threading.Lock()


@dataclass(frozen=True)
class References:
    """What is known of a character's face, all made by one model.

    `vectors` is float32 [m, d] with m >= 1, of length 1 each where the model's metric is cosine;
    `files` names where each vector came from, without folders ("luca_1.npy", or "all.npy #2" for
    the second vector of a file), so it is m long; `warnings` is for the user to read.
    """

    character: str
    name: str
    model: ModelId
    vectors: Vectors
    files: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewReference:
    """A face to remember: `vector` float32 [d], `crop` the aligned face as uint8 [s, s, 3] RGB.

    `source` is a note for people of where the face came from, such as "picture 2, face 1".
    """

    vector: NDArray[np.float32]
    crop: Picture
    source: str


@dataclass(frozen=True)
class SavedReference:
    """Where a reference lies. It is `fresh` when this save wrote it, not when it was there."""

    path: Path
    fresh: bool


def load_references(character: str, name: str, files: Sequence[Path], model: ModelId) -> References:
    """Read a character's references from `.npy` files for use with `model`.

    Files of another model and missing files are left out with a warning that names them, as long
    as others remain. A plain `.npy` (no `.json` beside it) of the right length counts, with a
    warning, for engines whose vectors people keep this way (insightface, dlib).

    Raises FaceError, naming file and cure: for a damaged file (truncated, pickled, of another
    shape than [d], [1, d] or [n, d], not floating point, not finite, all zeros, or not the one its
    `.json` was written for), and when no usable file remains.
    """
    usable: list[StoredReference] = []
    missing: list[Path] = []
    foreign: dict[str, list[Path]] = {}
    warnings: list[str] = []
    for path in dict.fromkeys(files):
        try:
            stored = read_reference(path)
        except FileNotFoundError:
            missing.append(path)
            continue
        reason = _foreign(stored, model)
        if reason:
            foreign.setdefault(reason, []).append(path)
            continue
        usable.append(stored)
        if stored.model is None:
            warnings.append(
                f"{path.name}: who made this reference isn't known; it counts as one of {model}, "
                f"since it has {model.dimensions} numbers. If scores are low, make it again with "
                "the Face References node."
            )
    if not usable:
        raise _none_usable(character, name, missing, foreign, model)
    if foreign:
        warnings.append(f"Not used with {model}: {_by_reason(foreign)}.")
    if missing:
        warnings.append(f"Reference files that are not there: {_listed(missing)}.")
    vectors = np.concatenate([stored.vectors for stored in usable])
    return References(
        character=character,
        name=name,
        model=model,
        vectors=normalised(vectors) if model.metric == "cosine" else vectors,
        files=tuple(label for stored in usable for label in _labels(stored)),
        warnings=tuple(warnings),
    )


def stored_references(folder: Path, character: str) -> list[Path]:
    """Return the `.npy` files in `<folder>/<character>`, in natural order (2 before 10).

    An empty list where there is no such folder. Raises FaceError for an id that cannot be a
    folder's name.
    """
    home = _home(folder, character)
    try:
        with os.scandir(home) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FaceError(f"{home}: cannot be read: {error.strerror or error}.") from error
    found = [name for name in names if name.lower().endswith(".npy") and name[0] != "."]
    return [home / name for name in sorted(found, key=_natural)]


def save_references(
    folder: Path, character: str, new: Sequence[NewReference], model: ModelId
) -> list[SavedReference]:
    """Save references as `<folder>/<character>/<character>_N.npy` with `.json` and `.png`.

    Each takes the next free number and appears whole or not at all. A vector that is all but
    identical to one of the same model that is there already (or earlier in `new`) is not saved
    again; the file that holds it is returned instead. Raises FaceError for an id that cannot be
    a file's name on Windows or Linux, for a vector that is no embedding of `model`, and when the
    folder cannot be written.
    """
    home = _home(folder, character)
    for one in new:
        _check_new(one, model)
    # Two prompts may run at once (several servers in one process, the command line's threads).
    with _saving:
        known = _known(stored_references(folder, character), model)
        saved: list[SavedReference] = []
        for one in new:
            there = _same(one.vector, known, model)
            if there is None:
                path = _next_free(home, character)
                _write(path, character, one, model)
                known.append((path, one.vector[None]))
            saved.append(SavedReference(there or path, fresh=there is None))
    return saved


def _foreign(stored: StoredReference, model: ModelId) -> str | None:
    """Return why a file's vectors do not compare with the model's, or None when they do."""
    length = stored.vectors.shape[1]
    if stored.model is not None:
        same = (stored.model.sha256, stored.model.dimensions) == (model.sha256, model.dimensions)
        return None if same else f"made by {stored.model}"
    if length != model.dimensions:
        return f"made by another model: it has {length} numbers, not {model.dimensions}"
    return None if model.engine in _PLAIN_ENGINES else "who made it isn't known"


def _none_usable(
    character: str, name: str, missing: list[Path], foreign: dict[str, list[Path]], model: ModelId
) -> FaceError:
    who = f"{name} ({character})"
    reasons = []
    if foreign:
        reasons.append(_by_reason(foreign))
    if missing:
        reasons.append(f"not there: {_listed(missing)}")
    cure = "Make references with the Face References node and this engine"
    if foreign:
        cure += ", or choose the engine that made those"
    return FaceError(
        f"{who} has no face reference that {model} can compare with"
        + (f" ({'; '.join(reasons)})" if reasons else "")
        + f". {cure}."
    )


def _by_reason(foreign: dict[str, list[Path]]) -> str:
    return "; ".join(f"{_listed(paths)}: {reason}" for reason, paths in foreign.items())


def _listed(paths: Sequence[Path]) -> str:
    """Return paths for a message, each folder once: "/a/luca_1.npy, luca_2.npy, /b/luca.npy"."""
    words, folder = [], None
    for path in paths:
        words.append(path.name if path.parent == folder else str(path))
        folder = path.parent
    return ", ".join(words)


def _labels(stored: StoredReference) -> list[str]:
    name = stored.path.name
    if len(stored.vectors) == 1:
        return [name]
    return [f"{name} #{number}" for number in range(1, len(stored.vectors) + 1)]


def _home(folder: Path, character: str) -> Path:
    """Return the character's folder, refusing ids that mean something else to a file system."""
    if (
        not character.strip(" .")
        or character != character.strip()
        or character[0] in ".-"
        or character[-1] == "."
        or _FORBIDDEN.search(character)
        or _RESERVED.fullmatch(character)
        or len(character.encode()) > _ID_BYTES
    ):
        raise FaceError(
            f"Character id {character!r}: references lie in a folder and files of this name, and "
            "Windows or Linux does not allow it. Choose an id of letters, digits, _ and - in the "
            "configuration."
        )
    return folder / character


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"([0-9]+)", name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]


def _check_new(one: NewReference, model: ModelId) -> None:
    vector = np.asarray(one.vector)
    if vector.shape != (model.dimensions,) or vector.dtype != np.float32:
        raise FaceError(
            f"An embedding of {model} is float32 [{model.dimensions}], and the one from "
            f"{one.source} is {vector.dtype} {list(vector.shape)}."
        )
    if one.crop.dtype != np.uint8 or one.crop.ndim != 3 or one.crop.shape[2] != 3:
        raise FaceError(
            f"The crop from {one.source} is {one.crop.dtype} {list(one.crop.shape)}, not RGB."
        )
    if not np.isfinite(vector).all() or not vector.any():
        raise FaceError(
            f"{model} gave no usable embedding for the face from {one.source} (all zeros, or not "
            "finite). Use another picture."
        )


def _known(paths: Sequence[Path], model: ModelId) -> list[tuple[Path, Vectors]]:
    known = []
    for path in paths:
        try:
            stored = read_reference(path)
        except (FaceError, FileNotFoundError):
            continue  # Damaged files are named when they are used, which a save does not do.
        if stored.model is not None and _foreign(stored, model) is None:
            known.append((path, stored.vectors))
    return known


def _same(
    vector: NDArray[np.float32], known: Sequence[tuple[Path, Vectors]], model: ModelId
) -> Path | None:
    for path, vectors in known:
        if similarities(vector[None], vectors, model.metric).max() >= _SAME_SCORE[model.metric]:
            return path
    return None


def _next_free(home: Path, character: str) -> Path:
    pattern = re.compile(re.escape(character) + r"_([0-9]{1,9})\.(npy|json|png)", re.IGNORECASE)
    names = [entry.name for entry in home.iterdir()] if home.is_dir() else []
    taken = [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
    return home / f"{character}_{max(taken, default=0) + 1}.npy"


def _write(path: Path, character: str, one: NewReference, model: ModelId) -> None:
    file = io.BytesIO()
    np.save(file, one.vector, allow_pickle=False)
    npy = file.getvalue()
    try:
        write_reference(path, npy, note_of(npy, character, one.source, model), png_of(one.crop))
    except OSError as error:
        raise FaceError(
            f"{path}: the reference cannot be written: {error.strerror or error}."
        ) from error
