"""One reference file: every damage is an error that names it, and nothing is ever unpickled."""

import hashlib
import io
import json
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from animation_studio.errors import FaceError
from animation_studio.faces.reference_file import (
    note_of,
    png_of,
    read_reference,
    write_reference,
)
from tests.support.square_faces import point, square_model

MODEL = square_model()


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def header(text, version=(1, 0)):
    """An .npy whose header is any text."""
    raw = text.encode("latin1")
    size = len(raw).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + raw


class Bomb:
    """Unpickling this makes the test fail loudly."""

    def __reduce__(self):
        return (pytest.exit, ("a pickle was loaded",))


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (point(30)[0], (1, 2)),
        (point(30), (1, 2)),
        (point(30, 40, 50), (3, 2)),
        (np.asfortranarray(point(30, 40, 50)), (3, 2)),
        (point(30).astype(np.float64), (1, 2)),
        (point(30).astype(np.float16), (1, 2)),
        (point(30).astype(">f4"), (1, 2)),
    ],
)
def test_plain_files_as_people_have_them(tmp_path, array, shape):
    path = tmp_path / "luca.npy"
    np.save(path, array)
    stored = read_reference(path)
    assert stored.model is None
    assert stored.vectors.dtype == np.float32
    assert stored.vectors.shape == shape
    expected = np.asarray(array, dtype=np.float32).reshape(shape)
    assert stored.vectors == pytest.approx(expected, abs=1e-3)


DAMAGED = {
    "empty": (b"", "header"),
    "text": (b"not an array", "header"),
    "pickle": (pickle.dumps(Bomb()), "header"),
    "pickled array": (npy(np.array([Bomb()], dtype=object), allow_pickle=True), "object"),
    "npz": (b"PK\x03\x04" + bytes(100), "header"),
    "truncated": (npy(point(1))[:-1], "bytes are not what its header announces"),
    "something after it": (npy(point(1)) + b"\0", "bytes are not what its header announces"),
    "magic alone": (b"\x93NUMPY\x01\x00", "header"),
    "header cut": (npy(point(1))[:40], "header"),
    "huge shape": (
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 512), }\n"),
        "announces",
    ),
    "negative shape": (
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 512), }\n"),
        "shape",
    ),
    "no header dict": (header("[1, 2]\n"), "header"),
    "code in the header": (header("__import__('os').system('true')\n"), "header"),
    "deep header": (header("(" * 9000), "header"),
    "long header": (header(" " * 200_000, version=(2, 0)), "header"),
    "unknown version": (header("{}", version=(9, 9)), r"version \(9, 9\)"),
    "text array": (npy(np.array(["luca"])), "U4"),
    "whole numbers": (npy(np.arange(4)), "int"),
    "complex": (npy(np.ones(4, np.complex64)), "complex"),
    "structured": (npy(np.zeros(2, dtype=[("x", "f4")])), "x"),
    "one number": (npy(np.float32(1)), r"shape is \[\]"),
    "three axes": (npy(np.ones((1, 1, 2), np.float32)), r"shape is \[1, 1, 2\]"),
    "no vectors": (npy(np.empty((0, 2), np.float32)), r"shape is \[0, 2\]"),
    "zeros": (npy(np.zeros(4, np.float32)), "all zeros"),
    "one of zeros": (npy(np.float32([[1, 0], [0, 0]])), "all zeros"),
    "nan": (npy(np.float32([1, np.nan])), "not finite"),
    "infinity": (npy(np.float32([1, np.inf])), "not finite"),
    "beyond float32": (npy(np.array([1e300, 1.0])), "no embedding"),
    "next to nothing": (npy(np.array([1e-300, 0])), "no embedding"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_files_are_named(tmp_path, what):
    data, why = DAMAGED[what]
    path = tmp_path / "luca_1.npy"
    path.write_bytes(data)
    with pytest.raises(FaceError, match=why) as caught:
        read_reference(path)
    assert str(path) in str(caught.value)


def test_size_is_checked_before_reading(tmp_path):
    path = tmp_path / "luca_1.npy"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FaceError, match=r"1,099,511,627,776 bytes; at most 16,777,216 are read"):
        read_reference(path)


