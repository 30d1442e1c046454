"""Plans that were written before, on disk: the same question asks nothing again."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import PlanError
from ..llm.answers import Answers, digest_of
from ..llm.plan import checked_plan
from ..llm.writer import Brief, Written, plan_request
from ..registry import ServiceEntry
from .folders import answers_folder

__all__ = ["keep", "last_model", "written_before"]


@cache
def _answers() -> Answers:
    return Answers(answers_folder())


@cache
def _written() -> TypeAdapter[Written]:
    return TypeAdapter(Written)


def written_before(brief: Brief, model: str) -> Written | None:
    """Return what `model` wrote of a brief, None where it did not, or its file is damaged."""
    known = _answers().get(_digest(brief, model))
    try:
        # As JSON: strictly, a mapping in Python is no model.
        written = _written().validate_json(json.dumps(known), strict=True)
        checked_plan(written.plan.model_dump(), brief.vocabulary)
    except (PlanError, ValidationError):
        return None
    return written


def last_model(entry: ServiceEntry) -> str:
    """Return the model that wrote last at a service, "" where none did: it may be down now."""
    known = _answers().get(_model_digest(entry)) or {}
    model = known.get("model")
    return model if isinstance(model, str) else ""


def keep(brief: Brief, entry: ServiceEntry, written: Written) -> str:
    """Keep what was written; return why it could not be kept, "" when it was."""
    _answers().put(_model_digest(entry), {"model": written.model})
    document = _written().dump_python(written, mode="json")
    return _answers().put(_digest(brief, written.model), document)


def _model_digest(entry: ServiceEntry) -> str:
    return digest_of("model", entry.kind, entry.base_url, entry.model)


def _digest(brief: Brief, model: str) -> str:
    request: dict[str, Any] = asdict(plan_request(brief))
    return digest_of("plan", model, brief.character, request)
