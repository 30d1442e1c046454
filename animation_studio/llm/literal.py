r"""What a stranger wrote, as pieces of a prompt that mean their words and nothing else.

A language model, or who steers it by the sentence, may write prompt syntax: emphasis and weights,
`embedding:name`, `<lora:name:1>`, wildcards (`{a|b}`, `__name__`), comments of ComfyUI's text
fields (`//`), BREAK. Of all that only the words remain; parentheses are escaped as ComfyUI reads
them, `\(` and `\)`, and stay only where they come in pairs inside of a piece.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

from ..errors import PlanError

__all__ = ["Dialect", "check_dialect", "literal_pieces"]

Dialect: TypeAlias = Literal["prose", "tags"]

_SEPARATORS = re.compile(r"[,;\n\r\uff0c\u3001\uff1b]")  # those of Chinese too
# An extra network as other programs write it: a name and a number, no words.
_NETWORK = re.compile(r"<[^<>]*:[^<>]*>")
_BACKSLASH = re.compile(r"\\+(?=[()])")
_OTHER_SYNTAX = str.maketrans(dict.fromkeys("\\{}[]<>|", " "))
_COMMENT = re.compile(r"//+|/\*+|\*+/")
_UNDERSCORES = re.compile(r"__+")
_EMBEDDING = re.compile(r"(embedding)\s*:+", re.IGNORECASE)
# The decimal point is required, so that "16:9" stays text.
_WEIGHT = re.compile(r"(?:\s*:\s*[-+]?\d*\.\d+\s*)+(?=\)|$)")
_KEYWORDS = {"BREAK", "AND", "ADDCOMM", "ADDBASE", "ADDROW", "ADDCOL"}
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)")
_NEGATION = re.compile(r"^(?:no|without)\s+(?=\S)", re.IGNORECASE)


def check_dialect(dialect: object) -> None:
    """Raise PlanError for a dialect that is none."""
    if dialect not in get_args(Dialect):
        raise PlanError(f"dialect {dialect!r}: choose one of {', '.join(get_args(Dialect))}.")


def literal_pieces(text: str, dialect: Dialect, *, negative: bool = False) -> list[str]:
    """Return the pieces of `text`, escaped; those without a letter or digit are left out.

    In `tags` they are in lower case, without underscores and leading articles. With `negative`
    they name the thing alone: "no hat" is "hat". The pieces of a piece are itself.
    """
    text = "".join(c for c in text if c in "\n\r\t" or unicodedata.category(c) not in ("Cc", "Cf"))
    text = _BACKSLASH.sub("", _NETWORK.sub(" ", text)).translate(_OTHER_SYNTAX)
    plain = (_plain(piece, dialect, negative) for piece in _SEPARATORS.split(text))
    return [_escaped(piece) for piece in plain if any(c.isalnum() for c in piece)]


def _plain(piece: str, dialect: Dialect, negative: bool) -> str:
    """Apply the rules until none has anything to do: what one removes may have hidden another."""
    before = None
    while piece != before:
        before = piece
        piece = _simpler(piece, negative)
        if dialect == "tags":
            piece = _ARTICLE.sub("", piece.lower().replace("_", " "))
    return piece


def _simpler(piece: str, negative: bool) -> str:
    piece = _UNDERSCORES.sub(" ", _COMMENT.sub(" ", piece))
    piece = _WEIGHT.sub("", _EMBEDDING.sub(r"\1 ", piece))
    piece = " ".join(_paired(piece).split()).rstrip(". ")
    if piece in _KEYWORDS:
        return ""
    return _NEGATION.sub("", piece) if negative else piece


def _paired(piece: str) -> str:
    """Return `piece` without parentheses that have no partner, or hold all of it or nothing."""
    gone, opened = set(), []
    for position, character in _parentheses(piece):
        if character == "(":
            opened.append(position)
        elif opened:
            start = opened.pop()
            whole = not (piece[:start].strip() or piece[position + 1 :].strip())
            if whole or not piece[start + 1 : position].strip():
                gone |= {start, position}
        else:
            gone.add(position)
    gone.update(opened)
    return "".join(c for position, c in enumerate(piece) if position not in gone)


def _parentheses(piece: str) -> Iterator[tuple[int, str]]:
    return ((position, c) for position, c in enumerate(piece) if c in "()")


def _escaped(piece: str) -> str:
    return piece.replace("(", "\\(").replace(")", "\\)")
