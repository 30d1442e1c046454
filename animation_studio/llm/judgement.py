"""What a vision model found in a picture, slot by slot, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Answered", "Asked", "Judgement", "JudgementRules", "SlotKind", "judgement_of"]

# A slot of the plan: the better the more it is there. A defect: the better the less.
SlotKind: TypeAlias = Literal["plan", "defect"]

# Failing slots that a reason names.
_SHOWN = 6


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Asked(_Frozen):
    """One yes/no question about a picture.

    `slot` names what it is about ("character luca", "action", "hands"); `suggestion` is what to do
    where the picture fails it, in words for a person and for a model that changes the plan.
    """

    slot: str
    kind: SlotKind
    question: str
    suggestion: str


class Answered(Asked):
    """A question with its answer.

    `p_yes` is the probability of "yes", from 0 to 1; `measured` says that it comes from the
    model's own probabilities, else it is the word alone: 1 for yes, 0 for no. `score` is how well
    the picture does, from 0 to 1: `p_yes`, for a defect 1 - `p_yes`.
    """

    p_yes: float = Field(ge=0.0, le=1.0)
    measured: bool

    @property
    def score(self) -> float:
        """How well the picture does here, 0 to 1."""
        return self.p_yes if self.kind == "plan" else 1.0 - self.p_yes


class JudgementRules(_Frozen):
    """When a picture is accepted: `mean` of all scores, and the least that every slot must have."""

    mean: float = Field(default=0.7, ge=0.0, le=1.0)
    slot: float = Field(default=0.3, ge=0.0, le=1.0)


class Judgement(_Frozen):
    """The verdict on one picture, of which `picture` is the SHA-256 (see faces.verdict).

    `mean` and `minimum` are of the scores; `failing` are the slots below `rules.slot`, and where
    the mean is too low those that pull it down, worst first. `unanswered` are slots about which
    the model said neither yes nor no: they fail.
    """

    picture: str
    service: str
    model: str
    rules: JudgementRules
    answers: list[Answered]
    unanswered: list[Asked] = []
    mean: float
    minimum: float
    accepted: bool
    failing: list[str]
    reason: str

    def known_failing(self) -> list[Asked]:
        """Return the questions of the failing slots, worst first.

        A judgement from elsewhere may name slots about which it asked nothing: they are left out.
        """
        known = {one.slot: one for one in [*self.answers, *self.unanswered]}
        return [known[slot] for slot in self.failing if slot in known]

    def suggestions(self) -> list[str]:
        """Return what to do about each failing slot, worst first."""
        return [one.suggestion for one in self.known_failing()]


def judgement_of(
    picture: str,
    answers: Sequence[Answered],
    rules: JudgementRules,
    *,
    service: str,
    model: str,
    unanswered: Sequence[Asked] = (),
) -> Judgement:
    """Return the verdict that follows from the answers.

    A picture is accepted when the mean reaches `rules.mean`, every score `rules.slot`, and nothing
    is unanswered. Where nothing was asked nothing is missing: it is accepted, with 1 for both
    figures. Where all is unanswered they are 0. What is not accepted has a failing slot.
    """
    ranked = sorted(answers, key=lambda one: one.score)
    scores = [one.score for one in ranked]
    mean, minimum = _mean(scores, otherwise=0.0 if unanswered else 1.0)
    failing = [one for one in ranked if one.score < rules.slot or one.score < rules.mean > mean]
    return Judgement(
        picture=picture,
        service=service,
        model=model,
        rules=rules,
        answers=list(answers),
        unanswered=list(unanswered),
        mean=mean,
        minimum=minimum,
        accepted=not failing and not unanswered,
        failing=[one.slot for one in [*failing, *unanswered]],
        reason=_reason(failing, unanswered, ranked, mean, rules),
    )


def _mean(scores: Sequence[float], otherwise: float) -> tuple[float, float]:
    """Return mean and minimum of ascending scores."""
    if not scores:
        return otherwise, otherwise
    # Rounding must not take the mean below the least: then nothing would be below the mean wanted.
    mean = min(max(math.fsum(scores) / len(scores), scores[0]), scores[-1])
    return mean, scores[0]


def _reason(
    failing: Sequence[Answered],
    unanswered: Sequence[Asked],
    ranked: Sequence[Answered],
    mean: float,
    rules: JudgementRules,
) -> str:
    """One sentence for people: what was found, worst first."""
    if not failing and not unanswered:
        if not ranked:
            return "accepted: nothing was asked"
        return f"accepted: mean {mean:.2f}, lowest {ranked[0].score:.2f} ({ranked[0].slot})"
    parts = []
    if failing:
        more = len(failing) - _SHOWN
        shown = [f"{one.slot} {one.score:.2f}" for one in failing[:_SHOWN]]
        parts.append(", ".join(shown) + (f" and {more} more" if more > 0 else ""))
    if mean < rules.mean and ranked:
        parts.append("mean {} below {}".format(*_told_apart(mean, rules.mean)))
    if unanswered:
        parts.append(f"no answer about {', '.join(one.slot for one in unanswered)}")
    return f"rejected: {'; '.join(parts)}"


def _told_apart(value: float, limit: float) -> tuple[str, str]:
    """Return both with two decimals, or as many more as it takes to tell them apart."""
    for digits in range(2, 17):
        texts = f"{value:.{digits}f}", f"{limit:.{digits}f}"
        if texts[0] != texts[1]:
            return texts
    return repr(value), repr(limit)
