"""Until Consistent: which seed comes next, and what came out in the end.

Sampling is left to core's own nodes, one graph expansion a try. Between tries stands a plan, plain
data that travels as JSON through the expanded graph, and the judged pictures on disk.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ..errors import FaceError
from ..registry import content_hash
from ..runs.judged import JudgedPictures
from .consistency import (
    Given,
    JudgeRequest,
    Panel,
    best_score,
    judge_with_progress,
    panel_for,
    readable,
)
from .environment import versions
from .face_pictures import pictures_of
from .folders import judged_folder
from .images import to_image
from .recipes import recipe_for
from .sealed import sealed, unsealed

if TYPE_CHECKING:
    import torch

    from ..faces.engine import Picture
    from ..faces.verdict import PictureVerdict, Unreadable
    from .comfy_types import DynamicPrompt

__all__ = [
    "NextTry",
    "Outcome",
    "Plan",
    "advance",
    "plan_of",
    "recipe_of_run",
    "text_of",
    "unsatisfied",
    "widgets_key",
]

_SEEDS = 2**64
_GONE = "the picture of this seed is gone from the disk"
# Seeds whose verdicts need not be worked out again at each try.
_REMEMBERED = 4096
# What a node shows at most: lines, and pictures on the contact sheet.
_LINES, _SHEET = 12, 64

_verdicts: OrderedDict[tuple[str, int], dict[str, list[PictureVerdict]]] = OrderedDict()
# How often a run ended without enough pictures, by its widgets.
_unsatisfied: dict[str, int] = {}


class Plan(BaseModel):
    """What one run looks for and how far it is.

    `recipe` is what makes the pictures but for the seed, `sampling` the KSampler's part of it;
    `lasting` says whether the recipe can come again. `made` are the seeds sampled in this run in
    their order, `waiting` the one that is being sampled. `key` names the widgets for `unsatisfied`,
    and `state` changes with references and presets, so that ComfyUI's cache does.
    """

    model_config = ConfigDict(frozen=True)

    request: JudgeRequest
    recipe: str
    lasting: bool
    seed: int
    wanted: int
    limit: int
    pass_best: bool
    sampling: dict[str, int | float | str]
    key: str
    state: str
    made: list[int] = []
    waiting: int | None = None


def text_of(plan: Plan) -> str:
    """Return a plan as sealed text, for a prompt."""
    return sealed(plan.model_dump_json())


def plan_of(text: str) -> Plan:
    """Return the plan in a sealed text. Raises FaceError for one that this process did not seal."""
    plan = unsealed(text)
    if plan is None:
        raise FaceError(
            "plan: Until Consistent did not write this. The node Judge Try is placed by Until "
            "Consistent while it runs, and is of no use elsewhere."
        )
    return Plan.model_validate_json(plan)


@dataclass(frozen=True)
class NextTry:
    """The plan with the seed to sample now in `waiting`, and what the node shows meanwhile."""

    plan: Plan
    lines: list[str]


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `kept` is float [n, height, width, 3], None when nothing is passed on."""

    kept: torch.Tensor | None
    best: torch.Tensor | None
    scores: list[float]
    seeds: list[int]
    tries: int
    report: str
    sheet: torch.Tensor
    lines: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class _Judged:
    """Pictures judged so far, one verdict a picture, with the seed of each."""

    verdicts: list[PictureVerdict] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    @property
    def kept(self) -> int:
        return sum(verdict.keep for verdict in self.verdicts)


@cache
def _store() -> JudgedPictures:
    return JudgedPictures(judged_folder())


def recipe_of_run(values: Mapping[str, object], prompt: DynamicPrompt) -> tuple[str, bool]:
    """Return the recipe of a run, and whether it can come again; see `recipe_for`."""
    recipe = recipe_for(values, prompt)
    return recipe or uuid.uuid4().hex, recipe is not None


