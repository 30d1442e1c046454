import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from animation_studio.control.draw import draw_pose
from animation_studio.control.poses import PoseLibrary
from animation_studio.control.skeleton import Keypoint, Person, Pose
from animation_studio.errors import ControlError


def iou(first, second):
    """Overlap of what is not black, 0 to 1."""
    a, b = first.any(axis=2), second.any(axis=2)
    return (a & b).sum() / (a | b).sum()


def difference(first, second):
    """Mean absolute difference of the values 0..255."""
    return np.abs(first.astype(int) - second).mean()


def random_person(rng, *, parts):
    center = rng.uniform(120, 380, 2)

    def points(count, spread):
        places = np.clip(center + rng.uniform(-spread, spread, (count, 2)), 6, 505)
        return tuple(Keypoint(x, y) for x, y in places.tolist())

    if not parts:
        return Person(body=points(18, 200))
    return Person(
        body=points(18, 200),
        hand_left=points(21, 50),
        hand_right=points(21, 50),
        face=points(70, 60),
    )


def annotated(util, keypoint, person, width, height):
    """What the real annotator draws for a person in pixels."""

    def converted(points):
        return points and [
            None if p is None else keypoint(p.x / width, p.y / height) for p in points
        ]

    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    canvas = util.draw_bodypose(canvas, converted(person.body))
    canvas = util.draw_handpose(canvas, converted(person.hand_left))
    canvas = util.draw_handpose(canvas, converted(person.hand_right))
    return util.draw_facepose(canvas, converted(person.face))


@pytest.fixture(scope="module")
def draw_as_annotator(annotator):
    util, body = annotator("open_pose.util"), annotator("open_pose.body")
    return lambda *args: annotated(util, body.Keypoint, *args)


@pytest.fixture(scope="module")
def library(shipped_poses):
    return PoseLibrary([shipped_poses])


@pytest.mark.parametrize("size", [(512, 512), (512, 768), (704, 512)])
def test_bodies_are_those_of_the_annotator(draw_as_annotator, size):
    rng = np.random.default_rng(1)
    for _ in range(20):
        person = random_person(rng, parts=False)
        theirs = draw_as_annotator(person, *size)
        pose = Pose(canvas_width=size[0], canvas_height=size[1], people=(person,))
        ours = draw_pose(pose, *size)
        assert iou(ours, theirs) > 0.995
        assert difference(ours, theirs) < 0.02


def test_hands_and_faces_are_those_of_the_annotator(draw_as_annotator):
    rng = np.random.default_rng(2)
    for _ in range(20):
        person = random_person(rng, parts=True)
        theirs = draw_as_annotator(person, 512, 512)
        ours = draw_pose(Pose(canvas_width=512, canvas_height=512, people=(person,)), 512, 512)
        assert iou(ours, theirs) > 0.99
        assert difference(ours, theirs) < 0.2


def test_shipped_poses_are_drawn_as_by_the_annotator(draw_as_annotator, library):
    for name in library.names():
        pose = library.load(name)
        ours = draw_pose(pose, 512, 512)
        theirs = np.zeros_like(ours)
        for person in pose.people:
            halved = Person(
                **{
                    part: points and tuple(p and Keypoint(p.x / 2, p.y / 2) for p in points)
                    for part, points in person
                }
            )
            layer = draw_as_annotator(halved, 512, 512)
            theirs = np.where(layer.any(axis=2, keepdims=True), layer, theirs)
        assert iou(ours, theirs) > 0.99, name
        assert difference(ours, theirs) < 0.1, name


@pytest.mark.parametrize("factor", [2, 3])
def test_a_larger_map_is_the_annotators_map_enlarged(draw_as_annotator, library, factor):
    person = library.load("waving").people[0]
    small = Person(
        **{
            part: points and tuple(p and Keypoint(p.x / 2, p.y / 2) for p in points)
            for part, points in person
        }
    )
    theirs = draw_as_annotator(small, 512, 512)
    enlarged = theirs.repeat(factor, axis=0).repeat(factor, axis=1)
    ours = draw_pose(library.load("waving"), 512 * factor, 512 * factor)
    assert iou(ours, enlarged) > 0.85
    # As wide as there: the same share of the map is not black.
    assert ours.any(axis=2).mean() == pytest.approx(theirs.any(axis=2).mean(), rel=0.08)


