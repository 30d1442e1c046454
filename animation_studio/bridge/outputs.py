"""Files in ComfyUI's output folder, by the rules of core's own save nodes."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from PIL import Image

from ..errors import StudioError
from ..files import write_atomically
from .images import to_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["Place", "place", "save_report"]


@dataclass(frozen=True)
class Place:
    """A free place in the output folder: FOLDER/NAME_COUNTER_; `subfolder` as the page wants it."""

    folder: Path
    name: str
    counter: int
    subfolder: str

    def entry(self, filename: str) -> dict[str, str]:
        """Return a file of this place in the form of ComfyUI's ui results."""
        return {"filename": filename, "subfolder": self.subfolder, "type": "output"}


def place(prefix: str, width: int, height: int) -> Place:
    """Return the next free place for a prefix with core's %placeholders%.

    Raises StudioError for a prefix that leaves the output folder.
    """
    output = folder_paths.get_output_directory()
    # Compared without following links, as core does: a link inside the folder is its owner's act.
    target = os.path.abspath(os.path.join(output, prefix))  # noqa: PTH100, PTH118
    if not Path(target).is_relative_to(os.path.abspath(output)):  # noqa: PTH100
        raise StudioError(
            f"filename_prefix {prefix!r} leaves ComfyUI's output folder; give a name inside it"
        )
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        prefix, output, width, height
    )
    return Place(Path(folder), name, counter, subfolder)


def save_report(
    report: str, prefix: str, sheet: torch.Tensor | None
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Write a report as JSON and its contact sheet as PNG beside it; return their entries.

    `sheet` is float [1, height, width, 3]. Raises StudioError as `place` does and where the file
    system refuses.
    """
    picture = to_bytes(sheet)[0] if sheet is not None else None
    height, width = picture.shape[:2] if picture is not None else (0, 0)
    where = place(prefix, width, height)
    stem = f"{where.name.replace('%batch_num%', '0')}_{where.counter:05}_"
    try:
        write_atomically(where.folder / f"{stem}.json", report.encode(errors="backslashreplace"))
        if picture is not None:
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG")
            write_atomically(where.folder / f"{stem}.png", buffer.getvalue())
    except OSError as error:
        raise StudioError(
            f"{where.folder / stem}: the report cannot be saved ({error.strerror}). Make room or "
            "choose another output folder, and run again: what is cached is not made twice."
        ) from error
    images = [where.entry(f"{stem}.png")] if picture is not None else []
    return [where.entry(f"{stem}.json")], images
