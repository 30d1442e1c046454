"""Plans changed after a judgement, for the nodes."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import PlanError
from ..llm.judgement import Judgement
from ..llm.literal import Dialect, check_dialect
from ..llm.refine import Refined, allowed_changes, refine_plan
from ..llm.report import PlanSource
from ..llm.sampling import check_temperature, seed_of
from . import llm, plans, studio
from .judging import best_of, faces_of

__all__ = ["Change", "RefineWish", "RefinedPlan", "change_plan", "refine"]


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

    graph: plans.GraphPlan
    accepted: bool


@dataclass(frozen=True)
class Change:
    """A plan after a judgement, and who changed it; None where there was nothing to change."""

    refined: Refined
    source: PlanSource | None
    warnings: list[str]


def refine(made: object, judgements: object, wish: RefineWish, node_id: str) -> RefinedPlan:
    """Return the plan changed by what its best picture lacks.

    Raises PlanError for what is no plan or judgement, else as `plans.write`.
    """
    known = plans.check_plan(made)
    check_dialect(wish.dialect)
    listed = judgements if isinstance(judgements, list | tuple) else ()
    there = [one for one in listed if isinstance(one, Judgement)]
    best = best_of(there, faces_of(wish.report))
    if best is None:
        raise PlanError("judgement: it is of no picture that could be read. Connect Judge's.")
    done = change_plan(known, there[best], wish, node_id)
    sources = (*known.sources, done.source) if done.source else known.sources
    changed = plans.MadePlan(done.refined.plan, sources)
    graph = plans.graph_plan(changed, wish.dialect, _said(done.refined), done.warnings)
    return RefinedPlan(graph, done.refined.accepted)


def change_plan(
    made: plans.MadePlan,
    judgement: Judgement,
    wish: RefineWish,
    node_id: str,
    *,
    lease: bool = False,
) -> Change:
    """Let the service change a plan. Asks nothing, and wakes nobody, where it is accepted.

    `lease` is as for `llm.converse`. Raises ConfigError for the service, ServiceError or GpuError
    where it cannot answer, PlanError for a temperature or seed that is none.
    """
    key = llm.check_service(wish.service)
    seed = seed_of(wish.seed)
    check_temperature(wish.temperature)
    if not allowed_changes(judgement, wish.report):
        return Change(Refined(plan=made.plan, accepted=True, changed=[], reasoning=""), None, [])
    registry, vocabulary = studio.registry(), plans.vocabulary()
    refined, warnings = llm.converse(
        key,
        node_id,
        lambda chat: refine_plan(
            chat,
            made.plan,
            judgement,
            vocabulary,
            registry,
            report=wish.report,
            seed=seed,
            temperature=wish.temperature,
            tokens=llm.count_on(node_id, key),
        ),
        lease=lease,
    )
    source = PlanSource(
        step="refined",
        service=key,
        model=refined.model,
        seed=wish.seed,
        temperature=wish.temperature,
        change=refined.reasoning,
        dialect=wish.dialect,
    )
    return Change(refined, source, warnings)


def _said(done: Refined) -> str:
    if done.accepted:
        return "accepted: nothing to change"
    changed = ", ".join(done.changed) or "nothing"
    return f"changed {changed}: {done.reasoning}" if done.reasoning else f"changed {changed}"
