"""Until Consistent: which seed comes next, and what came out in the end.

Sampling is left to core's own nodes, one graph expansion a try. Between tries stands a plan, plain
data that travels as JSON through the expanded graph, and the judged pictures on disk.
"""

from __future__ import annotations

import math
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import folder_paths
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

import nodes as core_nodes

from ..errors import FaceError
from ..registry import content_hash
from ..runs.judged import RECIPE, JudgedPictures
from ..runs.provenance import recipe_of
from .consistency import Given, JudgeRequest, Panel, judge_with_progress, panel_for, readable
from .environment import versions
from .face_pictures import pictures_of
from .folders import judged_folder
from .images import to_image

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
    "recipe_for",
    "unsatisfied",
    "widgets_key",
]

_SEEDS = 2**64
_GONE = "the picture of this seed is gone from the disk"
# Verdicts that need not be worked out again at each try; a picture is judged anew beyond that.
_REMEMBERED = 4096

_verdicts: OrderedDict[tuple[str, int, str], list[PictureVerdict]] = OrderedDict()
# How many seeds were judged when a run ended without enough pictures, by its widgets.
_unsatisfied: dict[str, int] = {}


class Plan(BaseModel):
    """What one run looks for and how far it is.

    `recipe` is what makes the pictures, but for the seed, `sampling` the KSampler's part of it;
    `made` are the seeds sampled in this run
    in their order, `waiting` the one that is being sampled, `unreadable` the seeds whose pictures
    could not be read, with the reason. `key` names the widgets for `unsatisfied`, and `state`
    changes with references and presets, so that ComfyUI's cache does.

    As JSON it stands in a prompt, and prompts come from strangers too: every field is checked.
    """

    model_config = ConfigDict(frozen=True)

    request: JudgeRequest
    recipe: Annotated[str, StringConstraints(pattern=f"^{RECIPE}$")]
    seed: int = Field(ge=0, lt=_SEEDS)
    wanted: int = Field(ge=1, le=64)
    limit: int = Field(ge=1, le=256)
    pass_best: bool
    sampling: dict[str, int | float | str]
    key: str
    state: str
    made: list[int] = []
    waiting: int | None = None
    unreadable: dict[int, str] = {}


def plan_of(text: str) -> Plan:
    """Return the plan in a JSON text. Raises FaceError for one that is none."""
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        raise FaceError(
            f"plan: {error.error_count()} faults. This node is placed by Until Consistent while it "
            "runs; use that one."
        ) from error


@dataclass(frozen=True)
class NextTry:
    """The seed to sample now, the plan that goes with it, and what the node shows meanwhile."""

    seed: int
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

    verdicts: list[PictureVerdict]
    seeds: list[int]

    @property
    def kept(self) -> int:
        return sum(verdict.keep for verdict in self.verdicts)


@cache
def _store() -> JudgedPictures:
    return JudgedPictures(judged_folder())


def recipe_for(values: Mapping[str, object], prompt: DynamicPrompt) -> str:
    """Return what tells one recipe of pictures from another.

    `values` are what samples a picture, as plain values and links, without the seed. A recipe that
    cannot be told, since a node before it never gives the same twice, is one of its own each time.
    """

    def fingerprinted(key: str) -> Mapping[str, object]:
        node: Mapping[str, object] = prompt.get_node(key)
        kind = core_nodes.NODE_CLASS_MAPPINGS.get(str(node.get("class_type")))
        # Without its cache ComfyUI takes no fingerprints: what such a node reads is not known.
        if "is_changed" not in node and (
            hasattr(kind, "IS_CHANGED") or "fingerprint_inputs" in vars(kind or object)
        ):
            return {**node, "is_changed": math.nan}
        return node

    return recipe_of(fingerprinted, values, _file_stamp) or uuid.uuid4().hex


