"""A user's folder of models is looked at first; ComfyUI is told by an extra_model_paths file."""

from __future__ import annotations

import os

import pytest
import yaml

from scripts.bootstrap.models import look_at_models, write_paths
from scripts.bootstrap.say import Problem


def test_a_folder_with_checkpoints(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    assert look_at_models(tmp_path) == tmp_path


def test_what_is_wrong_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "models" / "checkpoints").mkdir(parents=True)
    (tmp_path / "diffusion").mkdir()
    for path, words in [
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path / "file", "this is a file"),
        (tmp_path, "no checkpoints folder.*diffusion.*Did you mean .*models"),
    ]:
        with pytest.raises(Problem, match=words):
            look_at_models(path)


def test_unreadable(tmp_path):
    folder = tmp_path / "models"
    (folder / "checkpoints").mkdir(parents=True)
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(Problem, match="may not read"):
            look_at_models(folder)
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


def test_comfyui_reads_what_is_written(tmp_path):
    models = tmp_path / 'models: "caffè" 🎬 #1'
    for name in ("checkpoints", "loras", ".cache"):
        (models / name).mkdir(parents=True)
    (models / "readme.txt").write_text("")
    path = tmp_path / "run" / "paths.yaml"
    write_paths(path, models, tmp_path / "packs")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content == {
        "models": {
            "is_default": True,
            "checkpoints": str(models / "checkpoints"),
            "loras": str(models / "loras"),
        },
        "packs": {"custom_nodes": str(tmp_path / "packs")},
    }
    write_paths(path, None, None)
    assert yaml.safe_load(path.read_text()) == {}
