"""Until Accepted: write, make, check, judge, change the plan, and again, the best picture kept.

Making pictures is left to nodes, one graph expansion a round. Between rounds stands a course, plain
data that travels as sealed JSON through the expanded graph.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ..errors import ConfigError, ControlError, PlanError
from ..llm.assembly import Dialect
from ..llm.judge import compare_pictures
from ..llm.judgement import Judgement
from ..llm.pictures import encoded
from ..llm.plan import Plan
from ..llm.questions import plan_summary
from ..llm.report import FacesSeen, PlanSource, Round, judgement_report
from ..registry import NONE, OWN, SamplingValues, sampling_for
from . import controls, face_references, llm, plans, studio
from .environment import versions
from .face_pictures import pictures_of, single_images
from .judging import JudgeWish, judge_all
from .refining import RefineWish, change_plan
from .sealed import sealed, unsealed

if TYPE_CHECKING:
    import torch

    from ..faces.engine import Picture

__all__ = [
    "Course",
    "Finished",
    "NextRound",
    "RoundsWish",
    "advance",
    "begin",
    "best_image",
    "check",
    "course_of",
    "text_of",
]

_SEEDS = 2**64
# Means that lie nearer than this say nothing: the two pictures are compared with each other.
_CLOSE = 0.05
_OPENPOSE = "openpose"


class RoundsWish(BaseModel):
    """What an Until Accepted's widgets say of all rounds.

    `quality` is a preset's name or "character's own"; `pictures` the batch of each round;
    `faces` whether the pictures' faces are compared with the character's references.
    """

    model_config = ConfigDict(frozen=True)

    writer: str
    judge: str
    seed: int
    temperature: float
    dialect: Dialect
    quality: str
    rounds: int
    pictures: int
    mean: float
    slot: float
    defects: bool
    faces: bool

    @property
    def judging(self) -> JudgeWish:
        """How pictures are judged."""
        return JudgeWish(self.judge, self.mean, self.slot, self.defects)


class Course(BaseModel):
    """How far a run is: the rounds so far, and the plan of the one that is being made.

    `best` is the number of the round that has the best picture so far, `best_index` its place in
    that round's batch. `changed` and `reasoning` are of `plan`, against the round before.
    """

    model_config = ConfigDict(frozen=True)

    wish: RoundsWish
    plan: Plan
    source: PlanSource | None = None
    changed: list[str] = []
    reasoning: str = ""
    rounds: list[Round] = []
    best: int | None = None
    best_index: int = 0
    warnings: list[str] = []

    @property
    def seed(self) -> int:
        """The sampler's seed of the round that is being made."""
        return (self.wish.seed + len(self.rounds)) % _SEEDS


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


@dataclass(frozen=True)
class NextRound:
    """A round to make: what its nodes get, and what the node shows meanwhile.

    `pose` is that of an openpose control, None where the picture has none; `faces` whether they
    are compared with references. `is_best` says that the
    round before has the best picture so far.
    """

    course: Course
    parts: plans.PlanParts
    sampling: SamplingValues
    pose: str | None
    guard: bool
    faces: bool
    is_best: bool
    lines: list[str]


@dataclass(frozen=True)
class Finished:
    """How a run ended. `is_last` says that the last round has the best picture."""

    course: Course
    round: Round
    is_last: bool
    parts: plans.PlanParts
    sampling: SamplingValues
    report: str
    lines: list[str]
    warnings: list[str]


def check(wish: RoundsWish) -> None:
    """Raise ConfigError or PlanError for what no round could be judged with, before any is made."""
    llm.check_service(wish.judge, vision=True)
    llm.check_service(wish.writer)
    _ = wish.judging.rules
    if wish.quality != OWN:
        studio.registry().quality_preset(wish.quality)


def begin(wish: RoundsWish, made: plans.PlanParts) -> NextRound:
    """Return the first round of a plan."""
    return _round(
        Course(wish=wish, plan=made.made.plan, source=made.made.source, warnings=made.warnings)
    )


