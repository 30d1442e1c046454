"""Plans for nodes: written by a language model or by hand, and what a graph takes of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from ..errors import PlanError, ServiceError
from ..llm.answers import Answers, digest_of
from ..llm.assembly import Dialect, scene_of
from ..llm.plan import Plan, checked_plan
from ..llm.plan_text import plan_as_text, plan_from_text
from ..llm.report import PlanSource
from ..llm.vocabulary import Vocabulary, vocabulary_of
from ..llm.writer import Brief, Written, check_brief, plan_request, write_plan
from ..registry import NONE, ServiceEntry, content_hash
from . import gpu, llm, studio
from .folders import answers_folder

__all__ = [
    "MadePlan",
    "PlanParts",
    "WriteRequest",
    "cast_hash",
    "check_plan",
    "parts_of",
    "plan_by_hand",
    "vocabulary",
    "write",
]


@dataclass(frozen=True)
class WriteRequest:
    """What a Prompt Writer's widgets say; `service` is a key of services.yaml or `auto`."""

    sentence: str
    service: str
    seed: int = 0
    temperature: float = 0.3
    dialect: Dialect = "prose"
    character: str = NONE
    earlier: Plan | None = None
    change: str = ""


@dataclass(frozen=True)
class MadePlan:
    """What travels between nodes: a plan with who wrote it, None where a person did."""

    plan: Plan
    source: PlanSource | None = None


@dataclass(frozen=True)
class PlanParts:
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


def plan_by_hand(text: str, dialect: Dialect) -> PlanParts:
    """Return the plan in a text. Raises PlanError with everything that is wrong in it."""
    return parts_of(MadePlan(plan_from_text(text, vocabulary())), dialect)


def write(request: WriteRequest, node_id: str) -> PlanParts:
    """Return the plan of a sentence: the one written before, or a new one of the service.

    Raises PlanError for a sentence that no plan can be made of, ConfigError for its character or
    service, and ServiceError or GpuError where the service cannot answer.
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
        earlier=request.earlier,
        change=request.change,
    )
    check_brief(brief)
    entry = registry.service(key)
    model = _model(key, entry)
    known = _written_before(brief, model) if model else None
    if known is not None:
        return parts_of(
            _made(request, key, known),
            request.dialect,
            _said(key, known, before=True),
            known.warnings,
        )
    written, warnings = llm.converse(
        key, node_id, lambda chat: write_plan(chat, brief, llm.count_on(node_id, key))
    )
    problem = _keep(brief, entry, written)
    if problem:
        warnings.append(f"{problem}: the same sentence will be asked again")
    return parts_of(
        _made(request, key, written),
        request.dialect,
        _said(key, written),
        [*written.warnings, *warnings],
    )


def _made(request: WriteRequest, key: str, written: Written) -> MadePlan:
    source = PlanSource(
        sentence=request.sentence,
        service=key,
        model=written.model,
        seed=request.seed,
        temperature=request.temperature,
        change=request.change if request.earlier else "",
    )
    return MadePlan(written.plan, source)


def parts_of(
    made: MadePlan,
    dialect: Dialect,
    said: str = "",
    warnings: list[str] | None = None,
) -> PlanParts:
    """Return what a graph takes of a plan. Raises PlanError for a name that is not known now."""
    plan = check_plan(made).plan
    scene = scene_of(plan, studio.registry(), dialect)
    chosen = {
        "characters": ", ".join(plan.characters) or NONE,
        "expression": plan.expression,
        "background": plan.background,
        "style": plan.style,
    }
    wanted = [one.type if one.pose == NONE else f"{one.type} ({one.pose})" for one in plan.controls]
    lines = [
        *([said] if said else []),
        "; ".join(f"{name} {value}" for name, value in chosen.items()),
        *([f"control {', '.join(wanted)}"] if wanted else []),
        f"scene: {scene.scene}",
        *([f"negative: {scene.negative}"] if scene.negative else []),
        *(f"{line.character} [{line.emotion}]: {line.text}" for line in plan.lines),
    ]
    return PlanParts(
        made=made,
        scene=scene.scene,
        negative=scene.negative,
        script="\n".join(f"{one.character} [{one.emotion}]: {one.text}" for one in plan.lines),
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


# -- what was written before


@cache
def _answers() -> Answers:
    return Answers(answers_folder())


def _model(key: str, entry: ServiceEntry) -> str:
    """The model that a service asks, without waking it; "" where it cannot be told.

    While the server is down it is the one that it had the last time.
    """
    try:
        return gpu.wait_for(llm.client_of(key).model())
    except ServiceError:
        known = _answers().get(_model_digest(entry)) or {}
        return str(known.get("model", ""))


def _model_digest(entry: ServiceEntry) -> str:
    return digest_of("model", entry.kind, entry.base_url, entry.model)


def _plan_digest(brief: Brief, model: str) -> str:
    request: dict[str, Any] = asdict(plan_request(brief))
    return digest_of("plan", model, brief.character, request)


def _written_before(brief: Brief, model: str) -> Written | None:
    known = _answers().get(_plan_digest(brief, model))
    if known is None:
        return None
    try:
        plan = checked_plan(known.pop("plan", None), brief.vocabulary)
        return Written(plan=plan, **known)
    except (PlanError, TypeError):
        return None


def _keep(brief: Brief, entry: ServiceEntry, written: Written) -> str:
    document = {**asdict(written), "plan": written.plan.model_dump(mode="json")}
    _answers().put(_model_digest(entry), {"model": written.model})
    return _answers().put(_plan_digest(brief, written.model), document)
