"""The tiny SDXL for tests that call ComfyUI's modules in this process."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="session")
def tiny(comfyui_modules):
    """The same random weights in diffusers and in ComfyUI. Tests patch clones or copies only."""
    from tests.support import tiny_sdxl

    return tiny_sdxl.build()


@pytest.fixture
def one_thread():
    """Let torch use one thread: for the tiny networks' matrices more only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def references(comfyui):
    """The folder of saved references, emptied afterwards."""
    folder = comfyui.user_dir / "animation_studio" / "references"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
