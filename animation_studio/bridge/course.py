"""What travels from round to round of Until Accepted, as sealed JSON in the expanded graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import PlanError
from ..llm.assembly import Dialect
from ..llm.plan import Plan
from ..llm.report import PlanSource, Round
from ..registry import OWN
from . import llm, plans, studio
from .judging import JudgeWish
from .sealed import sealed, unsealed

__all__ = ["Course", "RoundsWish", "course_of", "text_of", "wish_of"]

MAX_ROUNDS = MAX_PICTURES = 16
_SEEDS = 2**64
# Of fields that have another name than their widget.
_WIDGETS = {"mean": "threshold", "slot": "slot_threshold", "faces": "check_faces"}

_Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class RoundsWish(BaseModel):
    """What an Until Accepted's widgets say of all rounds.

    `quality` is a preset's name or "character's own"; `pictures` the batch of each round;
    `faces` whether the pictures' faces are compared with the character's references.
    """

    model_config = ConfigDict(frozen=True)

    writer: str
    judge: str
    seed: Annotated[int, Field(ge=0, lt=_SEEDS)]
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)]
    dialect: Dialect
    quality: str
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)]
    pictures: Annotated[int, Field(ge=1, le=MAX_PICTURES)]
    mean: _Share
    slot: _Share
    defects: bool
    faces: bool

    @property
    def judging(self) -> JudgeWish:
        """How pictures are judged."""
        return JudgeWish(self.judge, self.mean, self.slot, self.defects)


class Course(BaseModel):
    """How far a run is: the rounds so far, and the plan of the one that is being made.

    `asked` is the first plan, whose questions every round is judged by, and `sources` its making.
    `changed`, `reasoning` and `source` are of `plan`, against the round before; `controls` are
    those that steer its pictures. `best` is the number of the round that has the best picture so
    far. `gpu` are the reports of the guards in the rounds, as JSON.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    wish: RoundsWish
    asked: Plan
    sources: list[PlanSource] = []
    plan: Plan
    changed: list[str] = []
    reasoning: str = ""
    source: PlanSource | None = None
    controls: list[str] = []
    rounds: list[Round] = []
    best: int | None = None
    warnings: list[str] = []
    gpu: str = ""

    @property
    def seed(self) -> int:
        """The sampler's seed of the round that is being made."""
        return (self.wish.seed + len(self.rounds)) % _SEEDS

    @property
    def made(self) -> plans.MadePlan:
        """The plan of the round that is being made, with the steps that made it."""
        steps = [*self.sources, *(one.source for one in self.rounds[1:]), self.source]
        return plans.MadePlan(self.plan, tuple(step for step in steps if step is not None))

    def noting(self, *warnings: str) -> Course:
        """Return the course with more warnings, each once."""
        return self.model_copy(
            update={"warnings": list(dict.fromkeys([*self.warnings, *warnings]))}
        )


def wish_of(values: Mapping[str, object]) -> RoundsWish:
    """Return the wish that widgets make.

    Raises PlanError for values no widget has, ConfigError for services and preset.
    """
    try:
        wish = RoundsWish.model_validate(values, strict=True)
    except ValidationError as error:
        said = error.errors(include_url=False, include_input=False)[0]
        field = str(said["loc"][0])
        raise PlanError(f"{_WIDGETS.get(field, field)}: {said['msg']}.") from None
    llm.check_service(wish.judge, vision=True)
    llm.check_service(wish.writer)
    if wish.quality != OWN:
        studio.registry().quality_preset(wish.quality)
    return wish


def text_of(course: Course) -> str:
    """Return a course as sealed text, for a prompt."""
    return sealed(course.model_dump_json())


def course_of(text: str) -> Course:
    """Return the course in a sealed text. Raises PlanError where this process did not seal it."""
    course = unsealed(text)
    if course is None:
        raise PlanError(
            "course: Until Accepted did not write this. The node Judge Round is placed by Until "
            "Accepted while it runs, and is of no use elsewhere."
        )
    return Course.model_validate_json(course)
