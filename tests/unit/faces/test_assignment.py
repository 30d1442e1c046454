"""Assignment against all possible assignments."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from animation_studio.errors import FaceError
from animation_studio.faces.assignment import assign

SCORES = st.tuples(st.integers(1, 5), st.integers(1, 4)).flatmap(
    lambda shape: arrays.arrays(
        np.float32, shape, elements=st.floats(-1, 1, width=32).map(lambda x: round(x, 2))
    )
)


def merit(scores, thresholds, places):
    pairs = [(face, subject) for subject, face in enumerate(places) if face is not None]
    passing = sum(float(scores[face, subject]) >= thresholds[subject] for face, subject in pairs)
    return passing, sum(float(scores[face, subject]) for face, subject in pairs)


def every_assignment(faces, subjects):
    if faces >= subjects:
        yield from itertools.permutations(range(faces), subjects)
        return
    for chosen in itertools.permutations(range(subjects), faces):
        yield [chosen.index(subject) if subject in chosen else None for subject in range(subjects)]


@settings(deadline=None)
@given(SCORES, st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_most_pass_and_then_the_sum_is_highest(scores, thresholds):
    faces, subjects = scores.shape
    places = assign(scores, thresholds[:subjects])
    given_faces = [place for place in places if place is not None]
    assert len(set(given_faces)) == len(given_faces) == min(faces, subjects)
    passing, total = merit(scores, thresholds, places)
    best = max(merit(scores, thresholds, one) for one in every_assignment(faces, subjects))
    assert passing == best[0]
    assert total == pytest.approx(best[1], abs=1e-5)


def test_two_that_pass_beat_a_higher_sum():
    scores = np.float32([[0.99, 0.66], [0.66, 0.10]])
    assert assign(scores, [0.65, 0.65]) == [1, 0]
    # Without thresholds in reach the sum decides.
    assert assign(scores, [2.0, 2.0]) == [1, 0]
    assert assign(np.float32([[0.99, 0.60], [0.66, 0.50]]), [0.65, 0.65]) == [0, 1]


def test_each_face_is_given_once():
    assert assign(np.float32([[0.9, 0.8]]), [0.5, 0.5]) == [0, None]
    assert assign(np.empty((0, 2), np.float32), [0.5, 0.5]) == [None, None]
    assert assign(np.float32([[0.5, 0.5], [0.5, 0.5]]), [0.5, 0.5]) in ([0, 1], [1, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    with pytest.raises(FaceError, match="not a finite number"):
        assign(np.float32([[bad]]), [0.5])
