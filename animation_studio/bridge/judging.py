"""Pictures judged against a plan by a vision model, for the nodes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import PlanError
from ..llm.chat import ChatClient
from ..llm.judge import judge_pictures
from ..llm.judgement import Asked, Judgement, JudgementRules, judgement_of
from ..llm.pictures import encoded
from ..llm.plan import Plan
from ..llm.questions import questions_for
from ..llm.report import FacesSeen, judgement_report
from . import gpu, llm, studio
from .environment import versions
from .face_pictures import batches_of, pictures_of, single_images
from .plans import MadePlan

if TYPE_CHECKING:
    import torch

    from ..faces.engine import Picture

__all__ = ["JudgeWish", "Judged", "best_of", "faces_of", "judge", "judge_all"]

# Lines that a node shows at most.
_LINES = 16


@dataclass(frozen=True)
class JudgeWish:
    """What a Judge's widgets say; `service` is a key of services.yaml or `auto`."""

    service: str
    mean: float = 0.7
    slot: float = 0.3
    defects: bool = True

    @property
    def rules(self) -> JudgementRules:
        """When a picture is accepted. Raises PlanError for thresholds that are none."""
        for name, value in (("threshold", self.mean), ("slot_threshold", self.slot)):
            known = isinstance(value, int | float) and math.isfinite(value)
            if not (known and 0.0 <= value <= 1.0):
                raise PlanError(f"{name} {value}: give a number from 0 to 1.")
        return JudgementRules(mean=self.mean, slot=self.slot)


@dataclass(frozen=True)
class Judged:
    """Pictures with their judgements in the order they came.

    `accepted` and `rejected` are lists of batches of one size; pictures that cannot be read are in
    neither. `scores` are the means, -1 where a picture could not be read.
    """

    accepted: list[torch.Tensor]
    rejected: list[torch.Tensor]
    best: torch.Tensor | None
    judgements: tuple[Judgement, ...]
    scores: list[float]
    report: str
    lines: list[str]
    warnings: list[str]


def judge(
    images: Sequence[torch.Tensor],
    made: MadePlan,
    wish: JudgeWish,
    node_id: str,
    *,
    pass_best: bool = False,
) -> Judged:
    """Judge every picture of a list of batches, float [batch, height, width, channels].

    With `pass_best` the best picture takes the place of `accepted` where none is. Raises
    ConfigError for the service, PlanError for thresholds, ServiceError or GpuError where the
    service cannot answer, FaceError where no picture came.
    """
    singles = single_images(images)
    judgements, warnings = judge_all(pictures_of(images), made.plan, wish, node_id)
    accepted = [one for one, said in zip(singles, judgements, strict=True) if said.accepted]
    rejected = [
        one
        for one, said in zip(singles, judgements, strict=True)
        if said.picture and not said.accepted
    ]
    best = best_of(judgements)
    if unreadable := [str(n) for n, said in enumerate(judgements, 1) if not said.picture]:
        warnings.append(f"left out, since they cannot be read: {', '.join(unreadable)}")
    if not accepted:
        then = "what comes after `accepted` is not run"
        if pass_best and best is not None:
            accepted, then = [singles[best]], "the best picture is passed on"
        warnings.append(f"none of {len(singles)} pictures was accepted: {then}")
    report = judgement_report(
        "Judge",
        made.plan,
        judgements,
        sources=made.sources,
        warnings=warnings,
        versions=versions(),
    )
    return Judged(
        accepted=batches_of(accepted),
        rejected=batches_of(rejected),
        best=None if best is None else singles[best],
        judgements=tuple(judgements),
        scores=[one.mean if one.picture else -1.0 for one in judgements],
        report=report.as_json(),
        lines=_lines(judgements),
        warnings=warnings,
    )


def judge_all(
    pictures: Sequence[Picture | str],
    plan: Plan,
    wish: JudgeWish,
    node_id: str,
    *,
    lease: bool = False,
) -> tuple[list[Judgement], list[str]]:
    """Judge pictures, uint8 [height, width, 3] RGB; a text is why one could not be read.

    Returns one judgement a picture, and warnings. Nothing is asked about what cannot be read, and
    its judgement names no picture. `lease` is as for `llm.converse`. Raises as `judge`.
    """
    from ..faces.verdict import picture_sha256

    key = llm.check_service(wish.service, vision=True)
    entry = studio.registry().service(key)
    asked, rules = questions_for(plan, studio.registry(), wish.defects), wish.rules
    readable = [one for one in pictures if not isinstance(one, str)]
    total, done = len(readable) * len(asked), 0

    def answered() -> None:
        nonlocal done
        done += 1
        gpu.show(node_id, f"{key}: {done} of {total} answers")

    async def work(chat: ChatClient) -> list[Judgement]:
        loop = asyncio.get_running_loop()
        files = [
            (await loop.run_in_executor(None, encoded, one), picture_sha256(one))
            for one in readable
        ]
        return await judge_pictures(
            chat,
            files,
            asked,
            rules,
            service=key,
            slots=asyncio.Semaphore(entry.parallel),
            progress=answered,
        )

    if not asked:
        made = [
            judgement_of(picture_sha256(one), [], rules, service=key, model="") for one in readable
        ]
        warnings = ["the plan says nothing that a picture could be asked about: all are accepted"]
    else:
        made, warnings = llm.converse(key, node_id, work, lease=lease) if readable else ([], [])
    given = iter(made)
    return [
        _unreadable(one, asked, rules, key) if isinstance(one, str) else next(given)
        for one in pictures
    ], warnings


def faces_of(report: str) -> dict[str, FacesSeen]:
    """Return what a consistency report says, by picture. Raises FaceError for one that is none."""
    from ..faces.report import verdicts_by_picture

    return {
        picture: FacesSeen(kept=bool(said["keep"]), reason=str(said["reason"]), verdict=said)
        for picture, said in verdicts_by_picture(report).items()
    }


def best_of(
    judgements: Sequence[Judgement], faces: Mapping[str, FacesSeen] | None = None
) -> int | None:
    """Return the index of the best picture, None where none can be read.

    The character's face comes first, where `faces` tells, then accepted, then the higher mean.
    """

    def rank(index: int) -> tuple[bool, bool, float]:
        one = judgements[index]
        seen = (faces or {}).get(one.picture)
        return seen is None or seen.kept, one.accepted, one.mean

    there = [index for index, one in enumerate(judgements) if one.picture]
    return max(there, key=rank, default=None)


def _unreadable(
    reason: str, asked: Sequence[Asked], rules: JudgementRules, service: str
) -> Judgement:
    judgement = judgement_of("", [], rules, service=service, model="", unanswered=asked)
    said = {"reason": f"it cannot be read: {reason}", "accepted": False, "mean": 0.0}
    return judgement.model_copy(update=said)


def _lines(judgements: Sequence[Judgement]) -> list[str]:
    accepted = sum(one.accepted for one in judgements)
    first = next((one for one in judgements if one.model), judgements[0])
    lines = [
        f"{accepted} of {len(judgements)} accepted: {first.service} ({first.model or 'not asked'})"
    ]
    for number, one in enumerate(judgements, 1):
        lines.append(f"{number}: {one.reason}")
        if not one.accepted and one.picture:
            lines += [f"  {text}" for text in one.suggestions()[:3]]
    left_out = len(lines) - _LINES
    return lines if left_out <= 1 else [*lines[:_LINES], f"({left_out} more lines in the report)"]
