"""pip's failures come out as one sentence that says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bootstrap.environment import interpreter_in, make_venv
from scripts.bootstrap.installer import explain_failure, pip
from scripts.bootstrap.processes import clean_environment
from scripts.bootstrap.say import Problem

LOG = Path("pip.log")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    from scripts.bootstrap.say import Steps

    venv = tmp_path_factory.mktemp("venv") / "env"
    make_venv(Path(sys.executable), venv, Steps(1))
    return interpreter_in(venv).path


def test_no_network(python, folder, steps):
    log = folder.logs / "pip.log"
    offline = ["--isolated", "--retries", "1", "--index-url", "http://127.0.0.1:9/simple"]
    with pytest.raises(Problem, match=r"could not be reached.*Check the network") as caught:
        pip(python, ["install", *offline, "tiny-pack-that-is-not-here"], log, steps)
    assert str(log) in str(caught.value)
    assert "127.0.0.1" in log.read_text()


def test_no_such_package(python, folder, steps):
    nowhere = ["--isolated", "--no-index"]
    with pytest.raises(Problem, match=r"no tiny-pack==9 for this Python.*3\.10 to 3\.13"):
        pip(python, ["install", *nowhere, "tiny-pack==9"], folder.logs / "pip.log", steps)


def test_no_pip(folder, steps):
    bare = folder.root / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    from scripts.bootstrap.environment import python_in

    with pytest.raises(Problem, match="no pip"):
        pip(python_in(bare), ["install", "x"], folder.logs / "pip.log", steps)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            "ERROR: Could not install packages: OSError: [Errno 28] No space left on device",
            "disk is full",
        ),
        (
            "after 'NameResolutionError(...)'\nERROR: No matching distribution found for torch",
            "could not be reached",
        ),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
        ("ERROR: ResolutionImpossible: for help visit", "exclude each other"),
        ("ERROR: [Errno 13] Permission denied: '/x'", "permission denied"),
        ("ERROR: Failed building wheel for x\nERROR: last", "ERROR: last"),
        ("", "no reason"),
    ],
)
def test_known_failures(output, words):
    sentence = explain_failure(output, LOG)
    assert words in sentence
    assert str(LOG) in sentence


def test_settings_that_lead_pip_elsewhere_are_left_out(monkeypatch):
    for name in ("PYTHONPATH", "PIP_TARGET", "PIP_USER", "PYTHONHOME"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "kept")
    environment = clean_environment(EXTRA="1")
    assert "elsewhere" not in environment.values()
    assert (environment["PIP_INDEX_URL"], environment["EXTRA"]) == ("kept", "1")
