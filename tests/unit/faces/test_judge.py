"""Verdicts on painted faces, whose scores are known exactly."""

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from animation_studio.errors import FaceError
from animation_studio.faces.judge import JudgeSettings, Subject, Unreadable, best_of, judge
from animation_studio.faces.references import References
from tests.support.square_faces import (
    NOT_A_NUMBER,
    NOTHING,
    SquareFaces,
    painted,
    point,
    square_model,
)

MODEL = square_model()
LUCA, GIULIA = 10, 80


def cos(degrees):
    return float(np.cos(np.radians(degrees)))


def subject(character="luca", angle=LUCA, threshold=0.95, model=MODEL):
    files = (f"{character}_1.npy", f"{character}_2.npy")
    vectors = point(angle, angle + 2)
    return Subject(References(character, character.title(), model, vectors, files), threshold)


def row(*angles, sides=None):
    """A picture with faces side by side, by default each smaller than the one before."""
    sides = sides or [40 - 4 * place for place in range(len(angles))]
    return painted(
        *(
            (4 + 50 * place, 4, side, angle)
            for place, (angle, side) in enumerate(zip(angles, sides, strict=True))
        ),
        size=(60 + 50 * len(angles), 60),
    )


def one(picture, subjects=None, **options):
    (verdict,) = judge(SquareFaces(), [picture], subjects or [subject()], JudgeSettings(**options))
    return verdict


def test_the_character_is_kept_with_score_face_and_nearest_reference():
    verdict = one(row(13))
    assert verdict.keep
    assert verdict.score == pytest.approx(cos(1))
    assert verdict.reason == "score 1.00 reaches the threshold 0.95"
    (luca,) = verdict.subjects
    assert (luca.character, luca.match, luca.face) == ("luca", True, 0)
    assert luca.reference == "luca_2.npy"
    assert verdict.size == (110, 60)
    assert verdict.faces[0].box == (4, 4, 44, 44)


def test_somebody_else_is_rejected_with_the_reason():
    verdict = one(row(60))
    assert not verdict.keep
    assert verdict.score == pytest.approx(cos(48))
    assert verdict.reason == "score 0.67 under the threshold 0.95"
    assert verdict.subjects[0].face == 0


def test_a_score_on_the_threshold_passes():
    score = one(row(60)).score
    assert one(row(60), [subject(threshold=score)]).keep
    above = float(np.nextafter(score, 2))
    verdict = one(row(60), [subject(threshold=above)])
    assert not verdict.keep
    # Two decimals would say that 0.67 is under 0.67.
    first, second = verdict.reason.removeprefix("score ").split(" under the threshold ")
    assert float(first) < float(second)


@pytest.mark.parametrize(
    ("which", "angles", "keep", "strangers"),
    [
        ("best match", (60, 11), True, ()),
        ("largest", (60, 11), False, ()),
        ("largest", (11, 60), True, ()),
        ("all", (11, 60), False, (1,)),
        ("all", (60, 11, 70), False, (0, 2)),
        ("all", (11, 12, 9), True, ()),
        ("all", (11,), True, ()),
        ("all", (60,), False, ()),
    ],
)
def test_which_faces_count(which, angles, keep, strangers):
    verdict = one(row(*angles), which=which)
    assert verdict.keep == keep
    assert verdict.strangers == strangers
    if strangers:
        number = len(strangers)
        assert verdict.reason == f"{number} face{'s are' if number > 1 else ' is'} not Luca"


def test_only_faces_that_are_needed_are_embedded():
    engine = SquareFaces()
    judge(engine, [row(11, 60, 70)], [subject()], JudgeSettings(which="largest"))
    assert engine.embedded == [1]
    engine = SquareFaces()
    two = [subject(), subject("giulia", GIULIA)]
    judge(engine, [row(11, 60, 70)], two, JudgeSettings(which="largest"))
    assert engine.embedded == [2]
    engine = SquareFaces()
    judge(engine, [row(), Unreadable("NaN"), row()], two, JudgeSettings(which="all"))
    assert engine.embedded == []


def test_two_characters_get_a_face_each():
    verdict = one(row(82, 60, 11), [subject(), subject("giulia", GIULIA)])
    assert verdict.keep
    assert [found.face for found in verdict.subjects] == [2, 0]
    assert verdict.score == pytest.approx(min(cos(1), cos(0)), abs=1e-6)
    assert verdict.reason == (
        "Luca: score 1.00 reaches the threshold 0.95; Giulia: score 1.00 reaches the threshold 0.95"
    )


