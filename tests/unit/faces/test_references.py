"""A character's references: kept, found again, refused by name."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from animation_studio.errors import FaceError
from animation_studio.faces import reference_file
from animation_studio.faces.references import (
    NewReference,
    load_references,
    save_references,
    stored_references,
)
from tests.support.square_faces import painted, point, square_model

MODEL = square_model()
CROP = painted((0, 0, 16, 30), size=(16, 16))


def new(*angles):
    return [NewReference(point(angle)[0], CROP, f"angle {angle}") for angle in angles]


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_saved_references_load_again(tmp_path):
    saved = save_references(tmp_path, "luca", new(10, 20, 30), MODEL)
    assert [one.path.name for one in saved] == ["luca_1.npy", "luca_2.npy", "luca_3.npy"]
    assert all(one.fresh for one in saved)
    references = load_references("luca", "Luca", stored_references(tmp_path, "luca"), MODEL)
    assert np.array_equal(references.vectors, point(10, 20, 30))
    assert references.files == ("luca_1.npy", "luca_2.npy", "luca_3.npy")
    assert (references.character, references.name, references.model) == ("luca", "Luca", MODEL)
    assert references.warnings == ()
    with Image.open(tmp_path / "luca" / "luca_2.png") as crop:
        assert np.array_equal(np.asarray(crop), CROP)
    note = json.loads((tmp_path / "luca" / "luca_2.json").read_text())
    assert note["source"] == "angle 20"


def test_the_same_face_is_saved_once(tmp_path):
    first = save_references(tmp_path, "luca", new(10), MODEL)
    again = save_references(tmp_path, "luca", new(10, 20, 20), MODEL)
    assert [(one.path.name, one.fresh) for one in again] == [
        ("luca_1.npy", False),
        ("luca_2.npy", True),
        ("luca_2.npy", False),
    ]
    assert again[0].path == first[0].path
    # Another model's vectors do not compare, so its file is another one.
    other = save_references(tmp_path, "luca", new(10), square_model(digit="b"))
    assert [(one.path.name, one.fresh) for one in other] == [("luca_3.npy", True)]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_almost_the_same_is_the_same_and_alike_is_not(tmp_path, metric):
    model = square_model(metric=metric)
    (one,) = save_references(tmp_path, "luca", new(10), model)
    assert [s.fresh for s in save_references(tmp_path, "luca", new(11), model)] == [False]
    assert [s.fresh for s in save_references(tmp_path, "luca", new(13), model)] == [True]
    assert one.fresh


def test_numbers_follow_the_highest_of_any_file(tmp_path):
    folder = tmp_path / "luca"
    folder.mkdir()
    for name in ("luca_7.png", "luca_face_9.npy", "other_12.npy", "LUCA_8.json", "luca_x.npy"):
        (folder / name).write_bytes(b"the user's own")
    (saved,) = save_references(tmp_path, "luca", new(10), MODEL)
    assert saved.path.name == "luca_9.npy"
    assert (folder / "luca_7.png").read_bytes() == b"the user's own"


def test_stored_references_are_in_natural_order(tmp_path):
    assert stored_references(tmp_path, "luca") == []
    folder = tmp_path / "luca"
    folder.mkdir()
    names = ["luca_1.npy", "luca_2.npy", "luca_10.npy", "luca_face_1.npy", "old.NPY"]
    for name in [*reversed(names), "luca_1.json", "luca_1.png", ".luca_3.npy.x.part", ".x.npy"]:
        (folder / name).touch()
    (folder / "folder.npy").mkdir()
    assert [path.name for path in stored_references(tmp_path, "luca")] == names


UNSAFE = [
    *("", " ", ".", "..", "...", "../luca", "a/b", "a\\b", "/luca", "C:luca", "luca.", " luca"),
    *("luca ", "con", "CON", "nul.old", "Com1", "LPT9", "lpt³", "a\0b", "a\nb", "a*", "a?", 'a"'),
    *("<a>", "a|b", "x" * 300, "é" * 91, "\ud800", ".hidden", "-rf"),
]


@pytest.mark.parametrize("character", UNSAFE)
def test_ids_that_are_no_file_names_are_refused(tmp_path, character):
    for use in (
        lambda: save_references(tmp_path / "in", character, new(1), MODEL),
        lambda: stored_references(tmp_path / "in", character),
    ):
        with pytest.raises(FaceError, match="Character id"):
            use()
    assert tree(tmp_path) == []


@pytest.mark.parametrize(
    "character", ["luca", "Luca Paguro", "卢卡", "é", "console", "com10", "a.b"]
)
def test_other_ids_are_folders(tmp_path, character):
    save_references(tmp_path, character, new(1), MODEL)
    assert [path.name for path in stored_references(tmp_path, character)] == [f"{character}_1.npy"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(character=st.text(min_size=1, max_size=12))
def test_no_id_leads_outside(tmp_path, character):
    try:
        found = stored_references(tmp_path / "in", character)
    except FaceError:
        return
    assert found == []
    assert (tmp_path / "in" / character).parent == tmp_path / "in"


class PowerCut(BaseException):
    """What no except clause of the library expects."""


@pytest.mark.parametrize("fails_at", [1, 2, 3])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PowerCut()])
def test_an_interrupted_save_leaves_nothing_of_it(tmp_path, monkeypatch, fails_at, error):
    save_references(tmp_path, "luca", new(10), MODEL)
    before = tree(tmp_path)
    calls = []
    write = reference_file.write_atomically

    def failing(path, data):
        calls.append(path)
        if len(calls) == fails_at:
            raise error
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(reference_file, "write_atomically", failing)
        expected = FaceError if isinstance(error, OSError) else PowerCut
        with pytest.raises(expected):
            save_references(tmp_path, "luca", new(50), MODEL)
    assert tree(tmp_path) == before
    assert [one.fresh for one in save_references(tmp_path, "luca", new(50), MODEL)] == [True]


def test_the_reference_counts_only_once_its_note_is_there(tmp_path, monkeypatch):
    order = []
    write = reference_file.write_atomically
    monkeypatch.setattr(
        reference_file,
        "write_atomically",
        lambda path, data: (order.append(path.suffix), write(path, data)),
    )
    save_references(tmp_path, "luca", new(10), MODEL)
    assert order[-1] == ".npy"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "luca").write_text("a file in the way")
    with pytest.raises(FaceError, match=r"luca"):
        save_references(tmp_path, "luca", new(10), MODEL)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.ones(3, np.float32), r"float32 \[2\], and the one from here is float32 \[3\]"),
        (np.ones(2, np.float64), "float64"),
        (np.zeros(2, np.float32), "no usable embedding"),
        (np.float32([np.nan, 1]), "no usable embedding"),
    ],
)
def test_what_is_no_embedding_is_not_saved(tmp_path, vector, message):
    with pytest.raises(FaceError, match=message):
        save_references(tmp_path, "luca", [NewReference(vector, CROP, "here")], MODEL)
    with pytest.raises(FaceError, match="not RGB"):
        save_references(tmp_path, "luca", [NewReference(point(1)[0], CROP[..., 0], "x")], MODEL)
    assert tree(tmp_path) == []


def test_another_models_references_are_left_out_by_name(tmp_path):
    other = square_model(engine="dlib", digit="b")
    save_references(tmp_path, "luca", new(10), MODEL)
    save_references(tmp_path, "luca", new(10), other)
    references = load_references("luca", "Luca", stored_references(tmp_path, "luca"), MODEL)
    assert references.files == ("luca_1.npy",)
    (warning,) = references.warnings
    assert "luca_2.npy" in warning
    assert "made by dlib squares (bbbbbbbb)" in warning


def test_when_no_reference_fits_the_error_says_what_to_do(tmp_path):
    save_references(tmp_path, "luca", new(10, 20), square_model(digit="b"))
    files = [*stored_references(tmp_path, "luca"), tmp_path / "gone.npy"]
    with pytest.raises(FaceError) as caught:
        load_references("luca", "Luca Paguro", files, MODEL)
    message = str(caught.value)
    for part in (
        "Luca Paguro (luca)",
        "luca_1.npy, luca_2.npy: made by insightface squares (bbbbbbbb)",
        "insightface squares (aaaaaaaa)",
        "gone.npy",
        "Face References node",
        "choose the engine",
    ):
        assert part in message


def test_missing_files_are_named(tmp_path):
    save_references(tmp_path, "luca", new(10), MODEL)
    files = [tmp_path / "a.npy", *stored_references(tmp_path, "luca"), tmp_path / "b.npy"]
    references = load_references("luca", "Luca", files, MODEL)
    (warning,) = references.warnings
    assert str(tmp_path / "a.npy") in warning
    assert "b.npy" in warning
    with pytest.raises(FaceError, match=r"not there: .*a\.npy, b\.npy"):
        load_references("luca", "Luca", [files[0], files[2]], MODEL)
    with pytest.raises(FaceError, match=r"has no face reference .*Face References node"):
        load_references("luca", "Luca", [], MODEL)


def test_plain_files_count_with_a_warning_where_people_have_them(tmp_path):
    path = tmp_path / "luca_face_1.npy"
    np.save(path, np.concatenate([point(10) * 20, point(20) * 3]))
    references = load_references("luca", "Luca", [path, path], MODEL)
    assert references.vectors == pytest.approx(point(10, 20), abs=1e-6)
    assert references.files == ("luca_face_1.npy #1", "luca_face_1.npy #2")
    (warning,) = references.warnings
    assert "luca_face_1.npy: who made this reference isn't known" in warning
    # Many models make vectors of one length; of CLIP's a plain file proves nothing.
    with pytest.raises(FaceError, match="who made it isn't known"):
        load_references("luca", "Luca", [path], square_model(engine="clip_vision"))


def test_a_plain_file_of_another_length_is_of_another_model(tmp_path):
    path = tmp_path / "luca.npy"
    np.save(path, np.ones(3, np.float32))
    with pytest.raises(FaceError, match="3 numbers, not 2"):
        load_references("luca", "Luca", [path], MODEL)


def test_euclidean_vectors_keep_their_length(tmp_path):
    path = tmp_path / "luca.npy"
    np.save(path, point(10) * 2)
    references = load_references("luca", "Luca", [path], square_model("dlib", "euclidean"))
    assert references.vectors == pytest.approx(point(10) * 2)


def test_one_damaged_file_stops_and_is_named(tmp_path):
    save_references(tmp_path, "luca", new(10, 20), MODEL)
    (tmp_path / "luca" / "luca_2.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(FaceError, match=r"luca_2\.npy"):
        load_references("luca", "Luca", stored_references(tmp_path, "luca"), MODEL)
    # It does not stand in the way of making new ones.
    assert [one.fresh for one in save_references(tmp_path, "luca", new(20), MODEL)] == [True]


def test_an_unreadable_file_is_an_error_of_its_own(tmp_path):
    path = tmp_path / "luca.npy"
    path.symlink_to(path)
    with pytest.raises(FaceError, match=r"luca\.npy: this face reference cannot be read: Too many"):
        load_references("luca", "Luca", [path], MODEL)
