"""The pose library: named poses as OpenPose JSON files in a few folders.

A pose is called by the stem of its file. Only names of a-z, 0-9, `_` and `-` count, so that a name
out of a stranger's workflow can never lead outside the folders.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import ControlError
from ..files import sha256_of, write_atomically
from .skeleton import Pose

__all__ = ["PoseLibrary", "save_pose"]

_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_SUFFIX = ".json"


class PoseLibrary:
    """Poses by name out of several folders; later folders win, missing folders are empty.

    Nothing is kept in memory: edits are seen at the next call, and a broken file is an error only
    for who loads it.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)

    def names(self) -> list[str]:
        """Return the names of all poses, sorted. Costs one directory listing a folder."""
        return sorted(self._paths())

    def load(self, name: str) -> Pose:
        """Read the pose called `name`; its `name` is the file's stem.

        Raises ControlError when there is none (naming the nearest) or its file is broken.
        """
        return Pose.read(self._path(name)).model_copy(update={"name": name})

    def content_hash(self, name: str) -> str:
        """Return the SHA-256 of the pose's file as 64 hexadecimal digits.

        It changes exactly when the file's bytes do. Raises ControlError as `load` does.
        """
        path = self._path(name)
        try:
            return sha256_of(path)
        except OSError as error:
            raise ControlError(f"{path}: cannot be read: {error.strerror or error}.") from error

    def _paths(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in self._folders:
            for stem in _stems(folder):
                found[stem] = folder / (stem + _SUFFIX)
        return found

    def _path(self, name: str) -> Path:
        paths = self._paths()
        if name in paths:
            return paths[name]
        nearest = difflib.get_close_matches(name, paths, n=1, cutoff=0.4)
        folders = ", ".join(str(folder) for folder in self._folders) or "no folder"
        raise ControlError(
            f"Pose {name!r} is not in the library ({folders}). "
            + (f"Did you mean {nearest[0]!r}? " if nearest else "")
            + (f"Known: {', '.join(sorted(paths))}." if paths else "It is empty.")
        )


def save_pose(folder: Path, name: str, pose: Pose, *, replace: bool = False) -> Path:
    """Write `pose` into `folder` as the pose called `name` and return the file's path.

    The file appears whole or not at all. Raises ControlError for a name with other characters
    than a-z, 0-9, `_` and `-` (at most 64), for one that exists unless `replace`, and when the
    folder cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ControlError(
            f"Pose name {name!r} cannot be used: 1 to 64 of the characters a-z, 0-9, _ and - "
            "make a pose's name."
        )
    path = folder / (name + _SUFFIX)
    if path.exists() and not replace:
        raise ControlError(
            f"{path}: a pose of this name exists. Choose another name, or allow it to be replaced."
        )
    try:
        write_atomically(path, pose.model_copy(update={"name": name}).to_json())
    except OSError as error:
        raise ControlError(f"{path}: cannot be written: {error.strerror or error}.") from error
    return path


def _stems(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except OSError:
        # A user without poses of his own has no such folder.
        return []
    stems = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
    return [stem for stem in stems if _NAME.fullmatch(stem)]
