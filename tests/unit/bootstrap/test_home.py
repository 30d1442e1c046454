"""The folder of prepared parts: one at a time, enough room, nothing half left."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.bootstrap.home import DISCARDED, REPOSITORY, Home, remove_tree
from scripts.bootstrap.say import Problem

HOLD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from bootstrap.home import Home
from bootstrap.say import Steps
with Home(Path(sys.argv[2])).locked(Steps(1)):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
    Path(sys.argv[2], "made").write_text("whole")
"""


def hold(folder, seconds):
    command = [sys.executable, "-c", HOLD, REPOSITORY / "scripts", folder.root, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_run_waits_for_the_first(folder, steps):
    with hold(folder, 1.0), folder.locked(steps):
        assert (folder.root / "made").read_text() == "whole"


def test_a_killed_holder_holds_no_longer(folder, steps):
    with hold(folder, 3600) as process:
        process.kill()
        process.wait()
        with folder.locked(steps):
            assert not (folder.root / "made").exists()


def test_removal_left_half_done_is_finished(folder, steps):
    leftover = folder.root / f"env{DISCARDED}0123"
    (leftover / "lib").mkdir(parents=True)
    with folder.locked(steps):
        assert not leftover.exists()
    remove_tree(folder.root / "not there")


def test_too_little_room(folder):
    with pytest.raises(Problem, match=r"GB left.*ANIMATION_STUDIO_HOME"):
        folder.require_space(1e6, "a Python environment")
    folder.require_space(0.0, "nothing")


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem, match=r"cannot be used.*ANIMATION_STUDIO_HOME"):
        Home(tmp_path / "file" / "home").make()


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("ANIMATION_STUDIO_HOME", str(tmp_path / "elsewhere"))
    assert Home.find().root == tmp_path / "elsewhere"
    monkeypatch.delenv("ANIMATION_STUDIO_HOME")
    assert Home.find().root == REPOSITORY / ".studio"
