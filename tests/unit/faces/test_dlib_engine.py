"""dlib's engine on real faces. Figures over all pairs are in the assertions' own numbers."""

from __future__ import annotations

import importlib.util
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dlib
import numpy as np
import pytest
from PIL import Image

from animation_studio.errors import FaceError, MissingPackageError
from animation_studio.faces.dlib_engine import DlibEngine
from animation_studio.faces.engine import Face
from animation_studio.files import sha256_of
from tests.support.faces import (
    EDITS,
    KNOWN_FACES,
    different_people,
    portrait,
    same_people,
    who,
)

EASY = [face for face in KNOWN_FACES if not face.hard]
NAMES = sorted({face.picture for face in KNOWN_FACES})
RECOGNISER = "dlib_face_recognition_resnet_model_v1.dat"
USED = (RECOGNISER, "shape_predictor_5_face_landmarks.dat", "mmod_human_face_detector.dat")


def weights_folder():
    spec = importlib.util.find_spec("face_recognition_models")
    return Path(spec.submodule_search_locations[0]) / "models"


@pytest.fixture(scope="module")
def engine():
    return DlibEngine()


@pytest.fixture(scope="module")
def found(engine, face_pictures):
    """The faces of each whole picture, as (known face or None, face)."""
    detected = engine.detect([face_pictures[name] for name in NAMES])
    return {
        name: [(who(name, face.box), face) for face in faces]
        for name, faces in zip(NAMES, detected, strict=True)
    }


@pytest.fixture(scope="module")
def vectors(engine, face_pictures):
    """The embedding of every known face, from a portrait of it."""
    portraits = [portrait(face_pictures, known) for known in KNOWN_FACES]
    crops = [
        engine.align(picture, faces[0])
        for picture, faces in zip(portraits, engine.detect(portraits), strict=True)
    ]
    return dict(zip(KNOWN_FACES, engine.embed(crops), strict=True))


def score(first, second):
    return 1 - float(np.linalg.norm(first - second))


def one_face(engine, picture):
    return engine.embed([engine.align(picture, engine.detect([picture])[0][0])])[0]


def test_what_it_is(engine):
    model = engine.model
    assert (model.engine, model.name) == ("dlib", "face_recognition_resnet_v1")
    assert (model.dimensions, model.metric) == (128, "euclidean")
    assert model.sha256 == sha256_of(weights_folder() / RECOGNISER)
    assert engine.provider in {"dlib CPU", "dlib CUDA"}
    assert (engine.default_threshold, tuple(engine.warnings)) == (0.5, ())


@pytest.mark.parametrize("name", NAMES)
def test_faces_in_whole_pictures(found, name):
    """Every face that is not hard, once, and nothing that is none; the largest first."""
    known = [face for face, _ in found[name]]
    assert None not in known
    assert len(known) == len(set(known))
    assert {face for face in EASY if face.picture == name} <= set(known)
    areas = [face.area for _, face in found[name]]
    assert areas == sorted(areas, reverse=True)


def test_points_lie_in_their_boxes(found):
    for pairs in found.values():
        for known, face in pairs:
            left, top, right, bottom = face.box
            assert len(face.points) == 5
            for x, y in face.points:
                assert left <= x <= right, known
                assert top <= y <= bottom, known


@pytest.mark.parametrize("margin", [0.0, 0.15, 0.4])
def test_faces_that_fill_the_picture(engine, face_pictures, margin):
    """Cut at hair and chin or a little beyond: all, also those in profile and out of focus."""
    pictures = [portrait(face_pictures, known, margin) for known in KNOWN_FACES]
    assert [len(faces) for faces in engine.detect(pictures)] == [1] * len(KNOWN_FACES)


def test_small_faces(engine, face_pictures):
    """t1 at 768 pixels: faces of 60 pixels, under what HOG sees."""
    image = Image.fromarray(face_pictures["t1"])
    small = np.asarray(image.resize((768, 532), Image.Resampling.LANCZOS))
    boxes = [tuple(value / 0.6 for value in face.box) for face in engine.detect([small])[0]]
    assert len({who("t1", box) for box in boxes}) == 6


