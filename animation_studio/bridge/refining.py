"""Plans changed after a judgement, for the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import PlanError
from ..llm.assembly import Dialect
from ..llm.judgement import Judgement
from ..llm.plan import Plan
from ..llm.refine import Refined, allowed_changes, refine_plan
from . import llm, plans, studio
from .judging import best_of

__all__ = ["RefineWish", "RefinedPlan", "change_plan", "refine"]


@dataclass(frozen=True)
class RefineWish:
    """What a Refine's widgets say; `report` is a consistency report as JSON, or empty."""

    service: str
    seed: int = 0
    temperature: float = 0.7
    dialect: Dialect = "prose"
    report: str = ""


@dataclass(frozen=True)
class RefinedPlan:
    """A plan with what a graph takes of it; `accepted` where there was nothing to change."""

    parts: plans.PlanParts
    accepted: bool


def refine(
    plan: object, judgements: Sequence[object], wish: RefineWish, node_id: str
) -> RefinedPlan:
    """Return the plan changed by what its best picture lacks.

    Raises PlanError for what is no plan or judgement, else as `plans.write`.
    """
    made = plans.check_plan(plan)
    there = [one for one in judgements if isinstance(one, Judgement)]
    best = best_of(there)
    if best is None:
        raise PlanError("judgement: it is of no picture that could be read. Connect Judge's.")
    done, warnings = change_plan(made.plan, there[best], wish, node_id)
    said = "accepted: nothing to change" if done.accepted else _said(done)
    changed = replace(made, plan=done.plan)
    return RefinedPlan(plans.parts_of(changed, wish.dialect, said, warnings), done.accepted)


def change_plan(
    plan: Plan, judgement: Judgement, wish: RefineWish, node_id: str
) -> tuple[Refined, list[str]]:
    """Let the service change a plan; return it with warnings. Asks nothing where it is accepted.

    Raises ConfigError for the service, ServiceError or GpuError where it cannot answer.
    """
    key = llm.check_service(wish.service)
    if not allowed_changes(judgement, wish.report):
        return Refined(plan=plan, accepted=True, changed=[], reasoning=""), []
    registry, vocabulary = studio.registry(), plans.vocabulary()
    return llm.converse(
        key,
        node_id,
        lambda chat: refine_plan(
            chat,
            plan,
            judgement,
            vocabulary,
            registry,
            report=wish.report,
            seed=wish.seed % 2**63,
            temperature=wish.temperature,
            tokens=llm.count_on(node_id, key),
        ),
    )


def _said(done: Refined) -> str:
    changed = ", ".join(done.changed) or "nothing"
    return f"changed {changed}: {done.reasoning}" if done.reasoning else f"changed {changed}"
