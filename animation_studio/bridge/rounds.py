"""Until Accepted: write, make, check, judge, change the plan, and again, the best picture kept.

Making pictures is left to nodes, one graph expansion a round. Between rounds stands a course, plain
data that travels as sealed JSON through the expanded graph; the best picture so far waits in this
process, so that no round is ever made twice, whatever ComfyUI caches.

Every round is judged by the questions of the first plan. What is changed afterwards is how the
picture is made, so the plan cannot drift away from what was asked for.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import PlanError
from ..gpu.report import reports_json, reports_of
from ..llm.judge import compare_pictures
from ..llm.pictures import encoded
from ..llm.plan import Plan
from ..llm.questions import plan_summary
from ..llm.report import Round, judgement_report
from ..registry import NONE, OWN, Look, SamplingValues, sampling_for
from . import face_references, llm, plans, studio
from .course import Course, RoundsWish, course_of, text_of, wish_of
from .environment import versions
from .face_pictures import pictures_of, single_images
from .judging import best_of, faces_of, judge_all
from .refining import RefineWish, change_plan
from .round_controls import pose_of

if TYPE_CHECKING:
    import torch

    from ..faces.engine import Picture

__all__ = [
    "Course",
    "Finished",
    "Made",
    "NextRound",
    "RoundsWish",
    "advance",
    "begin",
    "course_of",
    "text_of",
    "wish_of",
]

# Means that lie nearer than this say nothing: the two pictures are compared with each other.
_CLOSE = 0.05
# Runs whose best picture is kept; one that was interrupted leaves its behind.
_REMEMBERED = 8


@dataclass(frozen=True)
class Made:
    """What a round's nodes made: pictures as float [batch, height, width, 3], and their look.

    `faces` is a consistency report, `gpu` the guard's; empty where there was none.
    """

    images: torch.Tensor
    look: Look
    faces: str = ""
    gpu: str = ""


@dataclass(frozen=True)
class NextRound:
    """A round to make: what its nodes get, and what the node shows meanwhile.

    `pose` is that of an openpose control, None where the picture has none; `faces` whether they
    are compared with references; `guard` whether the language model may have to make room.
    """

    course: Course
    graph: plans.GraphPlan
    sampling: SamplingValues
    pose: str | None
    guard: bool
    faces: bool
    lines: list[str]


@dataclass(frozen=True)
class Finished:
    """How a run ended: the best picture, float [1, height, width, 3], and what made it."""

    image: torch.Tensor
    look: Look
    round: Round
    graph: plans.GraphPlan
    sampling: SamplingValues
    report: str
    gpu: str
    rounds: int
    lines: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class _Best:
    image: torch.Tensor
    look: Look


# The best picture so far, by the course's id.
_best: OrderedDict[str, _Best] = OrderedDict()


def begin(wish: RoundsWish, first: plans.GraphPlan) -> NextRound:
    """Return the first round of a plan."""
    plan = first.made.plan
    return _round(
        Course(
            id=uuid.uuid4().hex,
            wish=wish,
            asked=plan,
            sources=list(first.made.sources),
            plan=plan,
            warnings=first.warnings,
        )
    )


def advance(course: Course, made: Made, node_id: str) -> NextRound | Finished:
    """Take in a round's pictures, and say what comes next.

    Raises as `judging.judge` and `refining.refine`, and PlanError where no picture can be judged.
    """
    wish = course.wish
    pictures = pictures_of([made.images])
    judgements, warnings = judge_all(pictures, course.asked, wish.judging, node_id, lease=True)
    faces = faces_of(made.faces)
    index = best_of(judgements, faces)
    if index is None:
        raise PlanError(f"no picture of this round can be judged: {judgements[0].reason}")
    this = Round(
        number=len(course.rounds) + 1,
        seed=course.seed,
        index=index,
        batch_size=len(pictures),
        plan=course.plan,
        judgement=judgements[index],
        faces=faces.get(judgements[index].picture),
        controls=course.controls,
        changed=course.changed,
        reasoning=course.reasoning,
        source=course.source,
    )
    gpu = reports_json([*reports_of(course.gpu), *reports_of(made.gpu)])
    image = single_images([made.images])[index]
    is_best = _beats(this, pictures[index], course, node_id)
    if is_best:
        _best[course.id] = _Best(image, made.look)
        while len(_best) > _REMEMBERED:
            _best.popitem(last=False)
    course = course.noting(*warnings).model_copy(
        update={
            "rounds": [*course.rounds, this],
            "best": this.number if is_best else course.best,
            "gpu": gpu,
        }
    )
    if this.accepted or len(course.rounds) >= wish.rounds:
        return _finished(course)
    asking = RefineWish(wish.writer, course.seed, wish.temperature, wish.dialect, made.faces)
    change = change_plan(course.made, this.judgement, asking, node_id, lease=True)
    return _round(
        course.noting(*change.warnings).model_copy(
            update={
                "plan": change.refined.plan,
                "changed": change.refined.changed,
                "reasoning": change.refined.reasoning,
                "source": change.source,
            }
        )
    )


def _round(course: Course) -> NextRound:
    graph = plans.graph_plan(course.made, course.wish.dialect)
    pose, controls, said = pose_of(course.plan)
    course = course.noting(*graph.warnings, *said).model_copy(update={"controls": controls})
    return NextRound(
        course=course,
        graph=graph,
        sampling=_sampling(course.wish, course.plan),
        pose=pose,
        guard=bool(studio.registry().services),
        faces=course.wish.faces and _has_references(course.plan.character),
        lines=[
            *_lines(course),
            f"round {len(course.rounds) + 1} of {course.wish.rounds}: {graph.scene}",
        ],
    )


def _sampling(wish: RoundsWish, plan: Plan) -> SamplingValues:
    registry, vocabulary = studio.registry(), studio.vocabulary()
    character = None if plan.character == NONE else registry.character(plan.character)
    own = sampling_for(registry, character=character, vocabulary=vocabulary)
    if wish.quality == OWN:
        return own
    return sampling_for(
        registry, quality=wish.quality, own=own if character else None, vocabulary=vocabulary
    )


def _has_references(character: str) -> bool:
    return character != NONE and any(
        file.is_file() for file in face_references.reference_files(character)
    )


def _beats(this: Round, picture: Picture | str, course: Course, node_id: str) -> bool:
    """Whether a round's picture is better than the best so far."""
    kept = _best.get(course.id)
    if course.best is None or kept is None:
        return True
    best = course.rounds[course.best - 1]
    ranks = [(one.faces is None or one.faces.kept, one.judgement.accepted) for one in (this, best)]
    if ranks[0] != ranks[1]:
        return ranks[0] > ranks[1]
    better = this.judgement.mean > best.judgement.mean
    if abs(this.judgement.mean - best.judgement.mean) >= _CLOSE:
        return better
    before = pictures_of([kept.image])[0]
    if isinstance(picture, str) or isinstance(before, str):
        return better
    first = _first_is_better(picture, before, course, node_id)
    return better if first is None else first