def test_one_face_cannot_be_two_characters():
    both = [subject(angle=10), subject("alberto", 12)]
    verdict = one(row(11), both)
    assert not verdict.keep
    assert [found.match for found in verdict.subjects].count(True) == 1
    assert verdict.reason == "only 1 face for 2 characters"
    missing = next(found for found in verdict.subjects if not found.match)
    assert (missing.score, missing.face, missing.reference) == (None, None, None)
    # The score is of the one that is there.
    assert verdict.score == pytest.approx(cos(1))


def test_each_character_has_its_own_verdict():
    verdict = one(row(11, 40), [subject(), subject("giulia", GIULIA)])
    assert [found.match for found in verdict.subjects] == [True, False]
    assert verdict.reason == "Giulia: score 0.77 under the threshold 0.95"
    assert verdict.score == pytest.approx(cos(40))


def test_a_stranger_beside_two_characters():
    both = [subject(), subject("giulia", GIULIA)]
    verdict = one(row(11, 81, 140), both, which="all")
    assert not verdict.keep
    assert verdict.strangers == (2,)
    assert verdict.reason == "1 face is not one of the characters"


@pytest.mark.parametrize(("no_face", "keep"), [("reject", False), ("keep", True)])
def test_no_face_is_a_verdict_of_its_own(no_face, keep):
    verdict = one(row(), no_face=no_face)
    assert verdict.keep == keep
    assert verdict.score is None
    assert verdict.faces == ()
    assert verdict.reason.startswith("no face was found")
    assert not verdict.subjects[0].match


def test_no_face_is_an_error_where_asked_that_names_the_pictures():
    pictures = [row(11), row(), Unreadable("NaN"), row(60), row()]
    with pytest.raises(FaceError, match=r"No face was found in picture 2, 5 of 5\."):
        judge(SquareFaces(), pictures, [subject()], JudgeSettings(no_face="error"))
    assert judge(SquareFaces(), pictures[2:4], [subject()], JudgeSettings(no_face="error"))


def test_an_unreadable_picture_has_its_reason_and_is_never_kept():
    verdict = one(Unreadable("the picture holds NaN"), no_face="keep")
    assert not verdict.keep
    assert verdict.unreadable
    assert verdict.reason == "the picture holds NaN"
    assert (verdict.score, verdict.size, verdict.picture_sha256) == (None, (0, 0), "")
    empty = one(np.empty((0, 8, 3), np.uint8))
    assert (empty.unreadable, empty.reason) == (True, "the picture has no pixels")


@pytest.mark.parametrize("broken", [NOT_A_NUMBER, NOTHING])
@pytest.mark.parametrize("which", ["largest", "best match", "all"])
def test_a_face_without_an_embedding_never_matches(broken, which):
    alone = one(painted((4, 4, 40, 11, broken)), which=which, no_face="keep")
    assert not alone.keep
    assert alone.score is None
    assert "no embedding" in alone.reason
    beside = one(painted((4, 4, 40, 11, broken), (60, 4, 30, 11)), which=which)
    assert beside.keep == (which == "best match")
    if which != "largest":
        assert beside.subjects[0].face == 1


def test_keep_at_most_keeps_the_best_and_the_order():
    pictures = [row(14), row(11), row(60), row(11), row(12)]
    verdicts = judge(SquareFaces(), pictures, [subject()], JudgeSettings(keep_at_most=2))
    assert [verdict.index for verdict in verdicts] == [0, 1, 2, 3, 4]
    # Pictures 2, 4 and 5 score alike or better; of equals the earlier stay.
    assert [verdict.keep for verdict in verdicts] == [False, True, False, False, True]
    assert verdicts[3].reason.endswith("but the 2 best are kept already")
    assert verdicts[3].subjects[0].match
    assert verdicts[2].reason == "score 0.67 under the threshold 0.95"
    three = judge(SquareFaces(), pictures, [subject()], JudgeSettings(keep_at_most=3))
    assert [verdict.keep for verdict in three] == [False, True, False, True, True]


def test_kept_faceless_pictures_come_last():
    pictures = [row(), row(12)]
    options = JudgeSettings(no_face="keep", keep_at_most=1)
    verdicts = judge(SquareFaces(), pictures, [subject()], options)
    assert [verdict.keep for verdict in verdicts] == [False, True]


def test_the_best_is_the_highest_score_kept_or_not():
    verdicts = judge(SquareFaces(), [row(), row(60), row(40), row(90), row(40)], [subject()])
    assert not any(verdict.keep for verdict in verdicts)
    assert best_of(verdicts) == 2
    assert best_of(verdicts[:1]) is None
    assert best_of([]) is None


def test_a_picture_with_all_characters_is_better_than_a_higher_score_of_one():
    both = [subject(), subject("giulia", GIULIA)]
    verdicts = judge(SquareFaces(), [row(11), row(30, 60)], both)
    assert verdicts[0].score > verdicts[1].score
    assert best_of(verdicts) == 1


