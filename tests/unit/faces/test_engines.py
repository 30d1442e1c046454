"""Which engine a name gives, and what is said where packages or packs are missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from animation_studio.errors import FaceError
from animation_studio.faces.engines import (
    open_engine,
    unload_engines,
)
from animation_studio.faces.packs import available_packs, engine_names
from tests.support.faces import STANDIN_PACK

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def fresh():
    unload_engines()
    yield
    unload_engines()


@pytest.fixture
def place(insightface_root, tmp_path):
    """Make a pack at a path under tmp_path, with the stand-in's files."""
    source = insightface_root / "models" / STANDIN_PACK

    def make(where):
        folder = tmp_path / where
        folder.mkdir(parents=True)
        for file in source.glob("*.onnx"):
            (folder / file.name).symlink_to(file)
        return folder

    return make


def opened(name, folders):
    return open_engine(name, folders, wants_gpu=False, device_id=0)


def test_packs_lie_where_people_put_them(place, tmp_path):
    inside = place("one/models/buffalo_l")
    beside = place("one/other")
    nested = place("two/models/antelopev2/antelopev2")
    place("two/models/buffalo_l")
    place("two/models/.hidden")
    (tmp_path / "one/models/empty").mkdir()
    (tmp_path / "one/models/note.txt").touch()
    (tmp_path / "one/inswapper_128.onnx").touch()
    single = tmp_path / "one/models/single"
    single.mkdir()
    (single / "det.onnx").touch()
    described = tmp_path / "two/models/described"
    described.mkdir()
    (described / "manifest.json").touch()
    folders = [tmp_path / "one", tmp_path / "two", tmp_path / "nowhere", tmp_path / "one/models"]
    assert available_packs(folders) == {
        "buffalo_l": inside,
        "other": beside,
        "antelopev2": nested,
        "described": described,
    }


def test_names_for_a_combo(place, tmp_path):
    always = ["auto", "dlib", "insightface: buffalo_l", "insightface: antelopev2"]
    assert engine_names([]) == engine_names([tmp_path]) == always
    place("models/zebra")
    place("models/antelopev2")
    place("models/apple")
    assert engine_names([tmp_path]) == [*always, "insightface: apple", "insightface: zebra"]


def test_auto_takes_a_pack_where_there_is_one(place, tmp_path):
    assert opened("auto", [tmp_path]).model.engine == "dlib"
    for name in ("apple", "antelopev2", "buffalo_l"):
        place(f"models/{name}")
        engine = opened("auto", [tmp_path])
        assert engine.model.name == f"{name}/rec"
        assert engine is opened(f"insightface: {name}", [tmp_path])
        assert not engine.warnings


def test_one_engine_for_everybody(place, tmp_path):
    place("models/buffalo_l")
    for name in ("dlib", "insightface: buffalo_l"):
        with ThreadPoolExecutor(6) as pool:
            engines = list(pool.map(lambda _, name=name: opened(name, [tmp_path]), range(6)))
        assert all(one is engines[0] for one in engines)
        unload_engines()
        again = opened(name, [tmp_path])
        assert again is not engines[0]
        assert again.model == engines[0].model


def test_a_pack_that_is_replaced(place, tmp_path):
    folder = place("models/buffalo_l")
    before = opened("auto", [tmp_path])
    recogniser = folder / "rec.onnx"
    data = recogniser.read_bytes()
    recogniser.unlink()
    recogniser.write_bytes(data)
    after = opened("auto", [tmp_path])
    assert after is not before
    assert after.model == before.model
    recogniser.write_bytes(data[:-100])
    with pytest.raises(FaceError, match=r"rec\.onnx: insightface cannot open"):
        opened("auto", [tmp_path])


@pytest.mark.parametrize(
    "name", ["", "insightface", "insightface:", "buffalo_l", "clip: x", "DLIB"]
)
def test_a_name_that_is_none(name, tmp_path):
    with pytest.raises(FaceError, match=r"no face engine .*There are: auto, dlib, insightface"):
        opened(name, [tmp_path])


def test_a_pack_that_is_not_there(place, tmp_path):
    with pytest.raises(FaceError) as error:
        opened("insightface: buffalo_l", [tmp_path])
    for part in (str(tmp_path / "models/buffalo_l"), "found: none", "buffalo_l.zip", "dlib"):
        assert part in str(error.value)
    place("models/other")
    with pytest.raises(FaceError, match=r"mine is not there.*found: other.*ONNX files"):
        opened("insightface: mine", [tmp_path])
    with pytest.raises(FaceError, match="models/insightface/models/mine"):
        opened("insightface: mine", [])