def test_twenty_faces(engine, face_pictures):
    sheet = Image.new("RGB", (1120, 1120))
    for place, known in enumerate(EASY[:20]):
        tile = Image.fromarray(portrait(face_pictures, known, 0.4)).resize((224, 280))
        sheet.paste(tile, (place % 5 * 224, place // 5 * 280))
    faces = engine.detect([np.asarray(sheet)])[0]
    tiles = {(int(f.points[4][0] // 224), int(f.points[4][1] // 280)) for f in faces}
    assert len(faces) == len(tiles) == 20


@pytest.mark.parametrize(
    "shape", [(16, 16), (1, 1), (1, 5000), (5000, 2), (0, 7), (1024, 1024), (96, 384)]
)
def test_one_colour_at_any_size(engine, shape):
    assert engine.detect([np.full((*shape, 3), 130, np.uint8)]) == [[]]


def test_noise_and_no_pictures(engine):
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert engine.detect([noise]) == [[]]
    assert engine.detect([]) == []
    assert engine.embed([]).shape == (0, 128)


def test_people_are_told_apart(engine, vectors):
    """404 pairs of different people, all under the default threshold; the one genuine pair over."""
    impostor = np.array([score(vectors[a], vectors[b]) for a, b in different_people()])
    genuine = [score(vectors[a], vectors[b]) for a, b in same_people()]
    assert len(impostor) == 404
    assert impostor.mean() < 0.27
    assert impostor.max() < engine.default_threshold < min(genuine)


@pytest.mark.parametrize("edit", EDITS)
def test_edits_keep_the_person(engine, face_pictures, vectors, edit):
    known = [face for face in EASY if face.picture in {"t1", "astronaut"}]
    scores = [
        score(one_face(engine, EDITS[edit](portrait(face_pictures, face))), vectors[face])
        for face in known
    ]
    assert min(scores) > 0.65, dict(zip(known, scores, strict=True))


def test_the_pictures_are_rgb(engine, face_pictures, found):
    """The same as dlib's own chain on the RGB picture; blue for red is further away."""
    picture = face_pictures["astronaut"]
    [(_, face)] = found["astronaut"]
    box = dlib.rectangle(*(round(value) for value in face.box[:2]), 0, 0)
    shape = dlib.full_object_detection(box, [dlib.point(int(x), int(y)) for x, y in face.points])
    network = dlib.face_recognition_model_v1(str(weights_folder() / RECOGNISER))
    wanted = np.array(network.compute_face_descriptor(picture, shape))
    crop = engine.align(picture, face)
    assert (crop.shape, crop.dtype) == ((150, 150, 3), np.uint8)
    np.testing.assert_allclose(engine.embed([crop])[0], wanted, atol=1e-6)
    swapped = engine.embed([crop[:, :, ::-1]])[0]
    assert score(swapped, wanted) < 0.9


def test_batches_are_single_faces(engine, face_pictures, vectors):
    crops = []
    for known in EASY[:7]:
        picture = portrait(face_pictures, known)
        crops.append(engine.align(picture, engine.detect([picture])[0][0]))
    together = engine.embed(crops)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, [vectors[known] for known in EASY[:7]], atol=1e-5)


def test_several_threads(engine, face_pictures):
    pictures = [portrait(face_pictures, known) for known in EASY[:6]]
    pictures.append(np.zeros((128, 128, 3), np.uint8))
    alone = engine.detect(pictures)
    crops = [engine.align(p, faces[0]) for p, faces in zip(pictures[:3], alone, strict=False)]
    embedded = engine.embed(crops)
    with ThreadPoolExecutor(6) as pool:
        found = [pool.submit(engine.detect, pictures) for _ in range(3)]
        known = [pool.submit(engine.embed, crops) for _ in range(3)]
    for one in found:
        assert one.result() == alone
    for one in known:
        np.testing.assert_array_equal(one.result(), embedded)


def test_views_that_are_not_contiguous(engine, face_pictures):
    picture = portrait(face_pictures, EASY[0])
    turned = np.ascontiguousarray(picture[:, ::-1])[:, ::-1]
    assert not turned.flags.c_contiguous
    assert engine.detect([turned]) == engine.detect([picture])
    face = engine.detect([picture])[0][0]
    np.testing.assert_array_equal(engine.align(turned, face), engine.align(picture, face))


def test_points_in_one_place(engine):
    face = Face((0.0, 0.0, 9.0, 9.0), 1.0, ((4.0, 4.0),) * 5)
    with pytest.raises(FaceError, match="not apart from each other"):
        engine.align(np.zeros((16, 16, 3), np.uint8), face)


def test_a_crop_of_another_engine(engine):
    with pytest.raises(FaceError, match="150x150"):
        engine.embed([np.zeros((112, 112, 3), np.uint8)])


@pytest.fixture
def own_weights(tmp_path, monkeypatch):
    """A package face_recognition_models of the test's own, which is found first."""
    models = tmp_path / "face_recognition_models" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("import pkg_resources_that_is_not_there\n")
    for name in USED:
        (models / name).symlink_to(weights_folder() / name)
    monkeypatch.syspath_prepend(tmp_path)
    return models


def test_the_package_of_weights_is_not_imported_nor_its_68_points_used(own_weights, engine):
    assert DlibEngine().model == engine.model


@pytest.mark.parametrize("name", USED)
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", None])
def test_damaged_weights(own_weights, name, content):
    """Empty, a web page, or cut in the middle."""
    whole = (weights_folder() / name).read_bytes()
    (own_weights / name).unlink()
    (own_weights / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(FaceError, match=rf"{name}: dlib cannot read.*pip install"):
        DlibEngine()


def test_missing_weights(own_weights):
    (own_weights / RECOGNISER).unlink()
    with pytest.raises(FaceError, match=RECOGNISER):
        DlibEngine()
    shutil.rmtree(own_weights)
    with pytest.raises(MissingPackageError, match="pip install dlib-bin face_recognition_models"):
        DlibEngine()
