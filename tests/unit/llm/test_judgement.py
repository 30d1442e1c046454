"""Verdicts: what the answers make of a picture, with every figure from the answers themselves."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from animation_studio.llm.judgement import (
    Answered,
    Asked,
    Judgement,
    JudgementRules,
    SlotKind,
    judgement_of,
)

SHARES = st.floats(0.0, 1.0)


def asked(slot: str, kind: SlotKind = "plan") -> Asked:
    return Asked(slot=slot, kind=kind, question=f"{slot}?", suggestion=f"mend {slot}")


def answered(slot: str, p_yes: float, kind: SlotKind = "plan") -> Answered:
    return Answered(**asked(slot, kind).model_dump(), p_yes=p_yes, measured=True)


def judged(
    *answers: Answered, rules: JudgementRules | None = None, unanswered: tuple[Asked, ...] = ()
) -> Judgement:
    return judgement_of(
        "sha",
        answers,
        rules or JudgementRules(),
        service="eyes",
        model="qwen",
        unanswered=unanswered,
    )


def test_all_that_is_wanted_is_there():
    judgement = judged(answered("action", 0.98), answered("light", 0.61), answered("time", 0.93))
    assert judgement.accepted
    assert judgement.failing == []
    assert judgement.reason == "accepted: mean 0.84, lowest 0.61 (light)"
    assert (judgement.picture, judgement.service, judgement.model) == ("sha", "eyes", "qwen")


def test_one_slot_that_is_missing_rejects_whatever_the_mean():
    judgement = judged(*(answered(f"slot {n}", 1.0) for n in range(9)), answered("action", 0.12))
    assert not judgement.accepted
    assert judgement.failing == ["action"]
    assert judgement.reason == "rejected: action 0.12"
    assert judgement.suggestions() == ["mend action"]


def test_a_low_mean_names_those_that_pull_it_down_worst_first():
    judgement = judged(
        answered("time", 0.95),
        answered("light", 0.6),
        answered("hands", 0.7, "defect"),
        answered("action", 0.12),
    )
    assert judgement.failing == ["action", "hands", "light"]
    assert judgement.reason == (
        "rejected: action 0.12, hands 0.30, light 0.60; mean 0.49 below 0.70"
    )


def test_a_defect_is_the_better_the_less_it_is_there():
    judgement = judged(answered("hands", 0.9, "defect"), answered("text", 0.0, "defect"))
    assert judgement.failing == ["hands"]
    assert judgement.minimum == pytest.approx(0.1)
    assert judgement.mean == pytest.approx(0.55)


def test_what_is_unanswered_fails_and_counts_in_no_figure():
    judgement = judged(answered("action", 0.9), unanswered=(asked("hands", "defect"),))
    assert not judgement.accepted
    assert judgement.failing == ["hands"]
    assert (judgement.mean, judgement.minimum) == (0.9, 0.9)
    assert judgement.reason == "rejected: no answer about hands"
    assert judgement.suggestions() == ["mend hands"]


def test_nothing_answered_at_all():
    judgement = judged(unanswered=(asked("action"), asked("light")))
    assert not judgement.accepted
    assert (judgement.mean, judgement.minimum) == (0.0, 0.0)
    assert judgement.reason == "rejected: no answer about action, light"


def test_nothing_asked_is_nothing_missing():
    judgement = judged()
    assert judgement.accepted
    assert (judgement.mean, judgement.minimum) == (1.0, 1.0)
    assert judgement.reason == "accepted: nothing was asked"


def test_a_mean_just_below_is_not_told_as_the_same_figure():
    judgement = judged(answered("a", 0.6999), answered("b", 0.6999))
    assert judgement.reason.endswith("mean 0.6999 below 0.7000")


def test_many_failing_slots_are_counted():
    judgement = judged(*(answered(f"slot{n}", 0.0) for n in range(9)))
    assert judgement.reason.startswith("rejected: slot0 0.00, slot1 0.00, ")
    assert "slot5 0.00 and 3 more; mean 0.00" in judgement.reason


@settings(deadline=None)
@given(
    st.lists(st.tuples(SHARES, st.sampled_from(["plan", "defect"])), max_size=20),
    st.integers(0, 3),
    st.builds(JudgementRules, mean=SHARES, slot=SHARES),
)
@example([(0.7, "plan")] * 3, 0, JudgementRules(mean=0.7, slot=0.0))
@example([(0.1, "plan")] * 10, 0, JudgementRules(mean=0.1, slot=0.1))
def test_every_verdict_follows_from_its_answers(
    given_answers: list[tuple[float, SlotKind]], unknown: int, rules: JudgementRules
):
    answers = [answered(f"a{n}", *one) for n, one in enumerate(given_answers)]
    unanswered = tuple(asked(f"u{n}") for n in range(unknown))
    judgement = judged(*answers, rules=rules, unanswered=unanswered)
    scores = {one.slot: one.score for one in answers}
    assert judgement.accepted == (
        not unanswered
        and judgement.mean >= rules.mean
        and all(score >= rules.slot for score in scores.values())
    )
    assert judgement.accepted != bool(judgement.failing)
    assert judgement.reason.startswith("accepted: " if judgement.accepted else "rejected: ")
    below = {slot for slot, score in scores.items() if score < rules.slot}
    assert below <= set(judgement.failing)
    known = [scores[slot] for slot in judgement.failing if slot in scores]
    assert known == sorted(known)
    assert len(set(judgement.failing)) == len(judgement.failing)
    if scores:
        assert judgement.minimum == min(scores.values()) <= judgement.mean <= max(scores.values())
        assert judgement.mean == pytest.approx(math.fsum(scores.values()) / len(scores))
    assert len(judgement.suggestions()) == len(judgement.failing)
    assert Judgement.model_validate_json(judgement.model_dump_json()) == judgement


@pytest.mark.parametrize("p_yes", [math.nan, -0.01, 1.01, math.inf])
def test_no_probability_that_is_none(p_yes: float):
    with pytest.raises(ValidationError):
        answered("action", p_yes)