def test_a_kept_picture_is_better_than_a_rejected_one_with_a_higher_score():
    # The second shows luca more exactly, and a stranger beside.
    settings = JudgeSettings(which="all")
    verdicts = judge(SquareFaces(), [row(20), row(11, 90)], [subject()], settings)
    assert [verdict.keep for verdict in verdicts] == [True, False]
    assert verdicts[1].score > verdicts[0].score
    assert best_of(verdicts) == 0


class OnceUnaligned(SquareFaces):
    """Cannot align the first face that it is given."""

    failed = False

    def align(self, picture, face):
        if not self.failed:
            self.failed = True
            raise FaceError("the five points lie in one place")
        return super().align(picture, face)


def test_a_face_that_cannot_be_aligned_costs_only_itself():
    verdicts = judge(OnceUnaligned(), [row(11), row(11)], [subject()])
    assert [verdict.keep for verdict in verdicts] == [False, True]
    assert verdicts[0].reason


def test_a_saved_picture_finds_its_verdict():
    picture = row(11)[:, ::-1]  # not contiguous
    verdict = one(picture)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "PNG")
    saved = np.asarray(Image.open(file))
    assert verdict.picture_sha256 == hashlib.sha256(saved.tobytes()).hexdigest()


@settings(deadline=None)
@given(st.lists(st.sampled_from(["luca", "other", "none", "unreadable", "crowd"]), max_size=30))
def test_a_batch_is_judged_as_each_picture_alone(kinds):
    made = {
        "luca": row(11),
        "other": row(60),
        "none": row(),
        "unreadable": Unreadable("the picture holds NaN"),
        "crowd": row(30, 60, 11, 90),
    }
    calls = []
    verdicts = judge(
        SquareFaces(), [made[kind] for kind in kinds], [subject()], None, lambda *c: calls.append(c)
    )
    assert calls == [(number, len(kinds)) for number in range(1, len(kinds) + 1)]
    assert [verdict.index for verdict in verdicts] == list(range(len(kinds)))
    for kind, verdict in zip(kinds, verdicts, strict=True):
        alone = one(made[kind])
        assert (verdict.keep, verdict.score, verdict.reason, verdict.faces) == (
            *(alone.keep, alone.score, alone.reason, alone.faces),
        )


def test_twenty_faces_are_embedded_in_batches():
    crowd = painted(
        *((4 + 30 * (n % 10), 4 + 30 * (n // 10), 20, n * 9) for n in range(20)), size=(320, 70)
    )
    engine = SquareFaces()
    verdicts = judge(engine, [crowd] * 8, [subject(angle=90)])
    assert all(verdict.keep and len(verdict.faces) == 20 for verdict in verdicts)
    assert sum(engine.embedded) == 160
    assert max(engine.embedded) == 32


def test_an_interruption_stops_at_once():
    class InterruptionError(Exception):
        pass

    def stop(done, total):
        raise InterruptionError

    engine = SquareFaces()
    with pytest.raises(InterruptionError):
        judge(engine, [row(11)] * 100, [subject()], on_picture=stop)
    assert engine.detected <= 8


def test_euclidean_engines_are_judged_by_distance():
    model = square_model("dlib", "euclidean")
    verdict = judge(SquareFaces(model), [row(11)], [subject(threshold=0.4, model=model)])[0]
    assert verdict.keep
    assert verdict.score == pytest.approx(1 - 2 * np.sin(np.radians(0.5)), abs=1e-6)


def test_rules_reach_the_score():
    mean = one(row(11), rule="mean of best k", k=2)
    assert mean.score == pytest.approx(cos(1))
    centroid = one(row(11), rule="centroid")
    assert centroid.score == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("subjects", "message"),
    [
        ([], "No character"),
        ([subject(), subject()], "'luca' is listed twice"),
        ([subject(threshold=float("nan"))], "threshold of 'luca' is nan"),
        ([subject(model=square_model(digit="b"))], r"made by insightface squares \(bbbbbbbb\)"),
    ],
)
def test_what_cannot_be_judged_is_said(subjects, message):
    with pytest.raises(FaceError, match=message):
        judge(SquareFaces(), [row(11)], subjects)


def test_an_engine_that_gives_other_shapes_is_caught():
    class Wrong(SquareFaces):
        def embed(self, crops):
            return super().embed(crops)[:, :1]

    with pytest.raises(FaceError, match=r"shape \[1, 1\] for 1 faces; \[1, 2\] was expected"):
        judge(Wrong(), [row(11)], [subject()])


def test_references_without_files_still_have_a_name():
    """References made in this run and not saved have no files."""
    made = Subject(References("luca", "Luca", MODEL, point(50, 11), ()), 0.95)
    assert one(row(11), [made]).subjects[0].reference == "reference 2"