def advance(
    course: Course,
    images: torch.Tensor,
    best: torch.Tensor | None,
    report: str,
    node_id: str,
) -> NextRound | Finished:
    """Take in a round's pictures, float [batch, height, width, 3], and say what comes next.

    `best` is the batch that has the best picture so far; `report` the consistency report of the
    new one, or empty. Raises as `judging.judge` and `refining.refine`.
    """
    pictures = pictures_of([images])
    judgements, warnings = judge_all(pictures, course.plan, course.wish.judging, node_id)
    faces = _faces(report)
    index = _chosen(judgements, faces)
    this = Round(
        number=len(course.rounds) + 1,
        seed=course.seed,
        plan=course.plan,
        judgement=judgements[index],
        faces=faces.get(judgements[index].picture),
        changed=course.changed,
        reasoning=course.reasoning,
    )
    picture = pictures[index]
    before = None if best is None else pictures_of([best])[course.best_index]
    is_best = _beats(this, picture, course, before, node_id)
    course = course.model_copy(
        update={
            "rounds": [*course.rounds, this],
            "warnings": list(dict.fromkeys([*course.warnings, *warnings])),
            **({"best": this.number, "best_index": index} if is_best else {}),
        }
    )
    if this.accepted or len(course.rounds) >= course.wish.rounds:
        return _finished(course, is_last=is_best)
    wish = RefineWish(
        course.wish.writer,
        (course.wish.seed + len(course.rounds)) % _SEEDS,
        course.wish.temperature,
        course.wish.dialect,
        report,
    )
    done, more = change_plan(course.plan, this.judgement, wish, node_id)
    course = course.model_copy(
        update={
            "plan": done.plan,
            "changed": done.changed,
            "reasoning": done.reasoning,
            "warnings": list(dict.fromkeys([*course.warnings, *more])),
        }
    )
    return _round(course, is_best=is_best)


def best_image(images: torch.Tensor, index: int) -> torch.Tensor:
    """Return one picture of a batch as [1, height, width, channels]."""
    return single_images([images])[index]


def _round(course: Course, *, is_best: bool = False) -> NextRound:
    parts = plans.parts_of(_made(course), course.wish.dialect)
    pose, said = _pose(course.plan)
    course = course.model_copy(
        update={"warnings": list(dict.fromkeys([*course.warnings, *parts.warnings, *said]))}
    )
    registry = studio.registry()
    return NextRound(
        course=course,
        parts=parts,
        sampling=_sampling(course),
        pose=pose,
        guard=registry.gpu_settings().automatic_leases and bool(registry.services),
        faces=course.wish.faces and _has_references(course.plan.character),
        is_best=is_best,
        lines=[
            *_lines(course),
            f"round {len(course.rounds) + 1} of {course.wish.rounds}: {parts.scene}",
        ],
    )


def _made(course: Course) -> plans.MadePlan:
    return plans.MadePlan(course.plan, course.source)


def _sampling(course: Course) -> SamplingValues:
    registry, vocabulary = studio.registry(), studio.vocabulary()
    who = course.plan.character
    character = None if who == NONE else registry.character(who)
    own = sampling_for(registry, character=character, vocabulary=vocabulary)
    if course.wish.quality == OWN:
        return own
    return sampling_for(
        registry,
        quality=course.wish.quality,
        own=own if character else None,
        vocabulary=vocabulary,
    )


def _pose(plan: Plan) -> tuple[str | None, list[str]]:
    """The pose to draw for an openpose control, None where there is none or no ControlNet."""
    wanted = [one for one in plan.controls if one.type == _OPENPOSE and one.pose != NONE]
    if not wanted:
        return None, []
    try:
        controls.check_control(_OPENPOSE)
    except (ConfigError, ControlError) as error:
        return None, [f"without the pose {wanted[0].pose!r} that the plan wants: {error}"]
    return wanted[0].pose, []


