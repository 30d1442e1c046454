"""Check the repository's JSON and YAML files; run by the interpreter that has a YAML library.

    python datafiles.py REPOSITORY

Each must parse, hold no key twice (parsers keep the last one in silence), end its lines with LF and
end with one; JSON must be the JSON of its standard, without NaN.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

__all__ = ["faults_of", "main"]

JSON_FOLDERS = ("workflows", "configs", "locales", "web", "subgraphs")
YAML_FOLDERS = ("configs",)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that refuses a key given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:  # noqa: ANN401
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"line {node.start_mark.line + 1}: key given twice: {twice[0]}")
        return super().construct_mapping(node, deep)


def main(root: Path) -> int:
    """Check all files under the repository's data folders; return the exit status."""
    files = list(_files(root))
    faults = [f"{path.relative_to(root)}: {fault}" for path in files for fault in faults_of(path)]
    for fault in faults:
        print(fault)
    print(f"{len(files)} files, {len(faults)} faults")
    return 1 if faults else 0


def faults_of(path: Path) -> list[str]:
    """Return what is wrong with a JSON or YAML file, in sentences; nothing when it is right."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return [f"not UTF-8 ({error.reason} at byte {error.start})"]
    faults = []
    if "\r" in text:
        faults.append("lines end with CR; LF is wanted")
    if not text.endswith("\n"):
        faults.append("no newline at its end")
    if text.startswith("\ufeff"):
        faults.append("begins with a byte order mark")
    try:
        if path.suffix == ".json":
            json.loads(text, object_pairs_hook=_without_twins, parse_constant=_refuse)
        else:
            yaml.load(text, Loader=_Loader)
    except (ValueError, yaml.YAMLError) as error:
        faults.append(" ".join(str(error).split()))
    return faults


def _files(root: Path) -> Iterator[Path]:
    for folders, suffixes in ((JSON_FOLDERS, {".json"}), (YAML_FOLDERS, {".yaml", ".yml"})):
        for folder in folders:
            yield from sorted(p for p in (root / folder).rglob("*") if p.suffix in suffixes)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"key given twice: {twice[0]}")
    return dict(pairs)


def _refuse(constant: str) -> Any:  # noqa: ANN401
    raise ValueError(f"{constant} is not JSON")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
