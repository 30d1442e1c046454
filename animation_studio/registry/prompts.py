"""Putting a prompt together from the pieces that registry, preset and scene give.

A prompt is a list of pieces between commas. The order is fixed: who (base prompt, before it the
character's trigger words that it lacks), expression, pose, the scene, background, style: identity
and action come first because a CLIP window ends after 75 tokens and what comes early weighs most.
Each piece appears once. A piece of the scene that only spells a trigger word or a piece of the base
prompt again ("LUCA", "(pixar style:1.3)", "brown_hair", or one of them inside a group,
"(luca, running:1.2)") is dropped in favour of the original.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

__all__ = [
    "assemble_prompt",
    "escape_trigger",
    "missing_words",
    "new_pieces",
    "normalised",
    "split_pieces",
]

# ComfyUI reads `(text:1.2)` as an emphasis; `text:1.2` without parentheses is what people write
# who mean the same. The point is required so that "16:9" and "chapter:2" stay text.
_BARE_WEIGHT = re.compile(r"(?P<text>[^:]*[^:\s])\s*:(?P<weight>\d*\.\d+)")
_PARENTHESIS = re.compile(r"\\[()]|[()]")
T = TypeVar("T")

_SEPARATORS = ",\n\r"
# ComfyUI calls itself once per level of parentheses; nobody means more than these.
_MAX_NESTING = 32


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
    seen: set[str] = set()
    base_pieces = list(_new(_balanced_pieces(base), seen))
    lacking = list(_new(_triggers(character_words), seen))
    before = list(_new(_triggers(before_scene), seen))
    after = list(_new(_triggers(after_scene), seen))
    scene_pieces = _new(_balanced_pieces(scene), seen)
    return ", ".join([*lacking, *base_pieces, *before, *scene_pieces, *after])


def missing_words(prompt: str, words: Iterable[str]) -> list[str]:
    """Return the trigger words that do not stand as pieces of `prompt`, in any spelling."""
    present = _held(prompt)
    return [word for word in _triggers(words) if _key(word) not in present]


def new_pieces(prompt: str, text: str) -> list[str]:
    """Return the pieces of the prompt text `text` that `prompt` does not have yet, each once."""
    return list(_new(_balanced_pieces(text), _held(prompt)))


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

    Emphasis and its weight, escapes, case, underscores, Unicode form, invisible characters and
    white space do not count: ``(Brown_Hair:1.2)`` and ``brown hair`` are the same piece.
    """
    piece, _ = _unwrapped(piece.strip())
    bare = _BARE_WEIGHT.fullmatch(piece)
    if bare:
        piece = bare["text"]
    piece = piece.replace("\\(", "(").replace("\\)", ")").replace("_", " ")
    piece = unicodedata.normalize("NFKC", piece).casefold()
    piece = "".join(c for c in piece if unicodedata.category(c) != "Cf")
    # Folding case can leave letters decomposed (U+0390), so the form is set once more.
    return " ".join(unicodedata.normalize("NFKC", piece).split())


def escape_trigger(word: str) -> str:
    r"""Return a trigger word as ComfyUI must read it to mean it literally.

    ``luca (sea monster)`` becomes ``luca \(sea monster\)``; ``(luca:1.2)``, ``(luca)`` and
    ``luca:1.2`` are emphasis and stay (or become) one; escapes that are there already stay.
    """
    word, weights = _unwrapped(" ".join(word.split()))
    bare = None if weights else _BARE_WEIGHT.fullmatch(word)
    if bare:
        return _wrapped(_escaped(bare["text"]), [bare["weight"]])
    return _wrapped(_escaped(word), weights)


def _triggers(words: Iterable[str]) -> Iterator[str]:
    """Trigger words as pieces; one that holds a comma is as many pieces as its commas make.

    Escaped first and split after, so that the pieces are those that the finished prompt shows.
    """
    for word in words:
        for piece in _balanced_pieces(word):
            yield from split_pieces(escape_trigger(piece))


