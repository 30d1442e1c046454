"""Plans for nodes: written by a language model or by hand, and what a graph takes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import PlanError
from ..llm.assembly import scene_of
from ..llm.literal import Dialect, check_dialect
from ..llm.plan import Plan, checked_plan
from ..llm.plan_text import plan_as_text, plan_from_text
from ..llm.report import PlanSource
from ..llm.vocabulary import Vocabulary, vocabulary_of
from ..llm.writer import Brief, Written, check_brief, write_plan
from ..registry import NONE, content_hash
from . import llm, studio
from .written import keep, last_model, written_before

__all__ = [
    "GraphPlan",
    "MadePlan",
    "WriteRequest",
    "cast_hash",
    "check_plan",
    "graph_plan",
    "plan_by_hand",
    "vocabulary",
    "write",
]


@dataclass(frozen=True)
class MadePlan:
    """What travels between nodes: a plan with the steps of its making; none for one by hand."""

    plan: Plan
    sources: tuple[PlanSource, ...] = ()


@dataclass(frozen=True)
class WriteRequest:
    """What a Prompt Writer's widgets say; `service` is a key of services.yaml or `auto`.

    `earlier` is a plan that is to be changed as `change` says.
    """

    sentence: str
    service: str
    seed: int = 0
    temperature: float = 0.3
    dialect: Dialect = "prose"
    character: str = NONE
    earlier: MadePlan | None = None
    change: str = ""


@dataclass(frozen=True)
class GraphPlan:
    """A plan with what a graph takes of it, and what a node shows."""

    made: MadePlan
    scene: str
    negative: str
    script: str
    text: str
    lines: list[str]
    warnings: list[str]


def vocabulary() -> Vocabulary:
    """Return the names that a plan may use now."""
    return vocabulary_of(studio.registry(), studio.pose_library().names())


def cast_hash() -> str:
    """Return what changes when anything does that a plan is made of."""
    return content_hash(studio.registry().content_hash, *studio.pose_library().names())


def plan_by_hand(text: str, dialect: Dialect) -> GraphPlan:
    """Return the plan in a text. Raises PlanError with everything that is wrong in it."""
    return graph_plan(MadePlan(plan_from_text(text, vocabulary())), dialect)


def write(request: WriteRequest, node_id: str, *, lease: bool = False) -> GraphPlan:
    """Return the plan of a sentence: the one written before, or a new one of the service.

    `lease` is as for `llm.converse`. Raises PlanError for a sentence that no plan can be made of,
    ConfigError for its character or service, and ServiceError or GpuError where the service cannot
    answer.
    """
    key = llm.check_service(request.service)
    registry = studio.registry()
    brief = Brief(
        sentence=request.sentence,
        registry=registry,
        vocabulary=vocabulary(),
        dialect=request.dialect,
        seed=request.seed,
        temperature=request.temperature,
        character=request.character,
        earlier=request.earlier.plan if request.earlier else None,
        change=request.change,
    )
    check_brief(brief)
    entry = registry.service(key)
    model = llm.model_of(key) or last_model(entry)
    known = written_before(brief, model) if model else None
    if known is not None:
        return graph_plan(
            _made(request, key, known),
            request.dialect,
            _said(key, known, before=True),
            known.warnings,
        )
    written, warnings = llm.converse(
        key,
        node_id,
        lambda chat: write_plan(chat, brief, llm.count_on(node_id, key)),
        lease=lease,
    )
    problem = keep(brief, entry, written)
    if problem:
        warnings.append(f"{problem}: the same sentence will be asked again")
    return graph_plan(
        _made(request, key, written),
        request.dialect,
        _said(key, written),
        [*written.warnings, *warnings],
    )


def _made(request: WriteRequest, key: str, written: Written) -> MadePlan:
    earlier = request.earlier
    source = PlanSource(
        step="changed" if earlier else "written",
        service=key,
        model=written.model,
        seed=request.seed,
        temperature=request.temperature,
        sentence="" if earlier else request.sentence,
        change=request.change if earlier else "",
        character=request.character,
        dialect=request.dialect,
    )
    return MadePlan(written.plan, (*(earlier.sources if earlier else ()), source))


def graph_plan(
    made: object,
    dialect: Dialect,
    said: str = "",
    warnings: list[str] | None = None,
) -> GraphPlan:
    """Return what a graph takes of a plan. Raises PlanError as `check_plan` and `check_dialect`."""
    check_dialect(dialect)
    known = check_plan(made)
    plan = known.plan
    scene = scene_of(plan, studio.registry(), dialect)
    chosen = {
        "characters": ", ".join(plan.characters) or NONE,
        "expression": plan.expression,
        "background": plan.background,
        "style": plan.style,
    }
    wanted, spoken = list(map(str, plan.controls)), list(map(str, plan.lines))
    lines = [
        *([said] if said else []),
        "; ".join(f"{name} {value}" for name, value in chosen.items()),
        *([f"control {', '.join(wanted)}"] if wanted else []),
        f"scene: {scene.scene}",
        *([f"negative: {scene.negative}"] if scene.negative else []),
        *spoken,
    ]
    return GraphPlan(
        made=known,
        scene=scene.scene,
        negative=scene.negative,
        script="\n".join(spoken),
        text=plan_as_text(plan),
        lines=lines,
        warnings=[*(warnings or []), *scene.warnings],
    )


def check_plan(made: object) -> MadePlan:
    """Return a plan that came by link, checked against the names that are known now.

    Raises PlanError: the configuration may have changed since, or another pack's node gave it.
    """
    if not isinstance(made, MadePlan):
        raise PlanError(
            f"plan: it is {type(made).__name__}, and one of Prompt Writer, Plan From Text or "
            "Refine is needed."
        )
    return replace(made, plan=checked_plan(made.plan.model_dump(), vocabulary()))


def _said(key: str, written: Written, *, before: bool = False) -> str:
    if before:
        return f"{key} ({written.model}): written before, asked nothing"
    tokens = f", {written.completion_tokens} tokens" if written.completion_tokens else ""
    repaired = ", repaired once" if written.repaired else ""
    return f"{key} ({written.model}): {written.seconds:.1f} s{tokens}{repaired}"
