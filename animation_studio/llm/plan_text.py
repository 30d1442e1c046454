"""Plans as text: written by hand, or pasted from a chat, in YAML or JSON; and back again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import PlanError
from ..registry.problems import nearest
from ..registry.yaml_source import KeyPath, YamlSource, read_yaml_text
from .plan import Plan, PlanControl, PlanLine, PlanParts
from .vocabulary import Vocabulary

__all__ = ["plan_as_text", "plan_from_text"]

# The longest plan there can be has some 14,000 characters.
_MAX_LETTERS = 60_000
_SHOWN_PROBLEMS = 12
_SHOWN_LETTERS = 60
_LINE_END = re.compile(r"\r\n|\r|\n")
_FENCE = re.compile(r"\s*(```|~~~)")
_INNER: Mapping[str, type[BaseModel]] = {
    "controls": PlanControl,
    "lines": PlanLine,
    "parts": PlanParts,
}
_HOW = "A plan is YAML or JSON such as `characters: [luca]`; its keys are "


def plan_from_text(text: str, vocabulary: Vocabulary) -> Plan:
    """Return the plan that a person wrote as YAML or JSON, with or without a chat's fences.

    A key without a value counts as left out. Raises PlanError, with everything that is wrong, a
    problem a line: `line N: key.path: what is wrong`.
    """
    if len(text) > _MAX_LETTERS:
        raise PlanError(
            f"plan: the text has {len(text):,} letters, and no plan has more than "
            f"{_MAX_LETTERS:,}. Check that it is the text you meant."
        )
    bare = _bare(text)
    if not bare.strip():
        raise PlanError(f"plan: there is no text. {_HOW}{', '.join(Plan.model_fields)}.")
    source = read_yaml_text(bare, "plan")
    problems = [(one.line, one.key, one.message) for one in source.problems]
    if source.readable:
        try:
            known = replace(vocabulary, by_hand=True)
            plan = Plan.model_validate(_tidied(source.data), context=known)
        except ValidationError as error:
            problems += _located(error, source)
        else:
            if not problems:
                return plan
    raise PlanError(_listed(problems))


def plan_as_text(plan: Plan) -> str:
    """Return `plan` as YAML, which `plan_from_text` reads as the same plan.

    Fields stand in the model's order; what is empty, or `none`, is left out.
    """
    data = plan.model_dump(mode="json", exclude_defaults=True)
    return yaml.dump(
        data, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=2**20, indent=2
    )


class _Dumper(yaml.SafeDumper):
    """Indents lists under their key, and writes no aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        return True


def _bare(text: str) -> str:
    """The text inside a chat's fences, on the lines where it stood; tabs that JSON allows gone."""
    lines = _LINE_END.split(text.removeprefix("\ufeff"))
    start = next((i for i, line in enumerate(lines) if line.strip()), 0)
    fence = _FENCE.match(lines[start])
    if fence:
        end = next(
            (i for i in range(start + 1, len(lines)) if lines[i].strip().startswith(fence[1])),
            len(lines),
        )
        lines = [""] * (start + 1) + lines[start + 1 : end]
    bare = "\n".join(lines)
    # Inside of JSON's texts a tab is written \t, so that all others are layout.
    return bare.replace("\t", " ") if bare.lstrip().startswith("{") else bare


def _tidied(value: object) -> object:
    r"""The data without keys that have no value, and with JSON's `\ud83d\ude00` as one letter."""
    if isinstance(value, dict):
        return {key: _tidied(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_tidied(inner) for inner in value]
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return value


def _located(error: ValidationError, source: YamlSource) -> Iterator[tuple[int, str, str]]:
    for detail in error.errors(include_url=False):
        path: KeyPath = tuple(str(part) for part in detail["loc"])
        yield source.line(path), ".".join(path), _said(path, detail)


def _said(path: KeyPath, detail: Mapping[str, Any]) -> str:
    kind, value, message = detail["type"], detail["input"], str(detail["msg"])
    if kind == "extra_forbidden":
        known = _keys_beside(path)
        return f"there is no such key.{nearest(path[-1], known)} Known: {', '.join(known)}."
    if kind == "missing":
        return "this key is missing"
    if kind == "string_type":
        return _no_text(value)
    if kind in ("model_type", "dict_type"):
        return f"is {_shown(value)}; should be a mapping of {', '.join(_keys_beside((*path, '')))}"
    if kind == "list_type":
        return f"is {_shown(value)}; should be a list"
    return message.removeprefix("Value error, ").removeprefix("Input ")


def _no_text(value: object) -> str:
    if value is None:
        return "is empty; should be text"
    if isinstance(value, bool):
        return f"YAML takes this for {str(value).lower()}; should be text: write it in quotes"
    if isinstance(value, int | float):
        return f"YAML takes this for the number {value}; should be text: write it in quotes"
    return f"is {_shown(value)}; should be text"


def _keys_beside(path: KeyPath) -> list[str]:
    model = _INNER.get(path[0], Plan) if len(path) > 1 else Plan
    return list(model.model_fields)


def _shown(value: object) -> str:
    if isinstance(value, str):
        cut = value[:_SHOWN_LETTERS]
        return f"{cut!r}{'...' if cut != value else ''}"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    return "empty" if value is None else str(value)[:_SHOWN_LETTERS]


def _listed(problems: Iterable[tuple[int, str, str]]) -> str:
    every = sorted(problems, key=lambda one: one[0])
    lines = [
        ": ".join(part for part in (f"line {line}" if line else "plan", key, message) if part)
        for line, key, message in every[:_SHOWN_PROBLEMS]
    ]
    more = len(every) - _SHOWN_PROBLEMS
    return "\n".join([*lines, f"and {more} more"] if more > 0 else lines)