def _held(prompt: str) -> set[str]:
    return {key for piece in _balanced_pieces(prompt) for key in _keys(piece)}


def _new(pieces: Iterable[str], seen: set[str]) -> Iterator[str]:
    """Yield what is not `seen` yet, and add it; a group keeps those of its pieces that are new."""
    for piece in pieces:
        rest = _without(piece, seen)
        if rest:
            seen.update(_keys(rest))
            yield rest


def _without(piece: str, seen: set[str]) -> str:
    """Return `piece` less what was `seen` ('' if nothing is left); untouched if all is new."""
    if _key(piece) in seen:
        return ""
    core, weights = _unwrapped(piece)
    inner = split_pieces(core)
    if not weights or len(inner) < 2:
        return piece
    kept = [rest for part in inner if (rest := _without(part, seen))]
    return piece if kept == inner else _wrapped(", ".join(kept), weights) if kept else ""


def _keys(piece: str) -> Iterator[str]:
    """The piece, and the pieces inside it where it is a group, as they are compared."""
    yield _key(piece)
    core, weights = _unwrapped(piece)
    inner = split_pieces(core)
    if weights and len(inner) > 1:
        for part in inner:
            yield from _keys(part)


def _key(piece: str) -> str:
    return normalised(piece) or piece


def _unwrapped(piece: str) -> tuple[str, list[str]]:
    """Return what stands inside the parentheses around a whole piece, and their weights.

    The weights run from the outermost to the innermost, '' for parentheses without one.
    """
    weights: list[str] = []
    while len(weights) < _MAX_NESTING and (emphasis := _emphasis(piece)) is not None:
        piece, weight = emphasis
        weights.append(weight)
    return piece, weights


def _emphasis(piece: str) -> tuple[str, str] | None:
    """Return text and weight ('' where it has none) of a piece that is one parenthesis, or None.

    Weights are read as ComfyUI's `token_weights` does: what follows the last colon, if Python
    takes it for a number. One that is not finite would spoil the picture and counts as text.
    """
    if not (piece.startswith("(") and piece.endswith(")") and not piece.endswith("\\)")):
        return None
    inside = piece[1:-1].strip()
    if not inside or _unusable(inside):
        return None
    text, colon, weight = inside.rpartition(":")
    if colon and text.strip() and math.isfinite(_number(weight, math.nan)):
        return text.strip(), weight.strip()
    return inside, ""


def _wrapped(text: str, weights: Sequence[str]) -> str:
    """Return `text` as an emphasis that ComfyUI reads with these weights, '' being its own 1.1."""
    for weight in reversed(weights):
        head, _, tail = text.rpartition(":")
        if not weight and (text.endswith("\\") or (head and _number(tail, None) is not None)):
            weight = "1.1"  # else the end of the text would be read as an escape or as the weight
        text = f"({text}:{weight})" if weight else f"({text})"
    return text


def _number(text: str, otherwise: T) -> float | T:
    try:
        return float(text)
    except ValueError:
        return otherwise


def _parentheses(text: str) -> Iterator[tuple[int, str]]:
    for match in _PARENTHESIS.finditer(text):
        if len(match[0]) == 1:
            yield match.start(), match[0]


def _unusable(text: str) -> list[int]:
    """Positions of the parentheses that have no partner, or stand too deep for ComfyUI."""
    opened: list[int] = []
    found: list[int] = []
    for position, character in _parentheses(text):
        if character == "(":
            opened.append(position)
        elif not opened:
            found.append(position)
        else:
            partner = opened.pop()
            if len(opened) >= _MAX_NESTING:
                found += (partner, position)
    return sorted(found + opened)


def _escaped(text: str, positions: Iterable[int] | None = None) -> str:
    if positions is None:
        positions = [position for position, _ in _parentheses(text)]
    cuts = [0, *positions]
    return "\\".join(text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True))


def _balanced_pieces(text: str) -> list[str]:
    return split_pieces(_escaped(text, _unusable(text)))
