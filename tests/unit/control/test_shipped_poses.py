"""The poses under configs/poses: drawn bodies that a person could have."""

import math
import re

import pytest

from animation_studio.control.poses import PoseLibrary
from animation_studio.control.skeleton import MAX_FILE_BYTES

ASKED = [
    "standing",
    "walking",
    "running",
    "jumping",
    "sitting",
    "waving",
    "pointing",
    "arms_crossed",
    "thinking",
    "surprised",
    "crouching",
    "kneeling",
    "lying_down",
    "dancing",
    "cheering",
    "hands_on_hips",
    "reading",
    "looking_back",
    "swimming",
    "diving",
    "climbing",
    "riding_bicycle",
    "throwing",
    "bowing",
    "sleeping",
    "leaning",
]
FOR_TWO = [
    "hugging",
    "high_five",
    "talking_together",
    "running_together",
    "walking_together",
    "back_to_back",
]
# Pairs of body points: both upper arms, forearms, thighs, shins.
LIMBS = {
    "upper arm": ((2, 3), (5, 6)),
    "forearm": ((3, 4), (6, 7)),
    "thigh": ((8, 9), (11, 12)),
    "shin": ((9, 10), (12, 13)),
}


@pytest.fixture(scope="module")
def library(shipped_poses):
    return PoseLibrary([shipped_poses])


def limb_lengths(person):
    return {
        name: [math.dist(person.body[a][:2], person.body[b][:2]) for a, b in pairs]
        for name, pairs in LIMBS.items()
    }


def test_the_library_has_what_is_promised(library):
    assert sorted([*ASKED, *FOR_TWO]) == library.names()
    assert all(len(library.load(name).people) == 1 for name in ASKED)
    assert all(len(library.load(name).people) == 2 for name in FOR_TWO)


@pytest.mark.parametrize("name", [*ASKED, *FOR_TWO])
def test_a_pose_is_complete_and_in_the_picture(library, shipped_poses, name):
    pose = library.load(name)
    assert (pose.canvas_width, pose.canvas_height) == (1024, 1024)
    assert re.fullmatch(r"[A-Z][^\n]{20,150}\.", pose.description)
    for person in pose.people:
        assert all(person.body[1:14]), "a limb is missing"
        for _, points in person:
            for point in points or ():
                assert point is None or (8 < point.x < 1016 and 8 < point.y < 1016)
    data = (shipped_poses / f"{name}.json").read_bytes()
    assert len(data) < MAX_FILE_BYTES / 64
    assert data == pose.to_json()


@pytest.mark.parametrize("name", [*ASKED, *FOR_TWO])
def test_limbs_have_the_lengths_of_one_body(library, name):
    """No limb is longer than the standing one; shorter ones point towards or from the viewer."""
    standing = limb_lengths(library.load("standing").people[0])
    for person in library.load(name).people:
        for limb, lengths in limb_lengths(person).items():
            for length in lengths:
                assert 0.5 * standing[limb][0] < length < 1.15 * standing[limb][0], limb


@pytest.mark.parametrize("name", [*ASKED, *FOR_TWO])
def test_hands_begin_at_wrists_and_faces_lie_on_heads(library, name):
    for person in library.load(name).people:
        for hand, wrist in ((person.hand_right, 4), (person.hand_left, 7)):
            if hand is not None:
                assert math.dist(hand[0][:2], person.body[wrist][:2]) < 1
                assert max(math.dist(hand[0][:2], p[:2]) for p in hand) < 110
        if person.face is not None:
            right_eye, left_eye = person.body[14], person.body[15]
            assert len(person.face) == 70
            assert math.dist(person.face[68][:2], right_eye[:2]) < 6
            assert math.dist(person.face[69][:2], left_eye[:2]) < 6
            assert math.dist(person.face[30][:2], person.body[0][:2]) < 12


@pytest.mark.parametrize("name", ["standing", "waving", "cheering", "hands_on_hips", "surprised"])
def test_who_faces_the_viewer_has_the_right_side_on_the_viewers_left(library, name):
    body = library.load(name).people[0].body
    for right, left in ((2, 5), (8, 11), (14, 15), (16, 17)):
        assert body[right].x < body[left].x


def test_who_turns_the_back_has_it_the_other_way(library):
    for name in ("climbing", "looking_back"):
        body = library.load(name).people[0].body
        assert body[2].x > body[5].x
        assert body[8].x > body[11].x


@pytest.mark.parametrize("name", ["walking", "running", "sitting", "crouching", "kneeling"])
def test_knees_bend_forwards(library, name):
    """These people look to the viewer's right: a knee lies right of the line hip to ankle."""
    for person in library.load(name).people:
        for hip, knee, ankle in ((8, 9, 10), (11, 12, 13)):
            h, k, a = (person.body[n] for n in (hip, knee, ankle))
            turn = (a.x - h.x) * (k.y - h.y) - (a.y - h.y) * (k.x - h.x)
            assert turn < 0
