"""A scripted GPU for tests of the gpu room: see tests/support/nvml_standin.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import nvml_standin
from tests.support.gpu_desk import Desk
from tests.support.nvml_standin import ScriptedGpu


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for libnvidia-ml.so.1, loaded into this process."""
    library = nvml_standin.build(tmp_path_factory.mktemp("nvml"))
    nvml_standin.load(library)
    return library


@pytest.fixture
def gpu(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedGpu:
    """A GPU of 16 GiB, all free, that meters of this process read."""
    scripted = ScriptedGpu(tmp_path / "gpu.txt")
    monkeypatch.setenv(nvml_standin.VARIABLE, str(scripted.file))
    return scripted


@pytest.fixture
def desk(gpu: ScriptedGpu, tmp_path: Path) -> Iterator[Desk]:
    """An arbiter's whole surroundings; tests add the services."""
    with Desk(gpu, tmp_path / "state") as made:
        yield made
