"""What a vision model found in a picture, slot by slot, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Answered", "Asked", "Judgement", "JudgementRules", "SlotKind", "judgement_of"]

# A slot of the plan: the better the more it is there. A defect: the better the less.
SlotKind: TypeAlias = Literal["plan", "defect"]


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

    def suggestions(self) -> list[str]:
        """Return what to do about each failing slot, worst first."""
        known = {one.slot: one.suggestion for one in [*self.answers, *self.unanswered]}
        return [known[slot] for slot in self.failing]


def judgement_of(
    picture: str,
    answers: Sequence[Answered],
    rules: JudgementRules,
    *,
    service: str,
    model: str,
    unanswered: Sequence[Asked] = (),
) -> Judgement:
    """Return the verdict that follows from the answers."""
    raise NotImplementedError
