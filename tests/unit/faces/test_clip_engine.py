from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from animation_studio.errors import FaceError
from animation_studio.faces.clip_engine import ClipEngine
from animation_studio.faces.engine import ModelId
from tests.support.square_faces import SquareFaces, painted

MODEL = ModelId("clip_vision", "tiny", "c" * 64, 3, "cosine")


def mean_colours(crops):
    """An encoder whose vector of a picture is its mean red, green and blue."""
    return np.stack([crop.reshape(-1, 3).mean(axis=0) for crop in crops]).astype(np.float32)


def test_it_is_made_of_both():
    engine = ClipEngine(SquareFaces(warnings=["slow"]), mean_colours, MODEL)
    assert engine.model is MODEL
    assert engine.provider == "ComfyUI, faces found by squares CPU"
    assert list(engine.warnings) == ["slow"]
    assert 0 < engine.default_threshold < 1
    picture = painted((10, 10, 20, 0), (60, 40, 30, 90))
    assert [face.box for face in engine.detect([picture])[0]] == [
        (60.0, 40.0, 90.0, 70.0),
        (10.0, 10.0, 30.0, 30.0),
    ]


def test_the_crop_has_the_hair_around_the_face():
    engine = ClipEngine(SquareFaces(), mean_colours, MODEL)
    picture = painted((40, 40, 40, 200))
    crop = engine.align(picture, engine.detect([picture])[0][0])
    assert (crop.shape, crop.dtype) == ((224, 224, 3), np.uint8)
    # A face of 40 in a square of 64: 0.3 of it remain on every side, in RGB.
    assert crop[112, 112].tolist() == [200, 0, 200]
    assert crop[20, 112].tolist() == crop[112, 200].tolist() == [90, 90, 90]
    inside = (crop[..., 0] > 145).sum() / crop[..., 0].size
    assert inside == pytest.approx((1 / 1.6) ** 2, abs=0.02)


def test_a_large_face_keeps_no_jagged_edges():
    """Stripes of one pixel become grey when a face of 1400 pixels is shrunk."""
    picture = painted((300, 300, 1400, 200), size=(2000, 2000))
    face = SquareFaces().detect([picture])[0][0]
    picture[:, ::2] = 0
    crop = ClipEngine(SquareFaces(), mean_colours, MODEL).align(picture, face)
    assert np.ptp(crop[60:160, 60:160, 0].astype(int)) < 60


def test_a_face_at_the_border_is_completed_with_black():
    engine = ClipEngine(SquareFaces(), mean_colours, MODEL)
    picture = painted((0, 0, 40, 200))
    crop = engine.align(picture, engine.detect([picture])[0][0])
    assert not crop[:38, :38].any()
    assert crop[112, 112].tolist() == [200, 0, 200]


def test_vectors_have_length_one():
    engine = ClipEngine(SquareFaces(), mean_colours, MODEL)
    crops = [np.full((224, 224, 3), (30, 40, 0), np.uint8), np.zeros((224, 224, 3), np.uint8)]
    vectors = engine.embed(crops)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8, 0], [0, 0, 0]], atol=1e-6)
    assert engine.embed([]).shape == (0, 3)


def test_what_the_encoder_gave_is_not_written_to():
    given = np.array([[3.0, 4.0, 0.0]], np.float32)
    engine = ClipEngine(SquareFaces(), lambda _: given, MODEL)
    engine.embed([np.zeros((224, 224, 3), np.uint8)])
    assert given.tolist() == [[3.0, 4.0, 0.0]]


@pytest.mark.parametrize("shape", [(1, 4), (2, 3), (3,), (1, 5, 3)])
def test_an_encoder_of_another_form(shape):
    engine = ClipEngine(SquareFaces(), lambda _: np.ones(shape, np.float32), MODEL)
    with pytest.raises(FaceError, match=r"gave vectors of shape .* for 1 faces"):
        engine.embed([np.zeros((224, 224, 3), np.uint8)])


def test_real_faces_of_one_photograph(face_pictures):
    """With dlib to find them: as many crops as faces, each upright, with the face in the middle."""
    from animation_studio.faces.dlib_engine import DlibEngine

    engine = ClipEngine(DlibEngine(), mean_colours, MODEL)
    picture = face_pictures["astronaut"]
    [face] = engine.detect([picture])[0]
    crop = engine.align(picture, face)
    left, top, right, bottom = face.box
    side = (right - left) * 1.6
    middle = (left + right) / 2, (top + bottom) / 2
    box = tuple(round(value) for at in (-1, 1) for value in (m + at * side / 2 for m in middle))
    wanted = Image.fromarray(picture).crop(box).resize((224, 224), Image.Resampling.BILINEAR)
    assert np.abs(crop.astype(int) - np.asarray(wanted)).mean() < 4