def test_a_folder_is_no_reference(tmp_path):
    (tmp_path / "luca.npy").mkdir()
    with pytest.raises(FaceError, match="this is not a file"):
        read_reference(tmp_path / "luca.npy")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_damage_is_read_or_refused(tmp_path, data):
    """Any bytes changed, cut or added: a whole embedding comes out, or a FaceError."""
    good = npy(point(10, 20, 30))
    raw = bytearray(good)
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=6)):
        raw[place] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.sampled_from([len(raw)] * 3 + [7, 30, len(raw) - 5]))]
    raw += data.draw(st.binary(max_size=8))
    path = tmp_path / "luca.npy"
    path.write_bytes(raw)
    with warnings.catch_warnings():
        # NumPy warns of headers that Python 2 wrote, and of type names that are going out of use.
        warnings.simplefilter("ignore")
        outcome = read_or_refused(path)
    if isinstance(outcome, str):
        assert str(path) in outcome
    else:
        assert np.isfinite(outcome).all()
        assert outcome.any(axis=1).all()


def read_or_refused(path):
    try:
        return read_reference(path).vectors
    except FaceError as error:
        return str(error)


def write(path, vector, model=MODEL):
    data = npy(vector)
    crop = np.zeros((4, 4, 3), np.uint8)
    write_reference(path, data, note_of(data, "luca", "a test", model), png_of(crop))


def test_a_note_says_which_model_made_it(tmp_path):
    write(tmp_path / "luca_1.npy", point(30)[0])
    assert read_reference(tmp_path / "luca_1.npy").model == MODEL
    assert np.array_equal(np.load(tmp_path / "luca_1.npy", allow_pickle=False), point(30)[0])
    note = json.loads((tmp_path / "luca_1.json").read_text())
    npy_bytes = (tmp_path / "luca_1.npy").read_bytes()
    assert note["npy_sha256"] == hashlib.sha256(npy_bytes).hexdigest()
    assert note["character"] == "luca"


def test_a_note_of_another_file_is_damage(tmp_path):
    write(tmp_path / "luca_1.npy", point(30)[0])
    np.save(tmp_path / "luca_1.npy", point(31)[0])
    with pytest.raises(FaceError, match=r"luca_1.npy: .*luca_1.json beside it was written for"):
        read_reference(tmp_path / "luca_1.npy")


def test_a_note_with_other_dimensions_is_damage(tmp_path):
    write(tmp_path / "luca_1.npy", np.ones(3, np.float32))
    with pytest.raises(FaceError, match="3 numbers"):
        read_reference(tmp_path / "luca_1.npy")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 50_000,
        '{"format": "animation_studio/face_reference/1"}',
        '{"format": "animation_studio/face_reference/2"}',
    ],
)
def test_a_broken_note_is_named(tmp_path, text):
    np.save(tmp_path / "luca_1.npy", point(30)[0])
    (tmp_path / "luca_1.json").write_text(text)
    with pytest.raises(FaceError, match=r"luca_1\.json: this note"):
        read_reference(tmp_path / "luca_1.npy")


def test_a_model_hash_that_is_none_is_refused(tmp_path):
    write(tmp_path / "luca_1.npy", point(30)[0])
    note = tmp_path / "luca_1.json"
    note.write_text(note.read_text().replace("a" * 64, "unknown"))
    with pytest.raises(FaceError, match=r"model\.sha256"):
        read_reference(tmp_path / "luca_1.npy")


def test_somebody_elses_json_is_left_alone(tmp_path):
    np.save(tmp_path / "luca_1.npy", point(30)[0])
    (tmp_path / "luca_1.json").write_text('{"age": 13}')
    assert read_reference(tmp_path / "luca_1.npy").model is None


def test_a_huge_note_is_refused(tmp_path):
    np.save(tmp_path / "luca_1.npy", point(30)[0])
    (tmp_path / "luca_1.json").write_text(" " * 100_000)
    with pytest.raises(FaceError, match="note of a face reference has 100,000 bytes"):
        read_reference(tmp_path / "luca_1.npy")
