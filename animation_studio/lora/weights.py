"""Reading the weights of a safetensors file into memory of their own.

Not through safetensors' own loader: that maps the file, so that a file overwritten while it is in
use changes the cached weights, and one that shrinks ends the process (SIGBUS). Here one read fills
one buffer, and all tensors are views of it.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LoraError
from .header import DTYPE_BYTES, Header, TensorInfo

if TYPE_CHECKING:
    import torch

__all__ = ["read_weights"]

_TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_weights(path: Path, header: Header) -> dict[str, torch.Tensor]:
    """Return all tensors of `path` by name, in CPU memory, in the file's dtypes.

    Raises LoraError when the file changed since its header was read, and when a weight is NaN or
    infinite, naming the tensor.
    """
    import torch

    buffer = torch.empty(header.data_nbytes, dtype=torch.uint8)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(header.data_start)
            count = _fill(file, buffer.numpy().data)
    except OSError as error:
        raise LoraError(f"{path}: the LoRA file cannot be read ({error.strerror}).") from error
    if count != header.data_nbytes:
        raise LoraError(f"{path}: the file changed while it was read. Run again once it is whole.")
    tensors = {name: _view(buffer, info) for name, info in header.tensors.items()}
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise LoraError(
                f"{path}: tensor {name!r:.200} holds NaN or infinite values, so every picture "
                "would be black. The training went wrong, or the file is damaged."
            )
    return tensors


def _fill(file: io.FileIO, into: memoryview) -> int:
    """Read until `into` is full or the file ends; the system may give less at once (2 GiB)."""
    count = 0
    while count < len(into) and (read := file.readinto(into[count:])):
        count += read
    return count


def _view(buffer: torch.Tensor, info: TensorInfo) -> torch.Tensor:
    import torch

    dtype: torch.dtype = getattr(torch, _TORCH_NAMES[info.dtype])
    place = buffer[info.start : info.end]
    if info.start % DTYPE_BYTES[info.dtype]:
        # Legal in the format, and rare: torch wants weights to lie on multiples of their size.
        place = place.clone()
    return place.view(dtype).view(info.shape)


def _is_finite(tensor: torch.Tensor) -> bool:
    """Check in one pass without a copy: the extremes are NaN or infinite when any value is."""
    if not tensor.dtype.is_floating_point or tensor.numel() == 0:
        return True
    if tensor.element_size() == 1:  # float8 has no arithmetic of its own
        tensor = tensor.float()
    return all(math.isfinite(extreme.item()) for extreme in tensor.aminmax())
