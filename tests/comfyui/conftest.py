"""The tiny SDXL for tests that call ComfyUI's modules in this process; the ComfyUI that has a
language model beside it."""

from __future__ import annotations

import shutil

import pytest

from tests.support.waiting import until


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


@pytest.fixture(scope="session")
def llm_running(prepared, tmp_path_factory):
    """The one ComfyUI with a stand-in language model; tests take `llm`."""
    from tests.support import llm_studio

    with llm_studio.started(prepared, tmp_path_factory.mktemp("llm")) as studio:
        yield studio


@pytest.fixture
def llm(llm_running):
    """It with a fresh script. Afterwards the GPU is free and the model awake, whatever happened."""
    llm_running.begin()
    yield llm_running
    qwen = llm_running.qwen
    qwen.heal()
    qwen.model.prepare_chat()
    assert until(llm_running.is_free)
    assert until(lambda: not qwen.asleep)
    assert until(lambda: qwen.model.chats == 0)
    assert qwen.model.work_while_asleep == 0


@pytest.fixture
def llm_references(llm):
    """The folder of its saved references, emptied afterwards."""
    folder = llm.server.user_dir / "animation_studio" / "references"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def references(comfyui):
    """The folder of saved references, emptied afterwards."""
    folder = comfyui.user_dir / "animation_studio" / "references"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
