"""References: the embeddings that say what a character's face looks like.

They lie beside the user's configuration as `<folder>/<character>/<character>_N.npy`, each with a
`.json` of the same name that says which model made it, and a `.png` that shows the aligned face.
The `.npy` is a plain one: `np.load` reads it anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .engine import ModelId

if TYPE_CHECKING:
    import numpy as np
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
    raise NotImplementedError


def stored_references(folder: Path, character: str) -> list[Path]:
    """Return the `.npy` files in `<folder>/<character>`, in natural order (2 before 10).

    An empty list where there is no such folder. Raises FaceError for an id that cannot be a
    folder's name.
    """
    raise NotImplementedError


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
    raise NotImplementedError
