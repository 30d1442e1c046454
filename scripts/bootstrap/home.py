"""The folder that keeps everything prepared: its layout, its lock, and the room on its disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .say import Problem, Steps

__all__ = ["REPOSITORY", "Home", "remove_tree"]

REPOSITORY = Path(__file__).resolve().parents[2]
DISCARDED = ".discarded-"


@dataclass(frozen=True)
class Home:
    """Where each prepared part lies. Everything under it may be deleted; it is made again."""

    root: Path

    @classmethod
    def find(cls) -> Home:
        """Return $ANIMATION_STUDIO_HOME, else .studio in the repository (git-ignored)."""
        chosen = os.environ.get("ANIMATION_STUDIO_HOME")
        root = Path(chosen).expanduser() if chosen else REPOSITORY / ".studio"
        return cls(Path(os.path.abspath(root)))  # noqa: PTH100 - links in the path are kept

    @property
    def env(self) -> Path:
        """The environment that ComfyUI runs in."""
        return self.root / "env"

    @property
    def dev(self) -> Path:
        """The environment that tests and checks run in."""
        return self.root / "dev"

    @property
    def comfyui(self) -> Path:
        """The pinned ComfyUI."""
        return self.root / "comfyui"

    @property
    def downloads(self) -> Path:
        """Files fetched from the package index."""
        return self.root / "downloads"

    @property
    def standins(self) -> Path:
        """Stand-in models and their configuration."""
        return self.root / "standins"

    @property
    def faces(self) -> Path:
        """Pictures of people, and models that find and know faces, for tests."""
        return self.root / "faces"

    @property
    def vllm(self) -> Path:
        """The environment of the vLLM that tests talk to."""
        return self.root / "vllm"

    @property
    def language_model(self) -> Path:
        """The tiny model of that vLLM."""
        return self.standins / "llm"

    @property
    def vision_model(self) -> Path:
        """Its tiny model that sees pictures."""
        return self.standins / "vlm"

    @property
    def torchvision(self) -> Path:
        """The package that model needs, beside that environment and not in it."""
        return self.root / "torchvision"

    @property
    def run(self) -> Path:
        """ComfyUI's input, output, temp and user folders of quickstart."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """What pip and ComfyUI said."""
        return self.root / "logs"

    def make(self) -> None:
        """Make the folder itself. Raises Problem when that is not possible."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self.downloads.mkdir(exist_ok=True)
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise Problem(
                f"{self.root} cannot be used: {error.strerror}. Set ANIMATION_STUDIO_HOME to a "
                "folder where you can write."
            ) from None

    @contextlib.contextmanager
    def locked(self, steps: Steps) -> Iterator[None]:
        """Hold the folder while it is prepared; a second run waits here for the first.

        The operating system gives the lock back when its holder ends, however it ends.
        """
        self.make()
        with (self.root / ".lock").open("a+b") as file:
            while not _try_lock(file):
                steps.tick(f"another run prepares {self.root}; waiting for it")
                time.sleep(0.5)
            try:
                self._empty_bin()
                yield
            finally:
                _unlock(file)

    def require_space(self, gigabytes: float, purpose: str) -> None:
        """Raise Problem when the disk has less than this left (10**9 bytes)."""
        free = shutil.disk_usage(self.root).free / 1e9
        if free < gigabytes:
            raise Problem(
                f"The disk of {self.root} has {free:.1f} GB left; {purpose} needs about "
                f"{gigabytes:.0f} GB. Make room, or set ANIMATION_STUDIO_HOME to a folder on a "
                "larger disk."
            )

    def _empty_bin(self) -> None:
        for leftover in self.root.glob(f"*{DISCARDED}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder so that nobody ever sees half of it: renamed first, deleted then."""
    if not folder.exists():
        return
    discarded = folder.with_name(f"{folder.name}{DISCARDED}{uuid.uuid4().hex[:8]}")
    folder.rename(discarded)
    shutil.rmtree(discarded, ignore_errors=True)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