def _file_stamp(text: str) -> str:
    """Size and time of the model or input file that a widget names, "" where it names none."""
    if not 3 < len(text) < 260 or "." not in text or "\n" in text:
        return ""
    for kind in tuple(folder_paths.folder_names_and_paths):
        if kind == "custom_nodes":
            continue
        found = folder_paths.get_full_path(kind, text)
        if found:
            info = Path(found).stat()
            return f"{info.st_size} {info.st_mtime_ns}"
    return ""


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
        plan = _take_in(plan, pictures_of([images]))
    judged = _Judged([], [])
    seed = plan.seed
    while judged.kept < plan.wanted:
        verdicts = _verdicts_of(plan, panel, seed)
        if verdicts is None:
            if len(plan.made) >= plan.limit:
                break
            lines = [f"try {len(plan.made) + 1} of {plan.limit}: seed {seed}"]
            waiting = plan.model_copy(update={"waiting": seed})
            return NextTry(seed, waiting, [*_lines(plan, panel, judged), *lines])
        for verdict in verdicts:
            judged.verdicts.append(replace(verdict, index=len(judged.verdicts)))
            judged.seeds.append(seed)
        seed = (seed + 1) % _SEEDS
    return _outcome(plan, panel, judged)


def _take_in(plan: Plan, pictures: Sequence[Picture | str]) -> Plan:
    seed = plan.waiting
    assert seed is not None
    reason = next((one for one in pictures if isinstance(one, str)), None)
    unreadable = dict(plan.unreadable)
    if reason is None:
        _store().add(plan.recipe, seed, [one for one in pictures if not isinstance(one, str)])
    else:
        unreadable[seed] = reason
    return plan.model_copy(
        update={"made": [*plan.made, seed], "waiting": None, "unreadable": unreadable}
    )


def _verdicts_of(plan: Plan, panel: Panel, seed: int) -> list[PictureVerdict] | None:
    """The verdicts on a seed's pictures, None where it has not been sampled yet."""
    if seed in plan.unreadable:
        return judge_with_progress(panel, readable([plan.unreadable[seed]]))
    key = (plan.recipe, seed, _panel_key(panel))
    if key not in _verdicts or (plan.recipe, seed) not in _store():
        pictures = _store().get(plan.recipe, seed)
        if pictures is None and seed in plan.made:
            # Gone from the disk while the run goes on. Whatever it showed: not once more.
            return _verdicts.get(key) or judge_with_progress(panel, readable([_GONE]))
        if pictures is None:
            _store().forget(plan.recipe, seed)
            return None
        _verdicts[key] = judge_with_progress(panel, pictures)
        while len(_verdicts) > _REMEMBERED:
            _verdicts.popitem(last=False)
    return _verdicts[key]


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

    pictures = _pictures(plan, judged)
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
        sheet=to_image([contact_sheet(pictures, judged.verdicts)]),
        lines=_lines(plan, panel, judged),
        warnings=warnings,
    )


def _pictures(plan: Plan, judged: _Judged) -> list[Picture | Unreadable]:
    pictures: list[Picture | Unreadable] = []
    for seed in dict.fromkeys(judged.seeds):
        count = judged.seeds.count(seed)
        stored = None if seed in plan.unreadable else _store().get(plan.recipe, seed)
        reason = plan.unreadable.get(seed, _GONE)
        pictures += stored or readable([reason] * count)
    return pictures


def _image(pictures: Sequence[Picture | Unreadable], chosen: Sequence[int]) -> torch.Tensor | None:
    from ..faces.verdict import Unreadable

    there = [one for one in (pictures[i] for i in chosen) if not isinstance(one, Unreadable)]
    return to_image(there) if there else None


def _lines(plan: Plan, panel: Panel, judged: _Judged) -> list[str]:
    who = ", ".join(f"{one.references.name} from {one.threshold:.2f}" for one in panel.subjects)
    before = len({seed for seed in judged.seeds if seed not in plan.made})
    again = f", {before} judged in earlier runs" if before else ""
    return [
        f"{judged.kept} of {plan.wanted} found, {len(plan.made)} tries{again}: {who}",
        f"{panel.engine.model}, {panel.engine.provider}",
        *(
            f"seed {seed}: {verdict.reason}"
            for seed, verdict in zip(judged.seeds, judged.verdicts, strict=True)
        ),
    ]


def _too_few(plan: Plan, judged: _Judged, *, pass_best: bool) -> str:
    scores = [verdict.score for verdict in judged.verdicts if verdict.score is not None]
    best = f"the best score is {max(scores):.2f}" if scores else "no picture had a face to score"
    found = f"{judged.kept} of {plan.wanted} pictures passed after {len(plan.made)} tries, {best}"
    if judged.kept:
        then = "those are passed on"
    elif pass_best:
        then = "the best picture is passed on"
    else:
        then = "what comes after `kept` is not run"
    return f"{found}: {then}. Queue again to try new seeds."
