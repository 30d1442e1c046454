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
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..errors import StudioError
from ..files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

    # A picture, or why it could not be read.
    Picture: TypeAlias = NDArray[np.uint8] | str

__all__ = ["RECIPE", "JudgedPictures"]

# What a recipe looks like; it becomes the name of a folder.
RECIPE = r"[0-9a-f]{32}"
# About seven hundred pictures of 1024x1024; the oldest go first.
LIMIT_BYTES = 1 << 30
# A run keeps its own pictures beyond the limit, up to this many times of it.
_MOST = 4
# One picture has at most this many pixels: ComfyUI's own largest latent.
_MAX_PIXELS = 16_384 * 16_384
_NAME = re.compile(r"(\d+)_(\d+)of(\d+)\.(?:png|txt)")


class JudgedPictures:
    """A folder of judged pictures, RECIPE/SEED_INDEXofCOUNT.png; safe from several threads.

    At most `limit` bytes are kept: what was written longest ago is forgotten first, and a forgotten
    seed counts as never judged. What is not to last, and what the disk does not take, is held in
    memory within the same limit; `problem` says why the disk took nothing ("" when it did).
    """

    def __init__(self, folder: Path, limit: int = LIMIT_BYTES) -> None:
        self._folder = folder
        self._limit = limit
        self._lock = threading.Lock()
        self._memory: dict[tuple[str, int], list[Picture]] = {}
        self.problem = ""

    def seeds(self, recipe: str) -> set[int]:
        """Return the seeds that were judged, without reading their pictures."""
        folder = self._of(recipe)
        held = {seed for name, seed in self._memory if name == recipe}
        try:
            names = [file.name for file in folder.iterdir()]
        except OSError:
            return held
        return held | {int(match[1]) for name in names if (match := _NAME.fullmatch(name))}

    def get(self, recipe: str, seed: int) -> list[Picture] | None:
        """Return what a seed made: uint8 [height, width, 3], or why it could not be read.

        None where it is not judged; a damaged file makes its seed one that was never judged.
        """
        with self._lock:
            if (recipe, seed) in self._memory:
                return self._memory[recipe, seed]
            files = sorted(self._files(recipe, seed), key=lambda file: _numbers(file)[1])
            numbers = [_numbers(file) for file in files]
            if not files or [n[1] for n in numbers] != list(range(numbers[0][2])):
                return None
            pictures = [_read(file) for file in files]
        whole = [picture for picture in pictures if picture is not None]
        return whole if len(whole) == len(files) else None

    def forget(self, recipe: str, seed: int) -> None:
        """Remove what is there of a seed, damaged or not."""
        with self._lock:
            self._memory.pop((recipe, seed), None)
            for file in self._files(recipe, seed):
                file.unlink(missing_ok=True)

    def add(
        self,
        recipe: str,
        seed: int,
        pictures: Sequence[Picture],
        *,
        lasting: bool = True,
        needed: Collection[int] = (),
    ) -> None:
        """Keep what a seed made, one for each of its batch: pictures, or why they are none.

        `lasting` is False where the recipe will never come again: then the disk is not used.
        `needed` are seeds of the recipe whose pictures a run still wants.
        """
        folder = self._of(recipe)
        with self._lock:
            if not lasting:
                self._hold(recipe, seed, pictures)
                return
            try:
                for index, picture in enumerate(pictures):
                    suffix = "txt" if isinstance(picture, str) else "png"
                    path = folder / f"{seed}_{index}of{len(pictures)}.{suffix}"
                    write_atomically(path, _bytes(picture))
                self._make_room({(folder, one) for one in (*needed, seed)})
                self.problem = ""
            except OSError as error:
                self.problem = f"{folder} cannot be written ({error.strerror or error})"
                self._hold(recipe, seed, pictures)

    def _of(self, recipe: str) -> Path:
        if not re.fullmatch(RECIPE, recipe):
            raise StudioError(f"recipe {recipe!r}: should be 32 hexadecimal digits")
        return self._folder / recipe

    def _files(self, recipe: str, seed: int) -> list[Path]:
        found = self._of(recipe).glob(f"{seed}_*")
        return [file for file in found if _NAME.fullmatch(file.name)]

    def _hold(self, recipe: str, seed: int, pictures: Sequence[Picture]) -> None:
        self._memory[recipe, seed] = list(pictures)
        while sum(map(_size, self._memory.values())) > self._limit and len(self._memory) > 1:
            self._memory.pop(next(iter(self._memory)))

    def _make_room(self, needed: Collection[tuple[Path, int]]) -> None:
        """Remove the oldest files over the limit; what a run needs only far beyond it."""
        files = [
            (info.st_mtime_ns, info.st_size, file)
            for file in self._folder.glob("*/*")
            if _NAME.fullmatch(file.name) and (info := file.stat())
        ]
        total = sum(size for _, size, _ in files)
        for _, size, file in sorted(files):
            if total <= self._limit:
                break
            if total <= self._limit * _MOST and (file.parent, _numbers(file)[0]) in needed:
                continue
            file.unlink(missing_ok=True)
            total -= size
            with contextlib.suppress(OSError):
                file.parent.rmdir()


def _numbers(file: Path) -> tuple[int, int, int]:
    """Seed, index and count of a file's name."""
    match = _NAME.fullmatch(file.name)
    assert match is not None
    return int(match[1]), int(match[2]), int(match[3])


def _size(pictures: Sequence[Picture]) -> int:
    return sum(len(one) if isinstance(one, str) else one.nbytes for one in pictures)


def _bytes(picture: Picture) -> bytes:
    from PIL import Image

    if isinstance(picture, str):
        return picture.encode()
    buffer = io.BytesIO()
    # Level 1: these are written while a person waits and are read by this class alone.
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _read(file: Path) -> Picture | None:
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        if file.suffix == ".txt":
            return file.read_text(encoding="utf-8") or None
        with Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        # PIL raises SyntaxError for a broken PNG chunk.
        return None
