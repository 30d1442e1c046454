"""Laying several files of the same form over each other, entry by entry.

A table is one mapping in one file (the `characters:` of `lora_registry.yaml`, say). Its entries
come from every layer in turn: a later entry replaces the earlier one whole, `null` removes it, a
broken one is kept apart with its problems so that choosing it explains itself.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from .problems import Problem, nearest
from .yaml_source import KeyPath, YamlSource

__all__ = ["Table", "check_keys", "section", "validate"]

M = TypeVar("M", bound=BaseModel)


@dataclass
class Table(Generic[M]):
    """The entries of one mapping after all layers, in the order they first appeared.

    `places` says where each entry stands; `broken` holds the problems of entries that cannot be
    used, by id; `removed` the files whose `null` took an entry away.
    """

    file_name: str
    path: KeyPath
    model: type[M]
    entries: dict[str, M] = field(default_factory=dict)
    places: dict[str, tuple[YamlSource, KeyPath]] = field(default_factory=dict)
    broken: dict[str, list[Problem]] = field(default_factory=dict)
    removed: dict[str, Path] = field(default_factory=dict)

    def overlay(
        self, source: YamlSource, check: Callable[[M, YamlSource, KeyPath], list[Problem]]
    ) -> list[Problem]:
        """Lay one file's section over the entries so far; return what is wrong in it.

        `check` may add problems of its own to a valid entry, which then counts as broken if one of
        them is an error.
        """
        raw, problems = section(source, self.path)
        for key, value in raw.items():
            path = (*self.path, key)
            self.broken.pop(key, None)
            self.removed.pop(key, None)
            faults = list(source.faults.get(path, []))
            if value is None and not faults:
                self._remove(key)
                self.removed[key] = source.file
                continue
            entry, found = validate(self.model, value, source, path)
            if entry is not None:
                found += check(entry, source, path)
            problems += found
            faults += [problem for problem in found if problem.severity == "error"]
            if entry is None or faults:
                self._remove(key)
                self.broken[key] = faults
            else:
                self.entries[key] = entry
                self.places[key] = (source, path)
        return problems

    def _remove(self, key: str) -> None:
        self.entries.pop(key, None)
        self.places.pop(key, None)


def section(source: YamlSource, path: KeyPath) -> tuple[dict[str, object], list[Problem]]:
    """Return the mapping at `path` (empty where it is absent or empty) and what is wrong."""
    here: object = source.data
    for depth, key in enumerate(path, 1):
        assert isinstance(here, dict)
        here = here.get(key)
        if here is None:
            return {}, []
        if not isinstance(here, dict):
            message = f"should be a mapping of names to entries, not {_shown(here)}"
            return {}, [source.problem(path[:depth], message)]
    assert isinstance(here, dict)
    return here, []


def validate(
    model: type[M], value: object, source: YamlSource, path: KeyPath
) -> tuple[M | None, list[Problem]]:
    """Return `value` as a `model`, or None, with the problems found on the way."""
    if not isinstance(value, dict):
        expected = ", ".join(model.model_fields)
        message = f"should be a mapping with the keys {expected}; it is {_shown(value)}"
        return None, [source.problem(path, message)]
    problems = list(_unknown_keys(model, value, source, path))
    try:
        return model.model_validate(value), problems
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            place = (*path, *(str(part) for part in detail["loc"]))
            problems.append(source.problem(place, _expectation(detail["type"], detail)))
        return None, problems


def check_keys(
    value: Mapping[str, object], known: set[str], source: YamlSource, path: KeyPath
) -> list[Problem]:
    """Return a warning for each key of `value` that is not `known`."""
    return [
        source.problem(
            (*path, key),
            f"unknown key, ignored.{nearest(key, known)} Known: {', '.join(sorted(known))}",
            warning=True,
        )
        for key in value
        if key not in known
    ]


def _unknown_keys(
    model: type[BaseModel], value: Mapping[str, object], source: YamlSource, path: KeyPath
) -> Iterator[Problem]:
    yield from check_keys(value, set(model.model_fields), source, path)
    for name, info in model.model_fields.items():
        inner, kind = value.get(name), info.annotation
        if isinstance(inner, dict) and isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _unknown_keys(kind, inner, source, (*path, name))


def _expectation(kind: str, detail: Mapping[str, object]) -> str:
    if kind == "missing":
        return "this key is missing and has no default"
    value = detail["input"]
    text = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if kind == "string_type" and isinstance(value, int | float):
        text += ", in quotes"  # bare words such as yes, no and 1984 are not text in YAML
    return f"is {'not shown' if _may_be_secret(detail) else _shown(value)}; {text}"


def _may_be_secret(detail: Mapping[str, object]) -> bool:
    """Whether a value may be a key or password: problems go to logs, and to the page."""
    place, value = detail["loc"], detail["input"]
    names_key = isinstance(place, tuple) and any("key" in str(part) for part in place[-1:])
    return names_key or (isinstance(value, str) and "://" in value and "@" in value)


class _Short(reprlib.Repr):
    """Bounds the work, not only the result: a value may hold one long text many times over."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 60
        self.maxlevel = 3


def _shown(value: object) -> str:
    text = _Short().repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