def widgets_key(values: Mapping[str, object]) -> str:
    """Return a name for a node's plain values; links and what comes by them do not count."""
    plain = {
        name: value for name, value in values.items() if isinstance(value, str | int | float | bool)
    }
    return content_hash(*(f"{name}={plain[name]!r}" for name in sorted(plain)))


def unsatisfied(key: str) -> int:
    """Return a number that is new after each run of these widgets that found too few pictures.

    A fingerprint that holds it makes the next run go on, in place of ComfyUI's cached result.
    """
    return _unsatisfied.get(key, 0)


def advance(plan: Plan, given: Given, images: torch.Tensor | None = None) -> NextTry | Outcome:
    """Take in the pictures of `plan.waiting`, and say what comes next.

    `images` is float [batch, height, width, 3]. Seeds go up by one from `plan.seed`. Pictures that
    were judged before, in this run or an earlier one, count without being sampled. Raises as
    `panel_for`.
    """
    panel = panel_for(plan.request, given)
    if images is not None and plan.waiting is not None:
        plan = _take_in(plan, plan.waiting, images)
    there = _store().seeds(plan.recipe)
    key = _panel_key(panel)
    judged = _Judged()
    seed = plan.seed
    while judged.kept < plan.wanted:
        verdicts = _verdicts_of(plan, panel, key, seed, there)
        if verdicts is None:
            if len(plan.made) >= plan.limit:
                break
            line = f"try {len(plan.made) + 1} of {plan.limit}: seed {seed}"
            waiting = plan.model_copy(update={"waiting": seed})
            return NextTry(waiting, [*_lines(plan, panel, judged), line])
        for verdict in verdicts:
            judged.verdicts.append(replace(verdict, index=len(judged.verdicts)))
            judged.seeds.append(seed)
        seed = (seed + 1) % _SEEDS
    return _outcome(plan, panel, judged)


def _take_in(plan: Plan, seed: int, images: torch.Tensor) -> Plan:
    # What is remembered of the seed is of pictures that are gone.
    _verdicts.pop((plan.recipe, seed), None)
    pictures = pictures_of([images])
    _store().add(plan.recipe, seed, pictures, lasting=plan.lasting, needed=plan.made)
    return plan.model_copy(update={"made": [*plan.made, seed], "waiting": None})


def _verdicts_of(
    plan: Plan, panel: Panel, key: str, seed: int, there: set[int]
) -> list[PictureVerdict] | None:
    """The verdicts of the panel `key` on a seed, None where it has not been sampled yet."""
    known = _verdicts.get((plan.recipe, seed), {})
    if key in known and (seed in there or seed in plan.made):
        return known[key]
    pictures = _store().get(plan.recipe, seed) if seed in there else None
    if pictures is None and seed in plan.made:
        # Gone while the run goes on. Whatever it showed: not once more.
        pictures = [_GONE]
    if pictures is None:
        _store().forget(plan.recipe, seed)
        return None
    known[key] = judge_with_progress(panel, readable(pictures))
    _verdicts[plan.recipe, seed] = known
    while len(_verdicts) > _REMEMBERED:
        _verdicts.popitem(last=False)
    return known[key]


def _panel_key(panel: Panel) -> str:
    subjects = (
        f"{one.references.character} {one.threshold} {one.references.vectors.tobytes().hex()}"
        for one in panel.subjects
    )
    return content_hash(panel.engine.model.sha256, repr(panel.settings), *subjects)