# What these have installed decides the install line, so each case brings its own.
_RECORDS = ("insightface-", "onnxruntime", "opencv_")
_OPEN = """
import json, sys
sys.path += sys.argv[1:3]
from pathlib import Path
from animation_studio.errors import StudioError
from animation_studio.faces.engines import open_engine
try:
    engine = open_engine(sys.argv[3], [Path(sys.argv[4])], wants_gpu=False, device_id=0)
    print(json.dumps([engine.model.engine, list(engine.warnings)]))
except StudioError as error:
    print(json.dumps([type(error).__name__, [str(error)]]))
"""


@pytest.fixture
def bare(tmp_path):
    """Open an engine in a Python that lacks packages (links to all others); return what came."""

    def run(name, packs, without=(), files=None):
        packages = tmp_path / "packages"
        shutil.rmtree(packages, ignore_errors=True)
        packages.mkdir()
        for entry in _installed():
            record = entry.suffix == ".dist-info" and entry.name.startswith(_RECORDS)
            if entry.stem not in without and not record:
                (packages / entry.name).symlink_to(entry)
        for path, text in (files or {}).items():
            (packages / path).parent.mkdir(exist_ok=True)
            (packages / path).write_text(text)
        arguments = [str(packages), str(ROOT), name, str(packs)]
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-c", _OPEN, *arguments],
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        kind, messages = json.loads(done.stdout.splitlines()[-1])
        return kind, " ".join(messages)

    return run


def _installed():
    """Everything in this Python's folders of packages, the first of each name."""
    folders = [Path(entry) for entry in sys.path if Path(entry).name == "site-packages"]
    entries = [entry for folder in folders for entry in folder.iterdir()]
    return {entry.name: entry for entry in reversed(entries)}.values()


@pytest.mark.parametrize("missing", ["dlib", "face_recognition_models"])
def test_without_dlibs_packages(bare, tmp_path, missing):
    for name in ("dlib", "auto"):
        kind, message = bare(name, tmp_path, without=[missing])
        assert kind == "MissingPackageError"
        assert f"{missing} " in message
        assert "pip install dlib-bin face_recognition_models" in message


def test_with_everything(bare, tmp_path):
    assert bare("auto", tmp_path) == ("dlib", "")


@pytest.mark.parametrize("missing", ["insightface", "onnxruntime", "cv2"])
def test_without_insightfaces_packages(bare, place, tmp_path, missing):
    place("root/models/buffalo_l")
    kind, message = bare("insightface: buffalo_l", tmp_path / "root", without=[missing])
    assert kind == "MissingPackageError"
    assert ("opencv" if missing == "cv2" else missing) in message
    assert 'pip install "insightface>=2.1"' in message
    kind, message = bare("auto", tmp_path / "root", without=[missing])
    assert kind == "dlib"
    assert "buffalo_l is there, but dlib is used" in message
    assert "pip install" in message


def test_beside_packages_that_a_plain_install_would_overwrite(bare, tmp_path):
    installed = {
        f"{name.replace('-', '_')}-9.9.dist-info/METADATA": f"Name: {name}\nVersion: 9.9\n"
        for name in ("onnxruntime-gpu", "opencv-python-headless")
    }
    kind, message = bare(
        "insightface: buffalo_l", tmp_path, without=["insightface"], files=installed
    )
    assert kind == "MissingPackageError"
    assert "beside onnxruntime-gpu, opencv-python-headless" in message
    assert 'pip install --no-deps "insightface>=2.1" and then pip install onnx' in message


def test_an_old_insightface(bare, tmp_path):
    old = {"insightface-0.7.3.dist-info/METADATA": "Name: insightface\nVersion: 0.7.3\n"}
    kind, message = bare("insightface: buffalo_l", tmp_path, files=old)
    assert kind == "MissingPackageError"
    assert "insightface 0.7.3 is installed, and 2.1 or newer is needed" in message


def test_an_opencv_that_cannot_be_imported(bare, place, tmp_path):
    """As where libGL is missing, or where two of its packages overwrote each other."""
    place("root/models/buffalo_l")
    broken = {"cv2/__init__.py": "raise ImportError('libGL.so.1: cannot open shared object')\n"}
    options = {"without": ["cv2"], "files": broken}
    kind, message = bare("insightface: buffalo_l", tmp_path / "root", **options)
    assert kind == "MissingPackageError"
    assert "libGL.so.1" in message
    assert "pip install opencv-python-headless" in message
    kind, message = bare("auto", tmp_path / "root", **options)
    assert kind == "dlib"
    assert "libGL.so.1" in message
