"""A user's configuration folder, written by each test as text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from animation_studio.registry import Registry, load_registry

Write: TypeAlias = Callable[..., Path]
Load: TypeAlias = Callable[..., Registry]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write `NAME="yaml text"` as NAME.yaml into a folder of the test's; return the folder."""

    def write(folder: str = "user", **files: str | bytes) -> Path:
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        for name, text in files.items():
            data = text if isinstance(text, bytes) else text.encode()
            (target / f"{name}.yaml").write_bytes(data)
        return target

    return write


@pytest.fixture
def load(write: Write) -> Load:
    """Load a registry whose only layer holds the given files."""

    def load(**files: str | bytes) -> Registry:
        return load_registry([write(**files)])

    return load
