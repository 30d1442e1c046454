"""From a plan to what the Character LoRA Loader takes: the scene's prompt, by code.

The loader adds what the registry says of the chosen entries; here is the rest, in a fixed order:
who does what, further characters (the registry's words), other people, place, light, camera. What
the plan says is literal text, see `literal`; nothing that the loader adds is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..errors import PlanError
from ..registry import (
    Character,
    LookRequest,
    Prompts,
    Registry,
    assemble_prompt,
    look_prompts,
    normalised,
    resolve_choices,
)
from ..registry.prompts import missing_words, new_pieces, split_pieces
from .literal import Dialect, literal_pieces
from .plan import Plan

__all__ = ["MAX_WORDS", "Dialect", "SceneText", "look_request", "missing_of", "scene_of"]

# About one CLIP window: it has 75 usable tokens, and English 1.3 tokens a word. Only the plan's
# words count, those of the registry are the user's to decide.
MAX_WORDS = 60

_Group: TypeAlias = Literal["action", "others", "setting", "light", "camera"]
_Piece: TypeAlias = tuple[_Group, str]
# What is left out of a scene that is too long, first to last, each from its end.
_DISPENSABLE: tuple[_Group, ...] = ("camera", "light", "setting")
# Chinese, Japanese and Korean put no spaces between words: letters count.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")
_EACH = re.compile(r"\w+")


@dataclass(frozen=True)
class SceneText:
    """The loader's `scene_text` and `negative_text`, and what of the plan is not in them.

    `dropped` are pieces that were left out: names of characters whom the plan does not have, also
    with looks of theirs, what was too much, and what was to be avoided and wanted at once.
    Repetitions are not listed. `warnings` are sentences for the user.
    """

    scene: str
    negative: str
    warnings: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def look_request(plan: Plan, scene: str = "", negative: str = "") -> LookRequest:
    """Return what a Character LoRA Loader is asked that takes a plan's names."""
    return LookRequest(
        choices={
            "character": plan.character,
            "background": plan.background,
            "style": plan.style,
            "expression": plan.expression,
        },
        scene=scene,
        negative=negative,
    )


def scene_of(plan: Plan, registry: Registry, dialect: Dialect) -> SceneText:
    """Return scene and negative prompt of a plan.

    Raises ConfigError for a name that the registry does not have, and PlanError should a trigger
    word be missing from the prompt.
    """
    loaders = _assembled(registry, look_request(plan))
    further = [registry.character(key) for key in plan.characters[1:]]
    theirs = new_pieces(loaders.positive, ", ".join(map(_words_of, further)))
    known = ", ".join([loaders.positive, *theirs])
    absent = _absent(plan, registry)
    pieces = list(_new(_texts(plan), known, dialect))
    names = {piece: key for _, piece in pieces if (key := absent.meant_by(piece))}
    kept, long = _fitting([one for one in pieces if one[1] not in names])
    action = [piece for group, piece in kept if group == "action"]
    rest = [piece for group, piece in kept if group != "action"]
    scene = ", ".join([*action, *theirs, *rest])
    avoided, wanted = _avoided(plan, f"{known}, {scene}", loaders.negative, dialect)
    made = SceneText(
        scene=scene,
        negative=", ".join(avoided),
        warnings=[
            *_of_further(plan, further),
            *_of_absent(names, action + rest, absent),
            *_of_left_out(long, wanted),
        ],
        dropped=[*names, *long, *wanted],
    )
    missing = missing_of(plan, registry, made.scene, made.negative)
    if missing:
        raise PlanError(
            f"the prompt lacks trigger words: {_quoted(missing)}. This is a fault of Animation "
            "Studio; until it is mended, write them into the loader's scene_text."
        )
    return made


def missing_of(plan: Plan, registry: Registry, scene: str, negative: str) -> list[str]:
    """Return the trigger words that the loader's prompt will not hold: none, for any plan.

    They are those of every chosen entry and of the further characters.
    """
    request = look_request(plan, scene, negative)
    words = [word for one in resolve_choices(registry, request) for word in one.entry.trigger_words]
    for key in plan.characters[1:]:
        words += registry.character(key).entry.trigger_words
    return missing_words(_assembled(registry, request).positive, words)


def _assembled(registry: Registry, request: LookRequest) -> Prompts:
    return look_prompts(resolve_choices(registry, request), request.scene, request.negative)


def _words_of(character: Character) -> str:
    return assemble_prompt(
        base=character.preset.base_prompt, character_words=character.entry.trigger_words
    )


