"""Text of strangers as it may stand in what a model reads: always data, never an instruction.

A quoted text is one line, without any character that could end its quotes or spell the marks of
a chat template (`<|im_end|>`, `[INST]`).
"""

from __future__ import annotations

import json
import re
import unicodedata

__all__ = ["JOINERS", "UNSEEN", "one_line", "quoted", "quoted_json", "unmarked"]

_LIMIT = 200
# What ends quotes becomes an apostrophe; what chat templates are written with becomes round.
_NEUTRAL = str.maketrans(
    {
        **dict.fromkeys('"\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\uff02\u300c\u300d`', "'"),
        **dict.fromkeys("<[{", "("),
        **dict.fromkeys(">]}", ")"),
        "|": "/",
        "\\": "/",
    }
)
# Marks of templates that are no tags: [INST], [/SYSTEM_PROMPT]. No JSON list begins like this.
_MARK = re.compile(r"\[(?=/?[A-Z][A-Z0-9_]*\])")
# Zero-width ones that spelling needs: Persian words, joined emoji.
JOINERS = "\u200c\u200d"
# Surrogates, controls, formats (directions, joiners), private and unassigned characters.
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn")
_LINE_ENDS = ("Zl", "Zp")


def one_line(text: str, limit: int = _LIMIT) -> str:
    """Return `text` neutral and on one line, at most `limit` characters, cut at a word."""
    kept = (" " if c.isspace() else c for c in text if c.isspace() or _is_seen(c))
    line = " ".join("".join(kept).translate(_NEUTRAL).split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 3]
    return f"{cut.rpartition(' ')[0] or cut}..."


def quoted(text: str, limit: int = _LIMIT) -> str:
    """Return `text` neutral in double quotes; `limit` counts what stands between them."""
    return f'"{one_line(text, limit)}"'


def unmarked(text: str) -> str:
    """Return `text` with its lines, quotes and braces, but without any mark of a chat template."""
    kept = "".join(c for c in text if c in "\n\t" or _is_told(c))
    return _MARK.sub("(", kept).translate(str.maketrans("<>|", "()/"))


def quoted_json(value: object) -> str:
    """Return a value as JSON on one line, in which no mark of a chat template can stand.

    The JSON reads back as it was, but for characters that nobody sees: they become spaces.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    escaped = {ord(c): f"\\u{ord(c):04x}" for c in "<>|`"}
    marked = _MARK.sub(r"\\u005b", text.translate(escaped))
    return "".join(c if _is_told(c) else " " for c in marked)


def _is_told(character: str) -> bool:
    unseen = unicodedata.category(character) in (*UNSEEN, *_LINE_ENDS)
    return character in JOINERS or not unseen


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in UNSEEN
