"""Our Canny against OpenCV's, bit by bit."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageFilter

from animation_studio.control.canny import canny
from animation_studio.errors import ControlError


def shapes(side):
    sides = st.integers(1, side)
    return st.tuples(sides, sides) | st.tuples(sides, sides, st.just(3))


@given(
    image=arrays.arrays(np.uint8, shapes(12)),
    low=st.floats(0, 1200),
    high=st.floats(0, 1200),
)
@settings(max_examples=300, deadline=None)
def test_any_picture(image, low, high):
    assert np.array_equal(canny(image, low, high), cv2.Canny(image, low, high))


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=shapes(90),
    values=st.sampled_from((2, 6, 40, 256)),
    low=st.integers(0, 300),
    high=st.integers(0, 300),
)
@settings(max_examples=200, deadline=None)
def test_noise_with_many_ties(seed, shape, values, low, high):
    image = np.random.default_rng(seed).integers(0, values, shape, dtype=np.uint8)
    assert np.array_equal(canny(image, low, high), cv2.Canny(image, low, high))


@pytest.mark.parametrize("thresholds", [(100, 200), (30, 90), (0, 0), (400, 500), (200, 100)])
def test_photographs(photos, thresholds):
    for name, photo in photos.items():
        assert np.array_equal(canny(photo, *thresholds), cv2.Canny(photo, *thresholds)), name


def test_an_enlarged_and_softened_photograph(photos):
    photo = Image.fromarray(photos["astronaut.png"]).resize((1216, 832), Image.Resampling.BICUBIC)
    image = np.array(photo.filter(ImageFilter.GaussianBlur(2)))
    edges = canny(image, 20, 60)
    assert edges.any()
    assert np.array_equal(edges, cv2.Canny(image, 20, 60))


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (1, 9), (9, 1, 3), (2, 2)])
def test_tiny_pictures(shape):
    image = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape) * 25
    edges = canny(image, 10, 20)
    assert edges.shape == shape[:2]
    assert edges.dtype == np.uint8
    assert np.array_equal(edges, cv2.Canny(image, 10, 20))


def test_one_pixel_has_no_edges():
    assert canny(np.full((1, 1, 3), 200, np.uint8), 0, 0).tolist() == [[0]]


def test_the_picture_is_not_changed(photos):
    photo = photos["coffee.png"].copy()
    canny(photo, 100, 200)
    assert np.array_equal(photo, photos["coffee.png"])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.float32), "float32"),
        (np.zeros((4, 4, 4), np.uint8), r"\[4, 4, 4\]"),
        (np.zeros((4,), np.uint8), r"\[4\]"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
    ],
)
def test_other_arrays_are_refused(image, message):
    with pytest.raises(ControlError, match=message):
        canny(image, 100, 200)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, True])
def test_other_thresholds_are_refused(value):
    image = np.zeros((4, 4), np.uint8)
    with pytest.raises(ControlError, match="low threshold"):
        canny(image, value, 200)
    with pytest.raises(ControlError, match="high threshold"):
        canny(image, 100, value)
