from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from insightface.utils import face_align

from animation_studio.errors import FaceError
from animation_studio.faces.align import (
    ARCFACE_POINTS,
    arcface_points,
    box_square,
    check_points,
    similarity,
    warp,
    warp_smooth,
)
from animation_studio.faces.engine import Face

# insightface 2.1 calls what scikit-image 0.26 renames.
pytestmark = pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")
TEMPLATE = np.array(ARCFACE_POINTS)


def placed(scale, turn, centre):
    """The template's points, enlarged, turned by radians and put around `centre`."""
    turned = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return (TEMPLATE - 56) @ turned * scale + centre


def apply(matrix, points):
    return np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]


@given(
    scale=st.floats(0.05, 20),
    turn=st.floats(-math.pi, math.pi),
    x=st.floats(-5000, 5000),
    y=st.floats(-5000, 5000),
)
def test_a_similarity_is_found_again(scale, turn, x, y):
    points = placed(scale, turn, (x, y))
    matrix = similarity(points, TEMPLATE)
    np.testing.assert_allclose(apply(matrix, points), TEMPLATE, atol=1e-6)
    assert math.hypot(matrix[0, 0], matrix[1, 0]) == pytest.approx(1 / scale)


def test_a_mirrored_face_is_never_mirrored_back():
    """The nearest turn and scale without a reflection, as Umeyama's has it."""
    mirrored = TEMPLATE * (-1, 1)
    matrix = similarity(mirrored, TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) > 0
    np.testing.assert_allclose(matrix, face_align.estimate_norm(mirrored), atol=1e-4)


@pytest.mark.parametrize("scale", [0.2, 0.5, 1, 2, 4])
@pytest.mark.parametrize("centre", [(200, 200), (0, 0), (1280, 886), (-60, 30), (640, 890)])
def test_crops_are_those_of_insightface(face_pictures, scale, centre):
    """Also where the face reaches over the border, and at sizes from 22 to 450 pixels."""
    rng = np.random.default_rng(round(scale * 10))
    picture = face_pictures["t1"]
    points = placed(scale, rng.uniform(-1, 1), centre) + rng.normal(0, scale, (5, 2))
    matrix = similarity(points, ARCFACE_POINTS)
    np.testing.assert_allclose(matrix, face_align.estimate_norm(points), atol=1e-3)
    ours, theirs = warp(picture, matrix, 112), face_align.norm_crop(picture, points)
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs).max() <= 2


@pytest.mark.parametrize("side", [112, 128, 224, 256])
def test_other_sides_follow_insightface(side):
    points = placed(3, 0.2, (300, 300))
    matrix = similarity(points, arcface_points(side))
    np.testing.assert_allclose(matrix, face_align.estimate_norm(points, side), atol=1e-3)


def test_a_side_that_arcface_does_not_know():
    with pytest.raises(FaceError, match="100x100"):
        arcface_points(100)


@pytest.mark.parametrize(
    "points",
    [
        [(5.0, 5.0)] * 5,
        [(float("nan"), 1.0), *ARCFACE_POINTS[1:]],
        [(float("inf"), 1.0), *ARCFACE_POINTS[1:]],
        [(1.0, 2.0, 3.0)] * 5,
        [1.0, 2.0],
    ],
)
def test_points_that_are_no_face(points):
    with pytest.raises(FaceError, match="points of a face"):
        similarity(points, ARCFACE_POINTS)
    with pytest.raises(FaceError, match="points of a face"):
        check_points(points)


def test_a_matrix_without_an_inverse():
    with pytest.raises(FaceError, match="one place or on one line"):
        warp(np.zeros((9, 9, 3), np.uint8), np.zeros((2, 3)), 112)


def test_channels_keep_their_order_and_outside_is_black():
    picture = np.full((50, 50, 3), (10, 120, 250), np.uint8)
    crop = warp(picture, np.array([[1.0, 0, 20], [0, 1.0, 20]]), 112)
    assert crop[40, 40].tolist() == [10, 120, 250]
    assert not crop[:19].any()
    assert not crop[:, 71:].any()


def test_nothing_of_the_picture_in_the_crop():
    picture = np.full((50, 50, 3), 200, np.uint8)
    assert not warp(picture, np.array([[1.0, 0, 9000], [0, 1.0, 0]]), 112).any()


def test_shrunk_pixels_are_averaged():
    noise = np.random.default_rng(1).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    matrix = box_square(Face((100.0, 100.0, 300.0, 300.0), 1.0, ()), 2.0, 50)
    smooth, plain = warp_smooth(noise, matrix, 50), warp(noise, matrix, 50)
    assert smooth.std() < plain.std() / 2
    assert smooth.mean() == pytest.approx(noise.mean(), abs=1)


@pytest.mark.parametrize("length", [30, 120, 700])
def test_a_square_around_a_box(length):
    """What fills the box fills the middle 1/1.6 of the crop, whatever its size."""
    picture = np.zeros((1200, 1200, 3), np.uint8)
    left, top = 250, 150
    picture[top : top + length, left : left + length // 2] = 255
    face = Face((left, top, left + length // 2, top + length), 1.0, ())
    crop = warp_smooth(picture, box_square(face, 1.6, 224), 224)[..., 0]
    rows, columns = np.nonzero(crop > 127)
    assert abs(rows.min() - 42) <= 2
    assert abs(rows.max() - 181) <= 2
    assert abs(columns.min() - 77) <= 2
    assert abs(columns.max() - 146) <= 2


@pytest.mark.parametrize("box", [(5.0, 5.0, 5.0, 9.0), (0.0, 0.0, float("nan"), 4.0), (9, 9, 1, 1)])
def test_a_box_that_is_none(box):
    with pytest.raises(FaceError, match="box"):
        box_square(Face(box, 1.0, ()), 1.6, 224)


def test_the_same_convention_as_opencv_resize():
    """A picture drawn smaller by the matrix of its whole box lies where cv2.resize puts it."""
    rng = np.random.default_rng(3)
    small = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
    matrix = box_square(Face((0.0, 0.0, 28.0, 28.0), 1.0, ()), 1.0, 112)
    ours = warp(small, matrix, 112)[4:-4, 4:-4].astype(int)
    theirs = cv2.resize(small, (112, 112), interpolation=cv2.INTER_LINEAR)[4:-4, 4:-4]
    assert np.abs(ours - theirs).max() <= 2
