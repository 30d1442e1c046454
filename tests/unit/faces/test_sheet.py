"""Pictures about pictures: sizes, colours where they belong, and nothing that breaks them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from animation_studio.faces.calibration import calibrate
from animation_studio.faces.drawing import GREEN, GREY, RED, legible, wrapped
from animation_studio.faces.engine import Face
from animation_studio.faces.judge import (
    JudgeSettings,
    PictureVerdict,
    Subject,
    SubjectVerdict,
    Unreadable,
    judge,
)
from animation_studio.faces.references import References
from animation_studio.faces.sheet import annotate, contact_sheet, histogram
from tests.support.square_faces import SquareFaces, painted, point, square_model

MATCH, MISS = 11, 60


def references(character, *angles):
    files = tuple(f"{character}_{angle}.npy" for angle in angles)
    return References(character, character.title(), square_model(), point(*angles), files)


def verdict_on(picture, which="best match"):
    luca = Subject(references("luca", 10), 0.95)
    return judge(SquareFaces(), [picture], [luca], JudgeSettings(which=which))[0]


def colored(picture, color, box):
    left, top, right, bottom = box
    return bool((picture[top:bottom, left:right] == color).all(axis=2).any())


def test_boxes_have_the_colour_of_their_verdict():
    picture = painted((300, 50, 90, MATCH), (50, 50, 60, MISS), size=(512, 400))
    drawn = annotate(picture, verdict_on(picture))
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.uint8
    around_match, around_other = (290, 40, 400, 150), (40, 40, 120, 120)
    assert colored(drawn, GREEN, around_match)
    assert not colored(drawn, RED, around_match)
    assert colored(drawn, GREY, around_other)
    # The face itself stays to be seen.
    assert (drawn[70:120, 320:370] == picture[70:120, 320:370]).all()
    strict = annotate(picture, verdict_on(picture, which="all"))
    assert colored(strict, RED, around_other)
    miss = painted((50, 50, 60, MISS), size=(512, 400))
    assert colored(annotate(miss, verdict_on(miss)), RED, around_other)


def test_the_picture_given_is_not_drawn_on():
    picture = painted((4, 4, 40, MATCH), size=(300, 300))
    before = picture.copy()
    annotate(picture, verdict_on(picture))
    contact_sheet([picture], [verdict_on(picture)])
    assert np.array_equal(picture, before)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((16, 16), (256, 256)),
        ((100, 60), (500, 300)),
        ((256, 256), (256, 256)),
        ((1, 1), (256, 256)),
    ],
)
def test_small_pictures_are_enlarged_until_text_can_be_read(size, expected):
    picture = np.full((size[1], size[0], 3), 90, np.uint8)
    drawn = annotate(picture, verdict_on(picture))
    assert (drawn.shape[1], drawn.shape[0]) == expected


def test_a_long_strip_is_not_enlarged_beyond_reason():
    picture = np.full((4, 4000, 3), 90, np.uint8)
    assert max(annotate(picture, verdict_on(picture)).shape) <= 8192


BOXES = st.tuples(*[st.floats(-1e4, 1e4)] * 4)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.lists(BOXES, max_size=4),
    st.text(max_size=60),
    st.text(max_size=400),
    st.booleans(),
)
def test_any_box_name_and_reason_can_be_drawn(width, height, boxes, name, reason, keep):
    faces = tuple(Face(box, 1.0, ()) for box in boxes)
    found = SubjectVerdict(name, keep, 0.5, 0.6, 0, "x", reason) if faces else None
    verdict = PictureVerdict(
        index=0,
        keep=keep,
        reason=reason,
        score=0.5 if faces else None,
        faces=faces,
        subjects=(found,) if found else (),
        size=(width, height),
        picture_sha256="",
        strangers=(1,) if len(faces) > 1 else (),
    )
    picture = np.zeros((height, width, 3), np.uint8)
    drawn = annotate(picture, verdict)
    assert drawn.shape[0] % height == drawn.shape[1] % width == 0
    sheet = contact_sheet([picture, Unreadable(reason)], [verdict, verdict], side=64)
    assert sheet.dtype == np.uint8
    assert sheet.any()


@pytest.mark.parametrize(
    ("count", "across", "down"), [(1, 1, 1), (2, 2, 1), (4, 4, 1), (5, 3, 2), (8, 4, 2), (32, 8, 4)]
)
def test_a_contact_sheet_is_a_wide_grid(count, across, down):
    picture = painted((4, 4, 40, MATCH))
    sheet = contact_sheet([picture] * count, [verdict_on(picture)] * count, side=128)
    alone = contact_sheet([picture], [verdict_on(picture)], side=128)
    card = alone.shape[1] - 12
    assert sheet.shape[1] == across * card + 12
    wide = contact_sheet([picture] * count, [verdict_on(picture)] * count, side=128, columns=1)
    assert wide.shape[1] == alone.shape[1]
    assert wide.shape[0] > sheet.shape[0] or count == down


def test_a_contact_sheet_shows_every_kind_of_verdict():
    pictures = [painted((4, 4, 40, MATCH)), painted((4, 4, 40, MISS)), Unreadable("NaN")]
    luca = Subject(references("luca", 10), 0.95)
    sheet = contact_sheet(pictures, judge(SquareFaces(), pictures, [luca]))
    third = sheet.shape[1] // 3
    height = sheet.shape[0]
    assert colored(sheet, GREEN, (0, 0, third, height))
    assert colored(sheet, RED, (third, 0, 2 * third, height))
    assert not colored(sheet, GREEN, (third, 0, 3 * third, height))


def test_a_sheet_of_hundreds_stays_small():
    picture = painted((4, 4, 40, MATCH))
    sheet = contact_sheet([picture] * 1200, [verdict_on(picture)] * 1200)
    assert max(sheet.shape) <= 8192


def test_a_sheet_of_nothing_says_so():
    assert contact_sheet([], []).any()


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.5, 1.0])
def test_a_histogram_shows_both_kinds(rate):
    far = [references("luca", 0, 5, 9), references("giulia", 80, 86, 91)]
    near = [references("luca", 0, 5, 40), references("giulia", 42, 45, 70)]
    single = [references("luca", 0), references("giulia", 80)]
    same = [references("luca", 0), references("giulia", 0)]
    for given_references in (far, near, single, same):
        drawn = histogram(calibrate(given_references, rate))
        assert drawn.shape == (720, 1280, 3)
        # The bars' edges in their full colours.
        assert colored(drawn, (225, 130, 40), (84, 132, 1240, 560))
        assert colored(drawn, GREEN, (84, 132, 1240, 560)) == (len(given_references[0].files) > 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Luca Paguro", "Luca Paguro"),
        ("Lucía Ünal", "Lucia Unal"),
        ("卢卡", "??"),
        ("a\nb\u200bc — d", "a?b?c - d"),
    ],
)
def test_text_that_the_font_lacks(text, shown):
    assert legible(text) == shown


def test_lines_break_at_words_and_end_in_dots():
    lines = wrapped("one two three four five six seven eight nine ten", 13, 90, 2)
    assert len(lines) == 2
    assert lines[1].endswith("…")
    assert wrapped("", 13, 90, 2) == []
    (cut,) = wrapped("x" * 500, 13, 90, 3)
    assert cut.endswith("…")
