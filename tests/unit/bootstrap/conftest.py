"""A home of the test's own, and this Python as the one that makes environments."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.bootstrap.home import Home
from scripts.bootstrap.say import Steps


@pytest.fixture
def folder(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


@pytest.fixture
def steps() -> Steps:
    return Steps(1)