def _outcome(plan: Plan, panel: Panel, judged: _Judged) -> Outcome:
    from ..faces.judge import best_of
    from ..faces.report import Tries, report_of
    from ..faces.sheet import contact_sheet

    best = best_of(judged.verdicts)
    chosen = [index for index, verdict in enumerate(judged.verdicts) if verdict.keep]
    warnings = list(panel.warnings)
    if _store().problem:
        warnings.append(f"{_store().problem}: a later run will sample these seeds again")
    if len(chosen) < plan.wanted:
        _unsatisfied[plan.key] = _unsatisfied.get(plan.key, 0) + 1
        warnings.append(_too_few(plan, judged, pass_best=plan.pass_best and best is not None))
    if not chosen and plan.pass_best and best is not None:
        chosen = [best]
    on_sheet = _of_most_interest(judged, chosen)
    wanted = {*chosen, *on_sheet, *([] if best is None else [best])}
    pictures = _pictures(plan, judged, wanted)
    seeds = list(dict.fromkeys(judged.seeds))
    report = report_of(
        node="UntilConsistent",
        engine=panel.engine,
        subjects=panel.subjects,
        settings=panel.settings,
        verdicts=judged.verdicts,
        seeds=judged.seeds,
        tries=Tries(
            wanted=plan.wanted,
            limit=plan.limit,
            made=len(plan.made),
            seeds=seeds,
            judged_before=[seed for seed in seeds if seed not in plan.made],
        ),
        warnings=warnings,
        versions=versions(),
    )
    return Outcome(
        kept=_image(pictures, chosen),
        best=_image(pictures, [] if best is None else [best]),
        scores=[one.score if one.score is not None else -1.0 for one in judged.verdicts],
        seeds=seeds,
        tries=len(plan.made),
        report=report.as_json(),
        sheet=to_image(
            [contact_sheet([pictures[i] for i in on_sheet], [judged.verdicts[i] for i in on_sheet])]
        ),
        lines=_lines(plan, panel, judged),
        warnings=warnings,
    )


def _of_most_interest(judged: _Judged, chosen: Sequence[int]) -> list[int]:
    """What a contact sheet shows when there is too much: the chosen, then the latest."""
    latest = range(len(judged.verdicts) - 1, -1, -1)
    return sorted(list(dict.fromkeys([*chosen, *latest]))[:_SHEET])


def _pictures(
    plan: Plan, judged: _Judged, wanted: Collection[int]
) -> dict[int, Picture | Unreadable]:
    """Read the pictures of some verdicts, by index."""
    pictures: dict[int, Picture | Unreadable] = {}
    for seed in {judged.seeds[index] for index in wanted}:
        indices = [index for index, one in enumerate(judged.seeds) if one == seed]
        stored = _store().get(plan.recipe, seed)
        if stored is None or len(stored) != len(indices):
            stored = [_GONE] * len(indices)
        pictures.update(zip(indices, readable(stored), strict=True))
    return pictures


def _image(
    pictures: Mapping[int, Picture | Unreadable], chosen: Sequence[int]
) -> torch.Tensor | None:
    from ..faces.verdict import Unreadable

    there = [one for one in (pictures[i] for i in chosen) if not isinstance(one, Unreadable)]
    return to_image(there) if there else None


def _lines(plan: Plan, panel: Panel, judged: _Judged) -> list[str]:
    who = ", ".join(f"{one.references.name} from {one.threshold:.2f}" for one in panel.subjects)
    before = len({seed for seed in judged.seeds if seed not in plan.made})
    again = f", {before} judged in earlier runs" if before else ""
    both = list(zip(judged.seeds, judged.verdicts, strict=True))
    shown = [*(one for one in both[:-_LINES] if one[1].keep), *both[-_LINES:]]
    left_out = len(both) - len(shown)
    return [
        f"{judged.kept} of {plan.wanted} found, {len(plan.made)} tries{again}: {who}",
        f"{panel.engine.model}, {panel.engine.provider}",
        *([f"({left_out} more that did not pass)"] if left_out else []),
        *(f"seed {seed}: {verdict.reason}" for seed, verdict in shown),
    ]


def _too_few(plan: Plan, judged: _Judged, *, pass_best: bool) -> str:
    best = best_score(judged.verdicts)
    found = f"{judged.kept} of {plan.wanted} pictures passed after {len(plan.made)} tries, {best}"
    if judged.kept:
        then = "those are passed on"
    elif pass_best:
        then = "the best picture is passed on"
    else:
        then = "what comes after `kept` is not run"
    return f"{found}: {then}. Queue again to try new seeds."
