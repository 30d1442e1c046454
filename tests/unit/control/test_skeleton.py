import contextlib
import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from animation_studio.control.skeleton import (
    MAX_FILE_BYTES,
    MAX_PEOPLE,
    Keypoint,
    Person,
    Pose,
)
from animation_studio.errors import ControlError

BODY = [value for n in range(18) for value in (100 + 7 * n, 50 + 11 * n, 1)]


def frame(**changes):
    person = {"pose_keypoints_2d": list(BODY)}
    data = {"people": [person], "canvas_width": 640, "canvas_height": 480}
    data.update({key: value for key, value in changes.items() if key in data or "_2d" not in key})
    person.update({key: value for key, value in changes.items() if "_2d" in key})
    return data


# Whole hundredths of a pixel, as files hold them; from 2, so that they cannot pass for fractions.
COORDINATE = st.integers(200, 90_000).map(lambda value: value / 100)
POINT = st.none() | st.builds(Keypoint, COORDINATE, COORDINATE, st.sampled_from((0.25, 1.0)))


def points(count):
    return st.lists(POINT, min_size=count, max_size=count).map(tuple)


def optional(strategy):
    return st.none() | strategy.filter(any)


PEOPLE = st.builds(
    Person,
    body=points(18).filter(any),
    face=optional(points(68) | points(70)),
    hand_left=optional(points(21)),
    hand_right=optional(points(21)),
)
POSES = st.builds(
    Pose,
    canvas_width=st.integers(64, 2048),
    canvas_height=st.integers(64, 2048),
    people=st.lists(PEOPLE, max_size=2).map(tuple),
    name=st.sampled_from(("", "jump")),
    description=st.sampled_from(("", "Un salto, più in alto ✓")),
)


@given(POSES)
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read_again(pose):
    assert Pose.from_openpose(json.loads(pose.to_json())) == pose


@given(POSES)
@settings(max_examples=50, deadline=None)
def test_mirrored_twice_is_the_same(pose):
    again = pose.mirrored().mirrored()
    for person, other in zip(pose.people, again.people, strict=True):
        for (name, before), (_, after) in zip(person, other, strict=True):
            assert (before is None) == (after is None), name
            for p, q in zip(before or (), after or (), strict=True):
                assert (p is None) == (q is None)
                assert p is None or (q.x, q.y) == pytest.approx((p.x, p.y), abs=1e-9)


def test_mirroring_swaps_the_sides():
    hand = tuple(Keypoint(10 + n, 20) for n in range(21))
    body = tuple(Keypoint(100 + n, 50) for n in range(18))
    person = Person(body=body, hand_right=hand).mirrored(640)
    assert person.body[7] == Keypoint(640 - body[4].x, 50)  # right wrist -> left wrist
    assert person.body[0] == Keypoint(640 - body[0].x, 50)
    assert person.hand_right is None
    assert person.hand_left[0] == Keypoint(630, 20)


def test_mirrored_face_keeps_its_order(shipped_poses):
    """Mirroring a face that is symmetric about the middle gives the face itself."""
    face = Pose.read(shipped_poses / "surprised.json").people[0].face
    middle = sum(p.x for p in face) / len(face)
    turned = Person(body=(None,) * 18, face=face).mirrored(2 * middle).face
    for before, after in zip(face, turned, strict=True):
        assert (after.x, after.y) == pytest.approx((before.x, before.y), abs=2.5)


def test_pixels_stay_and_fractions_grow():
    pixels = Pose.from_openpose(frame())
    assert pixels.people[0].body[1] == Keypoint(107, 61, 1)
    fractions = [v / (640, 480, 1)[n % 3] for n, v in enumerate(BODY)]
    grown = Pose.from_openpose(frame(pose_keypoints_2d=fractions))
    for p, q in zip(pixels.people[0].body, grown.people[0].body, strict=True):
        assert (p.x, p.y) == pytest.approx((q.x, q.y))


def test_one_pixel_coordinate_makes_all_of_them_pixels():
    hand = [0.5] * 63
    pose = Pose.from_openpose(frame(hand_left_keypoints_2d=hand))
    assert pose.people[0].hand_left[0] == Keypoint(0.5, 0.5, 0.5)


def test_the_25_point_body_loses_hips_middle_and_feet():
    values = [value for n in range(25) for value in (10 + n, 20, 1)]
    body = Pose.from_openpose(frame(pose_keypoints_2d=values)).people[0].body
    assert [int(p.x) - 10 for p in body] == [0, 1, 2, 3, 4, 5, 6, 7, *range(9, 19)]


@pytest.mark.parametrize("mark", [(0, 0, 0), (300, 200, 0), (0, 0, 1), (300, 200, -0.5)])
def test_points_that_were_not_found_are_none(mark):
    body = list(BODY)
    body[12:15] = mark
    found = Pose.from_openpose(frame(pose_keypoints_2d=body)).people[0].body
    assert [n for n, p in enumerate(found) if p is None] == [4]


def test_the_annotators_minus_one_in_hands_is_none():
    hand = [300, 200, 1] * 20 + [-1, -1, 1]
    pose = Pose.from_openpose(frame(hand_right_keypoints_2d=hand))
    assert pose.people[0].hand_right[20] is None
    assert pose.people[0].hand_right[19] == Keypoint(300, 200, 1)