def _first_is_better(first: Picture, second: Picture, course: Course, node_id: str) -> bool | None:
    """Whether the first of two pictures fits what was asked better; None where it is undecided."""
    summary = plan_summary(course.asked, studio.registry())
    if not summary:
        return None
    key = llm.check_service(course.wish.judge, vision=True)
    parallel = asyncio.Semaphore(studio.registry().service(key).parallel)
    one, other = encoded(first), encoded(second)
    done, _ = llm.converse(
        key,
        node_id,
        lambda chat: compare_pictures(chat, one, other, summary, slots=parallel),
        lease=True,
    )
    return None if done.winner is None else done.winner == "first"


def _finished(course: Course) -> Finished:
    kept = _best.pop(course.id, None)
    if course.best is None or kept is None:
        raise PlanError(
            "course: the best picture of this run is not in this process any more. Queue it again."
        )
    best = course.rounds[course.best - 1]
    warnings = list(course.warnings)
    if not best.accepted:
        warnings.append(
            f"no picture was accepted in {len(course.rounds)} rounds; the best one, of round "
            f"{best.number}, is passed on: {_why(best)}"
        )
    steps = (one.source for one in course.rounds[: best.number])
    made = plans.MadePlan(best.plan, (*course.sources, *(step for step in steps if step)))
    report = judgement_report(
        "UntilAccepted",
        best.plan,
        [best.judgement],
        sources=made.sources,
        rounds=course.rounds,
        best=best.number,
        warnings=warnings,
        versions=versions(),
    )
    return Finished(
        image=kept.image,
        look=kept.look,
        round=best,
        graph=plans.graph_plan(made, course.wish.dialect),
        sampling=_sampling(course.wish, best.plan),
        report=report.as_json(),
        gpu=course.gpu,
        rounds=len(course.rounds),
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
