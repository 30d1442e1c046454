"""One file of references: a plain `.npy`, and the note beside it that says which model made it.

The files may come from strangers. Sizes are checked before anything is read, the header before
the numbers are, and nothing is ever unpickled.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import math
import tokenize
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import FaceError, StudioError
from ..files import read_limited, write_atomically
from .engine import Metric, ModelId

if TYPE_CHECKING:
    from .engine import Picture, Vectors

__all__ = ["StoredReference", "note_of", "png_of", "read_reference", "write_reference"]

# A thousand vectors of 2048 numbers in 64 bits: more is no collection of one character's faces.
_NPY_LIMIT = 16 << 20
_NOTE_LIMIT = 64 << 10
_FLOATS = {2, 4, 8}
# The largest number of an embedding is about 5 for ArcFace's raw vectors and 0.3 for dlib's. Far
# beyond is something else.
_SMALLEST, _LARGEST = 1e-5, 1e4


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)

    engine: str
    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    dimensions: int = Field(ge=1)
    metric: Metric


class _Note(BaseModel):
    """The `.json` beside a `.npy`; `npy_sha256` binds the two."""

    model_config = ConfigDict(frozen=True)

    format: Literal["animation_studio/face_reference/1"] = "animation_studio/face_reference/1"
    created: datetime.datetime
    character: str
    source: str
    model: _Model
    npy_sha256: str


@dataclass(frozen=True)
class StoredReference:
    """A file as it was read: vectors float32 [n, d], and its model where that is known."""

    path: Path
    vectors: Vectors
    model: ModelId | None


def read_reference(path: Path) -> StoredReference:
    """Read a `.npy` of embeddings, [d], [1, d] or [n, d], and the note beside it.

    Raises FaceError, naming the file, for everything that is not a plain array of finite floating
    point numbers, and when the note is damaged or was written for other bytes. A file that does
    not exist raises FileNotFoundError.
    """
    data = _read(path, _NPY_LIMIT, "face reference")
    vectors = _vectors(path, data)
    note = _read_note(path)
    if note is None:
        return StoredReference(path, vectors, None)
    model = ModelId(**note.model.model_dump())
    if note.npy_sha256 != hashlib.sha256(data).hexdigest():
        raise FaceError(
            f"{path}: this reference is not the one that {path.with_suffix('.json').name} beside "
            "it was written for, so who made it isn't known. Make the reference again, or put "
            "back the file that belongs there."
        )
    if vectors.shape[1] != model.dimensions:
        raise _damaged(path, f"it has {vectors.shape[1]} numbers where {model} makes others")
    return StoredReference(path, vectors, model)


def write_reference(path: Path, npy: bytes, note: bytes, png: bytes) -> None:
    """Write `.png`, `.json` and `.npy`, all or none.

    The `.npy` comes last: only with it there is a reference, so that even a power cut leaves a
    whole one or none. Raises OSError as the file system does.
    """
    written: list[Path] = []
    try:
        for suffix, data in ((".png", png), (".json", note), (".npy", npy)):
            written.append(path.with_suffix(suffix))
            write_atomically(written[-1], data)
    except BaseException:
        for file in written:
            file.unlink(missing_ok=True)
        raise


def note_of(npy: bytes, character: str, source: str, model: ModelId) -> bytes:
    """Return the note for the bytes of a `.npy`, as JSON."""
    note = _Note(
        created=datetime.datetime.now(datetime.timezone.utc),
        character=character,
        source=source,
        model=_Model(**asdict(model)),
        npy_sha256=hashlib.sha256(npy).hexdigest(),
    )
    return (note.model_dump_json(indent=2) + "\n").encode()


def png_of(crop: Picture) -> bytes:
    """Return an RGB picture as PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(crop)).save(file, "PNG")
    return file.getvalue()


def _vectors(path: Path, data: bytes) -> Vectors:
    shape, fortran, dtype, offset = _header(path, data)
    if dtype.kind != "f" or dtype.itemsize not in _FLOATS:
        raise _damaged(path, f"it holds {dtype}, where an embedding is of floating point numbers")
    if len(shape) not in (1, 2) or min(shape) < 1:
        raise _damaged(path, f"its shape is {list(shape)}, where [d] or [n, d] is expected")
    if len(data) - offset != math.prod(shape) * dtype.itemsize:
        raise _damaged(path, f"its {len(data):,} bytes are not what its header announces")
    flat = np.frombuffer(data, dtype, offset=offset)
    shaped = flat.reshape(shape, order="F" if fortran else "C").reshape(-1, shape[-1])
    with np.errstate(invalid="ignore"):  # NaN is looked for below.
        rows = shaped.astype(np.float64)
    if not np.isfinite(rows).all():
        raise _damaged(path, "it holds values that are not finite (NaN or infinity)")
    largest = np.abs(rows).max(axis=1)
    if not largest.all():
        raise _damaged(path, "it is all zeros")
    if not ((largest > _SMALLEST) & (largest < _LARGEST)).all():
        raise _damaged(path, f"numbers up to {largest.max():.3g} are no embedding of a face")
    vectors: Vectors = rows.astype(np.float32)
    return vectors


def _header(path: Path, data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise _damaged(path, f"it is an .npy of version {version}")
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError) as error:
        raise _damaged(path, "its header is not that of an .npy file") from error
    except (MemoryError, RecursionError) as error:
        # What Python's parser says of a header made to break it.
        raise _damaged(path, "its header cannot be parsed") from error
    return shape, fortran, dtype, file.tell()


def _read_note(path: Path) -> _Note | None:
    file = path.with_suffix(".json")
    try:
        text = _read(file, _NOTE_LIMIT, "note of a face reference")
    except FileNotFoundError:
        return None
    try:
        content = json.loads(text)
        if not str(content.get("format", "")).startswith("animation_studio/"):
            return None  # Somebody's own file, which says nothing of models.
        return _Note.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except (ValueError, AttributeError, RecursionError):
        why = "it is not a JSON object"
    raise FaceError(
        f"{file}: this note says which model made {path.name}, and it is damaged ({why}). Make "
        "the reference again, or remove the note if you know that the model in use made it."
    )


def _read(path: Path, limit: int, what: str) -> bytes:
    try:
        return read_limited(path, limit, what)
    except FileNotFoundError:
        raise
    except StudioError as error:
        raise FaceError(str(error)) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FaceError(f"{path}: this {what} cannot be read: {reason}.") from error


def _damaged(path: Path, why: str) -> FaceError:
    return FaceError(
        f"{path}: not a usable face reference: {why}. Make it again with the Face References "
        "node, or take it out of the character's references."
    )
