"""Reading one YAML file, or text, into plain data that remembers on which line everything stood.

Keys are taken as they are written (`no:` is the key "no", not False), and so is every value that is
not plainly null, a boolean or a number: a date or `16:9` is text here. What is wrong at one key is
reported there and spoils only its entry. A document from a stranger cannot grow: bytes, depth and
the number of nodes (aliases and merges counted each time they are used) are bounded.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml
from yaml.reader import ReaderError

from ..errors import StudioError
from ..files import read_limited
from .problems import Problem

__all__ = ["KeyPath", "YamlSource", "read_yaml", "read_yaml_text"]

KeyPath: TypeAlias = tuple[str, ...]

_MAX_BYTES = 4 << 20
_MAX_NODES = 100_000
_MAX_DEPTH = 32

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
# Tags that YAML gives a plain word by itself; any other tag was written by hand.
_CONSTRUCTED = {f"{_TAG}{name}" for name in ("null", "bool", "int", "float")}
_IMPLICIT = _CONSTRUCTED | {
    f"{_TAG}{name}" for name in ("str", "timestamp", "value", "merge", "map", "seq")
}


@dataclass
class YamlSource:
    """One file's data.

    `data` holds dict, list and scalars; `lines` the line (from 1) of each key path, list items by
    their index as text; `problems` what is wrong with the text itself, `faults` those of them that
    stand at or inside a key path and so spoil it (a key that stands twice, say);
    `readable` is False where the text could not be parsed at all.
    """

    file: Path
    data: dict[str, object] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    faults: dict[KeyPath, list[Problem]] = field(default_factory=dict)
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
        text = _decoded(read_limited(file, _MAX_BYTES, "configuration file"))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        _unreadable(source, line, f"this is not {error.encoding.upper()} text; save it as UTF-8")
    except (OSError, StudioError) as error:
        _unreadable(source, 0, f"cannot be read: {error}")
    else:
        _parse(text, source)
    return source


def read_yaml_text(text: str, name: str) -> YamlSource:
    """Read `text` as a file of that name would be; never raises for what it can contain."""
    source = YamlSource(Path(name))
    if len(text) > _MAX_BYTES:
        _unreadable(source, 0, f"more than {_MAX_BYTES:,} characters")
    else:
        _parse(text.removeprefix("\ufeff"), source)
    return source


def _parse(text: str, source: YamlSource) -> None:
    try:
        loader = _BoundedLoader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                source.data = _Reader(source, loader).document(node)
        finally:
            loader.dispose()
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        _unreadable(source, line, f"the character U+{error.character:04X} cannot stand here")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _unreadable(source, mark.line + 1 if mark else 0, _yaml_message(error))


def _decoded(data: bytes) -> str:
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig")


def _unreadable(source: YamlSource, line: int, message: str) -> None:
    source.readable = False
    source.data = {}
    source.problems.append(Problem("error", source.file, line, "", message))


def _yaml_message(error: yaml.MarkedYAMLError) -> str:
    what = error.problem or "this is not valid YAML"
    if "'\\t'" in what:
        return "a tab stands where YAML wants spaces; indent with spaces"
    if "escape" in what:
        what += "; in double quotes a backslash begins an escape: use / or single quotes"
    context = f" ({error.context})" if error.context else ""
    return f"not valid YAML: {what}{context}"


def _too_much(mark: yaml.Mark) -> yaml.MarkedYAMLError:
    message = f"more than {_MAX_NODES:,} values or {_MAX_DEPTH} levels"
    return yaml.MarkedYAMLError(problem=message, problem_mark=mark)


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's composer calls itself for each level; this one stops before Python must."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        self._nodes += 1
        if self._depth > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise _too_much(self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Reader:
    """Turns a composed YAML node tree into data, noting lines and faults in the source."""

    def __init__(self, source: YamlSource, loader: yaml.SafeLoader) -> None:
        self.source = source
        self.loader = loader
        self.used = 0

    def document(self, node: yaml.Node) -> dict[str, object]:
        if isinstance(node, yaml.ScalarNode) and self.scalar(node) is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(
                problem="this must be a mapping of keys to values",
                problem_mark=node.start_mark,
            )
        return self.mapping(node, ())

    def value(self, node: yaml.Node, path: KeyPath) -> object:
        self.count(node, len(path))
        if node.tag not in _IMPLICIT:
            self.fault(path, node, f"the tag {node.tag!r} is not understood here; remove it")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, child in enumerate(node.value):
                here = (*path, str(index))
                self.source.lines[here] = child.start_mark.line + 1
                items.append(self.value(child, here))
            return items
        return self.scalar(node)

    def scalar(self, node: yaml.Node) -> object:
        # A colon makes 16:9 a number to base 60 in YAML 1.1, which nobody means.
        if node.tag in _CONSTRUCTED and ":" not in node.value:
            try:
                return self.loader.construct_object(node)
            except (ValueError, KeyError):  # `!!int x`, a number of 5000 digits
                return node.value
        return node.value

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        own = self.own_pairs(node, path)
        for merged in self.merged(node, path, {id(node)}):
            # As YAML has it: of several merged mappings the first wins, and the own key over all.
            for key, pair in self.own_pairs(merged, path).items():
                pairs.setdefault(key, pair)
        pairs |= own
        result: dict[str, object] = {}
        for key, (key_node, value_node) in pairs.items():
            here = (*path, key)
            self.source.lines[here] = key_node.start_mark.line + 1
            result[key] = self.value(value_node, here)
        return result

    def own_pairs(
        self, node: yaml.MappingNode, path: KeyPath
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return the pairs written in `node` itself; a key that stands twice is a fault."""
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            self.count(key_node, len(path))
            if not isinstance(key_node, yaml.ScalarNode):
                self.fault(path, key_node, "a key must be a plain word")
                continue
            key = key_node.value
            if key in pairs:
                first, again = (pairs[key][0].start_mark.line + 1, key_node.start_mark.line + 1)
                message = f"this key stands twice, on line {first} and on line {again}; keep one"
                self.fault((*path, key), key_node, message)
                value_node = _both(pairs[key][1], value_node)
            pairs[key] = (key_node, value_node)
        return pairs

    def merged(
        self, node: yaml.MappingNode, path: KeyPath, within: set[int]
    ) -> Iterator[yaml.MappingNode]:
        """Yield the mappings that `<<` brings into `node`, those that win first."""
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                continue
            several = isinstance(value_node, yaml.SequenceNode)
            for other in value_node.value if several else [value_node]:
                self.count(other, len(path) + len(within))
                if not isinstance(other, yaml.MappingNode) or id(other) in within:
                    self.fault(path, key_node, "<< wants another mapping, as in `<<: *defaults`")
                    continue
                yield other
                yield from self.merged(other, path, within | {id(other)})

    def count(self, node: yaml.Node, depth: int) -> None:
        self.used += 1
        if self.used > _MAX_NODES or depth > _MAX_DEPTH:
            raise _too_much(node.start_mark)

    def fault(self, path: KeyPath, node: yaml.Node, message: str) -> None:
        line = node.start_mark.line + 1
        problem = Problem("error", self.source.file, line, ".".join(path), message)
        self.source.problems.append(problem)
        for depth in range(len(path) + 1):
            self.source.faults.setdefault(path[:depth], []).append(problem)


def _both(first: yaml.Node, second: yaml.Node) -> yaml.Node:
    """A section that stands twice keeps the entries of both; anything else takes the later one."""
    if isinstance(first, yaml.MappingNode) and isinstance(second, yaml.MappingNode):
        pairs = first.value + second.value
        return yaml.MappingNode(second.tag, pairs, second.start_mark, second.end_mark)
    return second
