"""Scores by hand, and what must hold of them for any embeddings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from animation_studio.errors import FaceError
from animation_studio.faces.similarity import normalised, score_against, similarities
from tests.support.square_faces import point

ANGLES = st.lists(st.integers(0, 359), min_size=1, max_size=6)


def cos(degrees):
    return np.cos(np.radians(degrees))


@pytest.mark.parametrize(
    ("rule", "k", "expected"),
    [
        ("max", 3, cos(10)),
        ("mean of best k", 1, cos(10)),
        ("mean of best k", 2, (cos(10) + cos(20)) / 2),
        ("mean of best k", 99, (cos(10) + cos(20) + cos(90)) / 3),
        ("mean of best k", 0, cos(10)),
    ],
)
def test_rules_on_cosines(rule, k, expected):
    scores = score_against(point(0), point(20, 90, 10), "cosine", rule, k)
    assert scores.dtype == np.float32
    assert scores == pytest.approx([expected], abs=1e-6)


def test_the_centroid_of_cosine_is_normalised_again():
    # The mean of two unit vectors is shorter than 1; the angle to it is what counts.
    assert score_against(point(30), point(0, 60), "cosine", "centroid") == pytest.approx([1.0])


def test_the_length_of_a_cosine_vector_means_nothing():
    references = point(0, 60) * np.float32([[0.001], [500]])
    for rule in ("max", "mean of best k", "centroid"):
        expected = score_against(point(10), point(0, 60), "cosine", rule)
        assert score_against(point(10) * 7, references, "cosine", rule) == pytest.approx(
            expected, abs=1e-6
        )


def test_euclidean_is_one_minus_distance_and_its_centroid_the_plain_mean():
    face = np.float32([[3, 4]])
    references = np.float32([[0, 0], [3, 3]])
    assert score_against(face, references, "euclidean", "max") == pytest.approx([0.0])
    assert score_against(face, references, "euclidean", "mean of best k", 2) == pytest.approx([-2])
    center = 1 - np.hypot(1.5, 2.5)
    assert score_against(face, references, "euclidean", "centroid") == pytest.approx([center])


@settings(deadline=None)
@given(ANGLES, ANGLES)
def test_equal_is_one_and_no_rule_exceeds_the_nearest(faces, references):
    for metric in ("cosine", "euclidean"):
        table = similarities(point(*faces), point(*references), metric)
        assert table.shape == (len(faces), len(references))
        assert table.max() <= 1
        best = score_against(point(*faces), point(*references), metric, "max")
        assert np.array_equal(best, table.max(axis=1))
        mean = score_against(point(*faces), point(*references), metric, "mean of best k", 2)
        assert (mean <= best + 1e-6).all()
        assert similarities(point(*faces), point(*faces), metric).diagonal() == pytest.approx(1)


@pytest.mark.parametrize("bad", [np.zeros((1, 2)), np.full((1, 2), np.nan), [[np.inf, 0]]])
def test_a_vector_without_direction_is_refused(bad):
    with pytest.raises(FaceError, match="all zeros or not finite"):
        normalised(np.float32(bad))


def test_opposite_references_have_no_centroid():
    with pytest.raises(FaceError, match="cannot be compared"):
        score_against(point(0), np.float32([[1, 0], [-1, 0]]), "cosine", "centroid")


def test_other_shapes_and_no_references_are_refused():
    with pytest.raises(FaceError, match=r"\[1, 2\] and references of shape \[1, 3\]"):
        score_against(point(0), np.ones((1, 3), np.float32), "cosine", "max")
    with pytest.raises(FaceError, match="no references"):
        score_against(point(0), np.empty((0, 2), np.float32), "cosine", "max")


def test_no_faces_have_no_scores():
    for rule in ("max", "mean of best k", "centroid"):
        assert score_against(point(), point(1), "cosine", rule).shape == (0,)