def _has_references(character: str) -> bool:
    return character != NONE and any(
        file.is_file() for file in face_references.reference_files(character)
    )


def _faces(report: str) -> dict[str, FacesSeen]:
    from ..faces.report import verdicts_by_picture

    return {
        picture: FacesSeen(kept=bool(verdict["keep"]), reason=str(verdict["reason"]))
        for picture, verdict in verdicts_by_picture(report).items()
    }


def _chosen(judgements: Sequence[Judgement], faces: dict[str, FacesSeen]) -> int:
    """The best of a batch: one with the character's face before others, then as it was judged.

    Raises PlanError where not one can be read.
    """

    def rank(index: int) -> tuple[bool, bool, float]:
        one = judgements[index]
        seen = faces.get(one.picture)
        return seen is None or seen.kept, one.accepted, one.mean

    there = [index for index, one in enumerate(judgements) if one.picture]
    if not there:
        raise PlanError(f"no picture of this round can be judged: {judgements[0].reason}")
    return max(there, key=rank)


def _beats(
    this: Round, picture: Picture | str, course: Course, before: Picture | str | None, node_id: str
) -> bool:
    """Whether a round's picture is better than the best so far."""
    if course.best is None or before is None:
        return True
    best = course.rounds[course.best - 1]
    ranks = [(one.faces is None or one.faces.kept, one.judgement.accepted) for one in (this, best)]
    if ranks[0] != ranks[1]:
        return ranks[0] > ranks[1]
    better = this.judgement.mean > best.judgement.mean
    if abs(this.judgement.mean - best.judgement.mean) >= _CLOSE:
        return better
    if isinstance(picture, str) or isinstance(before, str):
        return better
    first = _first_is_better(picture, before, course, node_id)
    return better if first is None else first


def _first_is_better(first: Picture, second: Picture, course: Course, node_id: str) -> bool | None:
    """Whether the first of two pictures fits the first plan better; None where it is undecided.

    What the sentence asked for stands in the plan that was written first.
    """
    key = llm.check_service(course.wish.judge, vision=True)
    plan = course.rounds[0].plan
    asked = plan_summary(plan, studio.registry())
    parallel = asyncio.Semaphore(studio.registry().service(key).parallel)
    one, other = encoded(first), encoded(second)
    done, _ = llm.converse(
        key, node_id, lambda chat: compare_pictures(chat, one, other, asked, slots=parallel)
    )
    return None if done.winner is None else done.winner == "first"


def _finished(course: Course, *, is_last: bool) -> Finished:
    assert course.best is not None
    best = course.rounds[course.best - 1]
    warnings = list(course.warnings)
    if not best.accepted:
        warnings.append(
            f"no picture was accepted in {len(course.rounds)} rounds; the best one, of round "
            f"{best.number}, is passed on: {_why(best)}"
        )
    finished = course.model_copy(update={"plan": best.plan})
    report = judgement_report(
        "UntilAccepted",
        best.plan,
        [best.judgement],
        source=course.source,
        rounds=course.rounds,
        best=best.number,
        warnings=warnings,
        versions=versions(),
    )
    return Finished(
        course=finished,
        round=best,
        is_last=is_last,
        parts=plans.parts_of(_made(finished), course.wish.dialect),
        sampling=_sampling(finished),
        report=report.as_json(),
        lines=_lines(course),
        warnings=warnings,
    )


def _lines(course: Course) -> list[str]:
    lines = []
    for one in course.rounds:
        changed = f", changed {', '.join(one.changed)}" if one.changed else ""
        mark = " (best)" if one.number == course.best else ""
        lines.append(f"round {one.number}{mark}: seed {one.seed}{changed}: {_why(one)}")
    return lines


def _why(one: Round) -> str:
    faces = f"; faces: {one.faces.reason}" if one.faces else ""
    return f"{one.judgement.reason}{faces}"