def test_null_and_empty_lists_and_unknown_keys():
    data = frame(face_keypoints_2d=None, hand_left_keypoints_2d=[], pose_keypoints_3d=["?"])
    data["people"][0]["person_id"] = [-1]
    data["people"].append({"pose_keypoints_2d": None})
    data["version"] = 1.3
    pose = Pose.from_openpose(data)
    assert len(pose.people) == 1
    assert pose.people[0].face is None
    assert pose.people[0].hand_left is None


def test_frames_of_a_node_output():
    second = frame()
    second["canvas_width"] = 800
    assert Pose.from_keypoints([frame(), second], 1).canvas_width == 800
    assert Pose.from_keypoints(frame()) == Pose.from_openpose(frame())
    with pytest.raises(ControlError, match="no frame 2; it has 2"):
        Pose.from_keypoints([frame(), second], 2)
    with pytest.raises(ControlError, match="no frame 0; it has 0"):
        Pose.from_keypoints([])
    broken = copy.deepcopy(second)
    broken["people"][0]["pose_keypoints_2d"][5] = math.nan
    with pytest.raises(ControlError, match=r"frame 1: people\[0\]\.pose_keypoints_2d\[5\] is nan"):
        Pose.from_keypoints([frame(), broken], 1)


def test_numpy_numbers_are_numbers():
    values = list(np.array(BODY, dtype=np.float32))
    assert Pose.from_openpose(frame(pose_keypoints_2d=values)) == Pose.from_openpose(frame())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pose_keypoints_2d": BODY[:-1]}, "has 53 numbers; 54 or 75"),
        ({"pose_keypoints_2d": [*BODY[:-1], math.inf]}, r"\[53\] is inf"),
        ({"pose_keypoints_2d": [*BODY[:-1], "1"]}, r"\[53\] must be a number, not str"),
        ({"pose_keypoints_2d": [*BODY[:-1], True]}, "not bool"),
        ({"pose_keypoints_2d": [*BODY[:-1], None]}, "not null"),
        ({"pose_keypoints_2d": [10**400, *BODY[1:]]}, r"\[0\] is inf"),
        ({"pose_keypoints_2d": "9" * 54}, "must be a list of numbers, not str"),
        ({"pose_keypoints_2d": [0] * 3_000_000}, "has 3,000,000 numbers"),
        ({"face_keypoints_2d": [1] * 207}, "204 or 210"),
        ({"hand_left_keypoints_2d": [1] * 60}, "63 are expected"),
        ({"people": None}, "'people' must be a list, not null"),
        ({"people": ["x"]}, r"people\[0\] must be an object, not str"),
        ({"people": [{}] * (MAX_PEOPLE + 1)}, "has 21 entries; at most 20"),
        ({"canvas_width": None}, "'canvas_width' must be"),
        ({"canvas_width": "640"}, "not str"),
        ({"canvas_height": 0}, "'canvas_height' is 0"),
        ({"canvas_height": math.nan}, "'canvas_height' is nan"),
        ({"canvas_height": 1e9}, "2 to 16384"),
        ({"name": 3}, "'name' must be a text"),
        ({"description": "x" * 501}, "at most 500 characters"),
    ],
)
def test_bad_input_says_where_and_what(changes, message):
    with pytest.raises(ControlError, match=message) as caught:
        Pose.from_openpose(frame(**changes), source="my.json")
    assert str(caught.value).startswith("my.json")


@pytest.mark.parametrize("data", [None, 3, "people", b"people", [[]], ["x"], [None]])
def test_other_values_are_refused(data):
    with pytest.raises(ControlError, match="expected"):
        Pose.from_keypoints(data)


def test_animals_are_named():
    with pytest.raises(ControlError, match="animals"):
        Pose.from_keypoints([{"version": "ap10k", "animals": [], "canvas_width": 64}])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "people": st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "pose_keypoints_2d": st.lists(JSON_VALUES, min_size=54, max_size=54)
                        | JSON_VALUES,
                        "hand_left_keypoints_2d": JSON_VALUES,
                    },
                ),
                max_size=2,
            )
            | JSON_VALUES,
            "canvas_width": st.just(512) | JSON_VALUES,
            "canvas_height": st.just(512) | JSON_VALUES,
        },
    )
    | JSON_VALUES
)
def test_anything_is_a_pose_or_a_control_error(data):
    # Any other exception fails the test.
    with contextlib.suppress(ControlError):
        assert Pose.from_keypoints(data).canvas_width >= 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b" " * (MAX_FILE_BYTES + 1), "at most"),
        (b"[]", "no frame 0"),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(ControlError, match=message) as caught:
        Pose.read(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ControlError, match=r"none\.json: cannot be read: No such file"):
        Pose.read(tmp_path / "none.json")


def test_a_file_may_be_a_list_of_frames(tmp_path):
    path = tmp_path / "frames.json"
    path.write_text(json.dumps([frame()]))
    assert Pose.read(path) == Pose.from_openpose(frame())


@pytest.mark.parametrize(
    "person",
    [
        {"body": (None,) * 17},
        {"body": (None,) * 18, "face": (None,) * 69},
        {"body": (None,) * 18, "hand_left": (None,) * 20},
        {"body": (Keypoint(math.nan, 0), *(None,) * 17)},
        {"body": (None,) * 18, "foot": ()},
    ],
)
def test_the_models_refuse_wrong_counts(person):
    with pytest.raises(ValidationError):
        Person(**person)
