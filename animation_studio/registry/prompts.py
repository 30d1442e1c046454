"""Putting a prompt together from the pieces that registry, preset and scene give.

A prompt is a list of pieces between commas. The order is fixed: who (base prompt, before it the
character's trigger words that it lacks), expression, pose, the scene, background, style: identity
and action come first because a CLIP window ends after 75 tokens and what comes early weighs most.
Each piece appears once. A piece of the scene that only spells a trigger word or a piece of the base
prompt again ("LUCA", "(pixar style:1.3)", "brown_hair") is dropped in favour of the original.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["assemble_prompt", "escape_trigger", "missing_words", "normalised", "split_pieces"]

# ComfyUI reads `(text:1.2)` as an emphasis; `text:1.2` without parentheses is what people write
# who mean the same. The point is required so that "16:9" and "chapter:2" stay text.
_WEIGHTED = re.compile(r"\((?P<text>.*):(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\)", re.DOTALL)
_BARE_WEIGHT = re.compile(r"(?P<text>[^():]+):(?P<weight>\d*\.\d+)")
_SEPARATORS = ",\n\r"


def assemble_prompt(
    *,
    base: str = "",
    character_words: Sequence[str] = (),
    before_scene: Iterable[str] = (),
    scene: str = "",
    after_scene: Iterable[str] = (),
) -> str:
    r"""Return one prompt of all pieces, each once, in the order of the arguments.

    `base` and `scene` are prompt text and keep ComfyUI's syntax (only an unmatched parenthesis is
    escaped, since it would swallow all that follows). `character_words`, `before_scene`
    (expression, pose) and `after_scene` (background, style) are trigger words: their parentheses
    are literal and come out as ``\(`` and ``\)``, their weights as ``(text:1.2)``.
    """
    base_pieces = _balanced_pieces(base)
    named = {normalised(piece) for piece in base_pieces}
    lacking = [word for word in _triggers(character_words) if normalised(word) not in named]
    before, after = list(_triggers(before_scene)), list(_triggers(after_scene))
    fixed = {normalised(piece) for piece in (*lacking, *base_pieces, *before, *after)}
    scene_pieces = [piece for piece in _balanced_pieces(scene) if normalised(piece) not in fixed]
    return ", ".join(_once([*lacking, *base_pieces, *before, *scene_pieces, *after]))


def missing_words(prompt: str, words: Iterable[str]) -> list[str]:
    """Return the trigger words that do not stand as pieces of `prompt`, in any spelling."""
    present = {normalised(piece) for piece in split_pieces(prompt)}
    return [word for word in _triggers(words) if normalised(word) not in present]


def split_pieces(text: str) -> list[str]:
    r"""Split at commas and line ends outside parentheses; ``\(`` and ``\)`` are text."""
    pieces, depth, start, index = [], 0, 0, 0
    while index < len(text):
        character = text[index]
        if character == "\\" and text[index + 1 : index + 2] in ("(", ")"):
            index += 2
            continue
        if character == "(":
            depth += 1
        elif character == ")":
            depth = max(0, depth - 1)
        elif character in _SEPARATORS and depth == 0:
            pieces.append(text[start:index])
            start = index + 1
        index += 1
    pieces.append(text[start:])
    return [stripped for piece in pieces if (stripped := piece.strip())]


def normalised(piece: str) -> str:
    r"""Return what two spellings of one piece have in common.

    Emphasis and its weight, escapes, case, underscores, Unicode form and white space do not count:
    ``(Brown_Hair:1.2)`` and ``brown hair`` are the same piece.
    """
    piece = piece.strip()
    while inner := _unwrapped(piece):
        piece = inner
    bare = _BARE_WEIGHT.fullmatch(piece)
    if bare:
        piece = bare["text"]
    piece = piece.replace("\\(", "(").replace("\\)", ")").replace("_", " ")
    return " ".join(unicodedata.normalize("NFKC", piece).casefold().split())


def escape_trigger(word: str) -> str:
    r"""Return a trigger word as ComfyUI must read it to mean it literally.

    ``luca (sea monster)`` becomes ``luca \(sea monster\)``; ``(luca:1.2)``, ``(luca)`` and
    ``luca:1.2`` are emphasis and stay (or become) one; escapes that are there already stay.
    """
    word = " ".join(word.split())
    weighted = _WEIGHTED.fullmatch(word)
    if weighted and _is_balanced(weighted["text"]):
        return f"({_escaped(weighted['text'])}:{weighted['weight']})"
    bare = _BARE_WEIGHT.fullmatch(word)
    if bare:
        return f"({bare['text']}:{bare['weight']})"
    inner = _unwrapped(word)
    return f"({_escaped(inner)})" if inner else _escaped(word)


def _triggers(words: Iterable[str]) -> Iterator[str]:
    """Trigger words as pieces; one that holds a comma is as many pieces as ComfyUI would read."""
    for word in words:
        yield from (escape_trigger(piece) for piece in split_pieces(word))


def _unwrapped(piece: str) -> str:
    """Return the inside, without weight, of a piece that is one parenthesis as a whole, or ''."""
    if not (piece.startswith("(") and piece.endswith(")") and not piece.endswith("\\)")):
        return ""
    inside = piece[1:-1]
    if not _is_balanced(inside):
        return ""
    weighted = _WEIGHTED.fullmatch(piece)
    return (weighted["text"] if weighted else inside).strip()


def _unescaped_parentheses(text: str) -> Iterator[tuple[int, str]]:
    for match in re.finditer(r"\\[()]|[()]", text):
        if len(match[0]) == 1:
            yield match.start(), match[0]


def _unmatched(text: str) -> list[int]:
    """Positions of the parentheses that have no partner."""
    opened: list[int] = []
    alone: list[int] = []
    for position, character in _unescaped_parentheses(text):
        if character == "(":
            opened.append(position)
        elif opened:
            opened.pop()
        else:
            alone.append(position)
    return sorted(alone + opened)


def _is_balanced(text: str) -> bool:
    return not _unmatched(text)


def _escaped(text: str, positions: Iterable[int] | None = None) -> str:
    if positions is None:
        positions = [position for position, _ in _unescaped_parentheses(text)]
    for position in sorted(positions, reverse=True):
        text = f"{text[:position]}\\{text[position:]}"
    return text


def _balanced_pieces(text: str) -> list[str]:
    return split_pieces(_escaped(text, _unmatched(text)))


def _once(pieces: Iterable[str]) -> list[str]:
    seen: dict[str, str] = {}
    for piece in pieces:
        seen.setdefault(normalised(piece) or piece, piece)
    return list(seen.values())
