"""Pictures that were sampled and judged before, by recipe and seed, so that none is sampled twice.

A recipe is everything that makes a picture but the seed (`provenance.recipe_of`). The pictures
themselves are kept, not the verdicts: a new reference or another threshold judges them again
without sampling.
"""

from __future__ import annotations

import contextlib
import io
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..errors import StudioError
from ..files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    Picture: TypeAlias = NDArray[np.uint8]

__all__ = ["RECIPE", "JudgedPictures"]

# What a recipe looks like; it becomes the name of a folder.
RECIPE = r"[0-9a-f]{32}"

# About seven hundred pictures of 1024x1024; the oldest go first.
LIMIT_BYTES = 1 << 30
# What a run that is still going may need is not forgotten, even over the limit.
_FRESH_SECONDS = 3600.0
# Pictures held in memory while the disk takes none.
_UNSAVED = 64
# One picture has at most this many pixels: ComfyUI's own largest latent.
_MAX_PIXELS = 16_384 * 16_384
_NAME = re.compile(r"(\d+)_(\d+)of(\d+)\.png")


class JudgedPictures:
    """A folder of judged pictures, RECIPE/SEED_INDEXofCOUNT.png; safe from several threads.

    At most `limit` bytes are kept: what was written longest ago is forgotten first, except what is
    younger than an hour. A forgotten seed counts as never judged. Where the disk takes nothing, the
    last pictures are held in memory and `problem` says why.
    """

    def __init__(self, folder: Path, limit: int = LIMIT_BYTES) -> None:
        self._folder = folder
        self._limit = limit
        self._lock = threading.Lock()
        self._unsaved: dict[tuple[str, int], list[Picture]] = {}
        self.problem = ""

    def get(self, recipe: str, seed: int) -> list[Picture] | None:
        """Return the pictures of a seed, uint8 [height, width, 3]; None where it is not judged.

        A damaged file makes its seed one that was never judged.
        """
        with self._lock:
            if (recipe, seed) in self._unsaved:
                return self._unsaved[recipe, seed]
            files = sorted(
                self._of(recipe).glob(f"{seed}_*.png"), key=lambda file: _numbers(file)[1]
            )
            numbers = [_numbers(file) for file in files]
            if not files or [n[1] for n in numbers] != list(range(numbers[0][2])):
                return None
            pictures = [_read(file) for file in files]
        whole = [picture for picture in pictures if picture is not None]
        return whole if len(whole) == len(files) else None

    def __contains__(self, key: tuple[str, int]) -> bool:
        """Whether pictures of (recipe, seed) are there, without reading them."""
        recipe, seed = key
        return key in self._unsaved or any(self._of(recipe).glob(f"{seed}_*.png"))

    def forget(self, recipe: str, seed: int) -> None:
        """Remove what is there of a seed, damaged or not."""
        with self._lock:
            self._unsaved.pop((recipe, seed), None)
            for file in self._of(recipe).glob(f"{seed}_*.png"):
                file.unlink(missing_ok=True)

    def add(self, recipe: str, seed: int, pictures: Sequence[Picture]) -> None:
        """Keep the pictures that a seed made, one for each of its batch."""
        folder = self._of(recipe)
        with self._lock:
            try:
                for index, picture in enumerate(pictures):
                    path = folder / f"{seed}_{index}of{len(pictures)}.png"
                    write_atomically(path, _png(picture))
                self._forget()
                self.problem = ""
            except OSError as error:
                self.problem = f"{folder} cannot be written ({error.strerror or error})"
                self._unsaved[recipe, seed] = list(pictures)
                while len(self._unsaved) > _UNSAVED:
                    self._unsaved.pop(next(iter(self._unsaved)))

    def _of(self, recipe: str) -> Path:
        if not re.fullmatch(RECIPE, recipe):
            raise StudioError(f"recipe {recipe!r}: should be 32 hexadecimal digits")
        return self._folder / recipe

    def _forget(self) -> None:
        """Remove the oldest files over the limit."""
        files = [
            (info.st_mtime, info.st_size, file)
            for file in self._folder.glob("*/*.png")
            if (info := file.stat()) and _NAME.fullmatch(file.name)
        ]
        surplus = sum(size for _, size, _ in files) - self._limit
        for written, size, file in sorted(files):
            if surplus <= 0 or written > time.time() - _FRESH_SECONDS:
                break
            file.unlink(missing_ok=True)
            surplus -= size
            with contextlib.suppress(OSError):
                file.parent.rmdir()


def _numbers(file: Path) -> tuple[int, int, int]:
    """Seed, index and count of a file's name; a name of another form sorts and counts as none."""
    match = _NAME.fullmatch(file.name)
    return (int(match[1]), int(match[2]), int(match[3])) if match else (-1, -1, -1)


def _png(picture: Picture) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    # Level 1: these are written while a person waits and are read by this class alone.
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _read(file: Path) -> Picture | None:
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        # PIL raises SyntaxError for a broken PNG chunk.
        return None