def _texts(plan: Plan) -> Iterator[_Piece]:
    """Yield the plan's texts by group, the slots where there are no parts."""
    parts = plan.parts
    groups: Sequence[tuple[_Group, Sequence[str]]] = (
        ("action", parts.action or [plan.action]),
        ("others", plan.others),
        ("setting", parts.setting or [plan.location]),
        ("light", parts.light or [plan.time, plan.light]),
        ("camera", parts.camera or [plan.camera, plan.composition]),
    )
    return ((group, text) for group, texts in groups for text in texts)


def _new(texts: Iterable[_Piece], known: str, dialect: Dialect) -> Iterator[_Piece]:
    """Yield the literal pieces of texts that neither `known` nor an earlier text has."""
    for group, text in texts:
        for piece in literal_pieces(text, dialect):
            if new_pieces(known, piece):
                known = f"{known}, {piece}"
                yield group, piece


@dataclass(frozen=True)
class _Absent:
    """Characters whom the plan does not have: what only means one, with the key, and their looks.

    That is key, name and first trigger word, and the further trigger words, as words between
    spaces; looks such as "red hair" alone may be somebody's.
    """

    names: dict[str, str]
    looks: dict[str, list[str]]

    def meant_by(self, piece: str) -> str:
        """Return whom a piece means, by the name alone or with looks; "" for nobody."""
        words = _spaced(piece)
        for name, key in self.names.items():
            looks = any(look in words for look in self.looks[key])
            if name == words or (name in words and looks):
                return key
        return ""

    def spoken_of(self, piece: str) -> list[str]:
        """Return who is named in a piece, whatever else it says."""
        words = _spaced(piece)
        return list(dict.fromkeys(key for name, key in self.names.items() if name in words))


def _absent(plan: Plan, registry: Registry) -> _Absent:
    names: dict[str, str] = {}
    looks: dict[str, list[str]] = {}
    present: set[str] = {""}
    for key, character in registry.characters.items():
        entry = character.entry
        named = {key, character.name, entry.name, *entry.trigger_words[:1]}
        if key in plan.characters:
            words = [*named, *entry.trigger_words, *split_pieces(character.preset.base_prompt)]
            present.update(map(_spaced, words))
        else:
            names.update((_spaced(word), key) for word in named)
            looks[key] = [_spaced(word) for word in entry.trigger_words[1:]]
    return _Absent(
        {word: key for word, key in names.items() if word not in present},
        {
            key: [word for word in words if word not in present and word not in names]
            for key, words in looks.items()
        },
    )


def _spaced(text: str) -> str:
    """A text's words as they are compared, each between spaces; "" where it has none."""
    words = _EACH.findall(normalised(text))
    return f" {' '.join(words)} " if words else ""


def _fitting(pieces: Sequence[_Piece]) -> tuple[list[_Piece], list[str]]:
    """Return the pieces that stay, and those that are too much, in the order they were dropped."""
    kept = list(pieces)
    dropped: list[str] = []
    words = sum(_length(piece) for _, piece in kept)
    for group in _DISPENSABLE:
        for one in [one for one in reversed(kept) if one[0] == group]:
            if words <= MAX_WORDS:
                return kept, dropped
            kept.remove(one)
            dropped.append(one[1])
            words -= _length(one[1])
    return kept, dropped


def _length(piece: str) -> int:
    return len(_WORD.findall(piece))


def _avoided(
    plan: Plan, positive: str, negative: str, dialect: Dialect
) -> tuple[list[str], list[str]]:
    """Return the negative pieces, and those left out since the picture is to show them."""
    pieces = [p for text in plan.parts.avoid for p in literal_pieces(text, dialect, negative=True)]
    wanted = [piece for piece in pieces if not new_pieces(positive, piece)]
    avoided = [piece for piece in pieces if piece not in wanted]
    return new_pieces(negative, ", ".join(avoided)), wanted


def _of_further(plan: Plan, further: Sequence[Character]) -> list[str]:
    keys = [character.id for character in further if character.entry.lora_path]
    if not keys:
        return []
    said = (
        f"of {_quoted(keys)} only the words are in the prompt: a Character LoRA Loader loads the "
    )
    return [
        f"{said}LoRA of one character, here '{plan.character}'; for more, put loaders before it"
    ]


def _of_absent(names: Mapping[str, str], pieces: Sequence[str], absent: _Absent) -> Iterator[str]:
    for name, key in names.items():
        yield (
            f"left out of the scene: '{name}' means the character '{key}', whom the plan does not "
            "have"
        )
    for piece in pieces:
        for key in absent.spoken_of(piece):
            yield f"'{piece}' speaks of the character '{key}', whom the plan does not have"


def _of_left_out(long: Sequence[str], wanted: Sequence[str]) -> Iterator[str]:
    if long:
        yield (
            f"left out of the scene, which had over {MAX_WORDS} words, of which the last count "
            f"little: {_quoted(long)}"
        )
    if wanted:
        yield f"left out of the negative prompt, since the picture is to show it: {_quoted(wanted)}"


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)
