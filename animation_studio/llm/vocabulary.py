"""The names that a plan may use: the keys of the configuration, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..registry import EMOTIONS, NONE, EntryKind, Registry
from ..registry.problems import nearest

__all__ = ["NameKind", "Vocabulary", "vocabulary_of"]

NameKind: TypeAlias = Literal[
    "character", "background", "style", "expression", "pose", "control", "emotion"
]
_ENTRIES: tuple[EntryKind, ...] = ("character", "background", "style", "expression")


@dataclass(frozen=True)
class Vocabulary:
    """The keys of each kind, in the order of the files; poses are those of the pose library.

    `titles` are the names people read, by kind and key, for entries that have one of their own.
    `by_hand` says that a person wrote what is checked: what is put right for a model is an error.
    """

    keys: Mapping[NameKind, tuple[str, ...]]
    titles: Mapping[NameKind, Mapping[str, str]] = field(default_factory=dict)
    by_hand: bool = False

    def of(self, kind: NameKind) -> tuple[str, ...]:
        """Return the keys of one kind."""
        return self.keys.get(kind, ())

    def resolve(self, kind: NameKind, text: str) -> str:
        """Return the key that `text` means: the key itself, in any case, or its title.

        Raises ValueError, which names the nearest keys, for one that is not known.
        """
        known = self.of(kind)
        if text in known:
            return text
        wanted = _folded(text)
        for key in known:
            if wanted in (_folded(key), _folded(self.titles.get(kind, {}).get(key, key))):
                return key
        raise ValueError(
            f"there is no {kind} {text!r}.{nearest(text, known)} "
            f"Known: {', '.join(known) or 'none'}."
        )


def vocabulary_of(
    registry: Registry, poses: Sequence[str], emotions: Sequence[str] = EMOTIONS
) -> Vocabulary:
    """Return the names of a configuration; `poses` are the pose library's."""
    keys: dict[NameKind, tuple[str, ...]] = {}
    titles: dict[NameKind, dict[str, str]] = {}
    for kind in _ENTRIES:
        names = tuple(key for key in registry.names(kind) if key != NONE)
        keys[kind] = names
        titles[kind] = {key: _title(registry, kind, key) for key in names}
    keys["pose"] = tuple(poses)
    keys["control"] = tuple(registry.controls)
    keys["emotion"] = tuple(emotions)
    return Vocabulary(keys, titles)


def _title(registry: Registry, kind: EntryKind, key: str) -> str:
    return registry.character(key).name if kind == "character" else registry.entry(kind, key).name


def _folded(text: str) -> str:
    return " ".join(text.replace("_", " ").replace("-", " ").casefold().split())
