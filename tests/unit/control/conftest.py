"""What the tests of the control room share: poses as data, and the real annotator."""

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def annotator() -> Callable[[str], ModuleType]:
    """Import a module of the real controlnet_aux, which warns about its own old imports."""

    def load(name: str) -> ModuleType:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(f"controlnet_aux.{name}")

    return load


@pytest.fixture(scope="session")
def photos() -> dict[str, np.ndarray]:
    """Real photographs, RGB uint8: those that come with scikit-image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skimage = importlib.import_module("skimage")
    folder = Path(skimage.__file__).parent / "data"
    names = ("astronaut.png", "coffee.png", "rocket.jpg")
    return {name: np.array(Image.open(folder / name).convert("RGB")) for name in names}


@pytest.fixture(scope="session")
def shipped_poses() -> Path:
    return Path(__file__).parents[3] / "configs" / "poses"
