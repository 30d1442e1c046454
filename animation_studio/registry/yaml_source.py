"""Reading one YAML file into plain data that remembers on which line everything stood.

Keys are taken as they are written (`no:` is the key "no", not False). A duplicate key is reported,
not silently dropped. A document from a stranger cannot grow: size, depth and the number of values
(aliases counted each time they are used) are bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

from ..errors import StudioError
from ..files import read_limited
from .problems import Problem

__all__ = ["KeyPath", "YamlSource", "read_yaml"]

KeyPath: TypeAlias = tuple[str, ...]

_MAX_BYTES = 4 << 20
_MAX_VALUES = 100_000
_MAX_DEPTH = 32


@dataclass
class YamlSource:
    """One file's data.

    `data` holds dict, list and scalars; `lines` the line (from 1) of each key path, list items by
    their index as text; `problems` what is wrong with the text itself; `duplicates` the key paths
    that stand twice; `readable` is False where the text could not be parsed at all.
    """

    file: Path
    data: dict[str, object] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    duplicates: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    readable: bool = True

    def line(self, path: KeyPath) -> int:
        """Return the line of `path`, or of the nearest parent that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def problem(self, path: KeyPath, message: str, *, warning: bool = False) -> Problem:
        """Return a Problem located at `path`."""
        return Problem(
            "warning" if warning else "error", self.file, self.line(path), ".".join(path), message
        )


def read_yaml(file: Path) -> YamlSource:
    """Read `file`; never raises for what a file can contain or for how reading it can fail."""
    source = YamlSource(file)
    try:
        loader = yaml.SafeLoader(read_limited(file, _MAX_BYTES, "configuration file"))
        try:
            node = loader.get_single_node()
            if node is not None:
                source.data = _Reader(source, loader).document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        _unreadable(source, line, _yaml_message(error))
    except (yaml.YAMLError, UnicodeError, ValueError) as error:
        _unreadable(source, 0, f"this is not YAML text: {' '.join(str(error).split())}")
    except (OSError, StudioError) as error:
        _unreadable(source, 0, f"cannot be read: {error}")
    return source


def _unreadable(source: YamlSource, line: int, message: str) -> None:
    source.readable = False
    source.data = {}
    source.problems.append(Problem("error", source.file, line, "", message))


def _yaml_message(error: yaml.MarkedYAMLError) -> str:
    what = error.problem or "this is not valid YAML"
    if "'\\t'" in what:
        return "a tab stands where YAML wants spaces; indent with spaces"
    context = f" ({error.context})" if error.context else ""
    return f"not valid YAML: {what}{context}"


class _Reader:
    """Turns a composed YAML node tree into data, noting lines and duplicates in the source."""

    def __init__(self, source: YamlSource, loader: yaml.SafeLoader) -> None:
        self.source = source
        self.loader = loader
        self.values = 0

    def document(self, node: yaml.Node) -> dict[str, object]:
        if isinstance(node, yaml.ScalarNode) and self.loader.construct_object(node) is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(
                problem="the file must be a mapping of keys to values",
                problem_mark=node.start_mark,
            )
        return self.mapping(node, ())

    def value(self, node: yaml.Node, path: KeyPath) -> object:
        self.values += 1
        if self.values > _MAX_VALUES or len(path) > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"more than {_MAX_VALUES:,} values or {_MAX_DEPTH} levels",
                problem_mark=node.start_mark,
            )
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, child in enumerate(node.value):
                here = (*path, str(index))
                self.source.lines[here] = child.start_mark.line + 1
                items.append(self.value(child, here))
            return items
        return self.loader.construct_object(node)

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        self.loader.flatten_mapping(node)
        result: dict[str, object] = {}
        merged = _merged_keys(node)
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a key must be a plain word", problem_mark=key_node.start_mark
                )
            key = str(key_node.value)
            here = (*path, key)
            value = self.value(value_node, here)
            if key in result and key not in merged:
                self._duplicate(here, key_node.start_mark.line + 1)
                value = _both(result[key], value)
            result[key] = value
            self.source.lines[here] = key_node.start_mark.line + 1
        return result

    def _duplicate(self, path: KeyPath, line: int) -> None:
        self.source.duplicates.add(path)
        first = self.source.line(path)
        message = f"this key stands twice, on line {first} and on line {line}; keep one of them"
        self.source.problems.append(
            Problem("error", self.source.file, line, ".".join(path), message)
        )


def _merged_keys(node: yaml.MappingNode) -> set[str]:
    """Keys that came in through `<<`: written again in the mapping itself, they are overridden."""
    start, end = node.start_mark.index, node.end_mark.index
    return {
        str(key.value)
        for key, _ in node.value
        if not start <= key.start_mark.index < end and isinstance(key, yaml.ScalarNode)
    }


def _both(first: object, second: object) -> object:
    """A section that stands twice keeps the entries of both; anything else takes the later one."""
    if isinstance(first, dict) and isinstance(second, dict):
        return {**first, **second}
    return second