def test_the_canvas_is_fitted_and_centred():
    dot = Person(body=(Keypoint(256, 128), *(None,) * 17))
    pose = Pose(canvas_width=512, canvas_height=256, people=(dot,))
    for width, height in ((512, 512), (1024, 300), (300, 1024)):
        ys, xs = draw_pose(pose, width, height).any(axis=2).nonzero()
        assert (xs.mean(), ys.mean()) == pytest.approx((width / 2, height / 2), abs=1)


def test_scale_and_position():
    corner = Person(body=(Keypoint(128, 128), *(None,) * 17))
    pose = Pose(canvas_width=512, canvas_height=512, people=(corner,))
    places = {
        (1.0, 0.0, 0.0): (128, 128),
        (0.5, 0.0, 0.0): (192, 192),
        (1.0, 0.25, -0.125): (256, 64),
        (1.5, 0.0, 0.5): (64, 320),
    }
    for (scale, x, y), expected in places.items():
        ys, xs = draw_pose(pose, 512, 512, scale=scale, x=x, y=y).any(axis=2).nonzero()
        assert (xs.mean(), ys.mean()) == pytest.approx(expected, abs=1)


def test_mirror_flips_the_shape_and_keeps_the_colours(library):
    pose = library.load("waving")
    plain, mirrored = draw_pose(pose, 512, 512), draw_pose(pose, 512, 512, mirror=True)
    assert iou(mirrored, plain[:, ::-1]) > 0.85
    # Who faces the viewer has the right elbow (yellow) on the viewer's left, mirrored or not; the
    # waving hand (blue) is on the other side.
    for drawn, waves_left in ((plain, True), (mirrored, False)):
        yellow = (drawn == (255, 255, 0)).all(axis=2).nonzero()[1]
        assert yellow.max() < 256
        hand = (drawn[:200] == (0, 0, 255)).all(axis=2).nonzero()[1]
        assert (hand.mean() < 256) == waves_left


def test_an_empty_pose_is_black():
    pose = Pose(canvas_width=64, canvas_height=64)
    drawn = draw_pose(pose, 100, 70)
    assert drawn.shape == (70, 100, 3)
    assert drawn.dtype == np.uint8
    assert not drawn.any()
    drawn[0, 0] = 1  # the caller's own, to write on


COORDINATE = st.floats(-1e6, 1e6)
POINT = st.none() | st.tuples(COORDINATE, COORDINATE).map(lambda place: Keypoint(*place))


@given(
    body=st.lists(POINT, min_size=18, max_size=18).map(tuple),
    hand=st.none() | st.lists(POINT, min_size=21, max_size=21).map(tuple),
    face=st.none() | st.lists(POINT, min_size=68, max_size=68).map(tuple),
    canvas=st.tuples(st.integers(2, 16384), st.integers(2, 16384)),
    size=st.tuples(st.integers(64, 300), st.integers(64, 300)),
    scale=st.floats(0.05, 20),
    shift=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    mirror=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_pose_is_drawn_at_any_size(body, hand, face, canvas, size, scale, shift, mirror):
    person = Person(body=body, hand_left=hand, face=face)
    pose = Pose(canvas_width=canvas[0], canvas_height=canvas[1], people=(person,))
    drawn = draw_pose(pose, *size, mirror=mirror, scale=scale, x=shift[0], y=shift[1])
    assert drawn.shape == (size[1], size[0], 3)
    assert drawn.dtype == np.uint8


def test_the_largest_and_the_longest_maps(library):
    pose = library.load("standing")
    assert draw_pose(pose, 8192, 64).shape == (64, 8192, 3)
    assert draw_pose(pose, 64, 8192).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 63}, "width is 63; 64 to 8192"),
        ({"height": 8193}, "height is 8193"),
        ({"width": 512.0}, "whole number"),
        ({"width": True}, "whole number"),
        ({"height": math.nan}, "whole number"),
        ({"scale": 0}, "scale is 0; 0.05 to 20"),
        ({"scale": math.nan}, "scale is nan"),
        ({"scale": "1"}, "scale is '1'"),
        ({"x": 1.1}, "x is 1.1; -1 to 1"),
        ({"y": math.inf}, "y is inf"),
    ],
)
def test_values_out_of_range_are_named(changes, message):
    arguments = {"width": 512, "height": 512, **changes}
    with pytest.raises(ControlError, match=message):
        draw_pose(Pose(canvas_width=64, canvas_height=64), **arguments)
