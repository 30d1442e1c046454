"""The header of a safetensors file, checked before any weight is read.

Format: https://github.com/huggingface/safetensors#format : eight bytes with the header's length
(little endian), the header as JSON (name -> dtype, shape, data_offsets), then the data.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from ..errors import LoraError

__all__ = ["DTYPE_BYTES", "Header", "TensorInfo", "read_header", "refuse_pickle"]

DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
# A LoRA of a few thousand tensors has a header under 2 MB; safetensors' own cap is 100 MB.
_MAX_HEADER = 32 << 20
_PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})
# What files that only bear the name begin with. PK and 0x80: PyTorch's zip and pickle.
_KNOWN_STARTS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"<", "is a web page, not a safetensors file: the download went wrong, fetch it again"),
    (b"PK\x03\x04", "is a PyTorch file that was only renamed: convert it to safetensors"),
    (b"\x80", "is a Python pickle that was only renamed: convert it to safetensors"),
)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as described; `start` and `end` count bytes from the start of the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A checked header: every tensor lies inside the file, whose data begin at `data_start`."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    data_nbytes: int


def refuse_pickle(path: Path) -> None:
    """Raise LoraError for files of pickle form, which could run code when read."""
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise LoraError(
            f"{path}: {path.suffix} files can run code when they are read; LoRAs are read from "
            ".safetensors only. Convert it once, where you trust the file: "
            "safetensors.torch.save_file(torch.load(OLD, weights_only=True), NEW)."
        )


def read_header(path: Path) -> Header:
    """Read and check the header of `path`; no weight is read.

    Raises LoraError for a missing or unreadable file, anything that is no safetensors file, and a
    file shorter than its header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if size >= 8 and length <= min(_MAX_HEADER, size - 8):
                text = file.read(length)
            else:
                raise _not_safetensors(path, start + file.read(32), size, length)
    except OSError as error:
        raise LoraError(f"{path}: the LoRA file cannot be read ({error.strerror}).") from error
    header = _parse(path, start, text)
    expected = header.data_start + header.data_nbytes
    if size < expected:
        raise LoraError(
            f"{path}: the file is truncated: its header describes {expected:,} bytes, the file has "
            f"{size:,}. Copy or download it again."
        )
    if size > expected:
        raise LoraError(
            f"{path}: the file has {size - expected:,} bytes more than its header describes, so it "
            "is damaged. Copy or download it again."
        )
    return header


def _not_safetensors(path: Path, start: bytes, size: int, length: int) -> LoraError:
    for magic, text in _KNOWN_STARTS:
        if start.startswith(magic):
            return LoraError(f"{path}: this {text}.")
    if size < 8:
        found = f"it has only {size} bytes"
    elif length <= _MAX_HEADER:
        return LoraError(
            f"{path}: the file is truncated: its header alone takes {length:,} bytes, the file has "
            f"{size:,}. Copy or download it again."
        )
    else:
        found = f"its first bytes would mean a header of {length:,} bytes"
    return LoraError(f"{path}: this is not a safetensors file: {found}. Copy or download it again.")


def _parse(path: Path, start: bytes, text: bytes) -> Header:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text[:1] != b"{":
            raise _not_safetensors(path, start + text[:32], 8 + len(text), 1 << 62) from error
        raise LoraError(
            f"{path}: the safetensors header is damaged (no valid JSON). Copy or download it again."
        ) from error
    if not isinstance(entries, dict):
        raise LoraError(f"{path}: this is not a safetensors file: its header is not a mapping.")
    metadata = entries.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        metadata = {}
    tensors = {name: _tensor_info(path, name, entry) for name, entry in entries.items()}
    if not tensors:
        raise LoraError(f"{path}: the file holds no tensor at all. Copy or download it again.")
    return Header(
        tensors=tensors,
        metadata={key: value for key, value in metadata.items() if isinstance(value, str)},
        data_start=8 + len(text),
        data_nbytes=max(info.end for info in tensors.values()),
    )


def _tensor_info(path: Path, name: str, entry: object) -> TensorInfo:
    """Check one header entry: known dtype, a shape, and a byte range of just that size."""
    damaged = f"{path}: the safetensors header is damaged at {name[:200]!r}"
    if not isinstance(entry, dict):
        raise LoraError(f"{damaged}: not a mapping.")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise LoraError(
            f"{damaged}: tensors of type {str(dtype)[:40]!r} are not known. "
            f"Known: {', '.join(DTYPE_BYTES)}."
        )
    if not (_is_counts(shape) and _is_counts(offsets) and len(offsets) == 2):
        raise LoraError(f"{damaged}: its shape or place in the file is not given in numbers.")
    start, end = offsets
    if end - start != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise LoraError(f"{damaged}: {end - start:,} bytes do not hold the shape {shape!s:.80}.")
    return TensorInfo(dtype, tuple(shape), start, end)


def _is_counts(value: object) -> TypeGuard[list[int]]:
    """Tell whether `value` is a list of non-negative integers, none beyond any file's size."""
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 48 for item in value
    )
