"""What the pack says about the ComfyUI it runs in."""

from __future__ import annotations

import pytest


@pytest.fixture
def environment(comfyui_modules):
    from animation_studio.bridge import environment

    return environment


def test_xformers_is_warned_of(environment, monkeypatch, caplog):
    import comfy.model_management as management

    environment.warn_about_attention()
    assert caplog.text == ""
    # What ComfyUI finds on a machine with a GPU and xformers installed.
    monkeypatch.setattr(management, "cpu_state", management.CPUState.GPU)
    monkeypatch.setattr(management, "XFORMERS_IS_AVAILABLE", True)
    environment.warn_about_attention()
    assert "xformers is active" in caplog.text
    assert "--use-pytorch-cross-attention" in caplog.text


def test_versions_are_the_real_ones(environment):
    import torch
    from comfyui_version import __version__

    versions = environment.versions()
    assert versions["comfyui"] == __version__
    assert versions["torch"] == torch.__version__
