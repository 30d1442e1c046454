"""The answer in what a model wrote: without its thoughts, and JSON without its surroundings."""

from __future__ import annotations

import json
import re

__all__ = ["answer_start", "json_text", "loaded"]

_OPEN, _CLOSE = "<think>", "</think>"
_FENCED = re.compile(r"```[\w-]*\s*\n(.*?)```", re.DOTALL)


def answer_start(text: str) -> int:
    """Return where the answer begins, after a leading <think>...</think>.

    The templates of some models write the first mark themselves, so that only the second comes. A
    thought without its end has no answer after it.
    """
    head = text.lstrip()
    end = text.find(_CLOSE)
    if head.startswith(_OPEN):
        return len(text) if end < 0 else end + len(_CLOSE)
    # Within JSON the mark is somebody's text.
    is_thought = end >= 0 and head[:1] not in ("{", "[", '"') and _OPEN not in text[:end]
    return end + len(_CLOSE) if is_thought else 0


def loaded(text: str) -> object:
    """Return what a JSON text says, None for one that is none (and for null)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def json_text(text: str) -> str:
    """Return the JSON object in a text: the text, what its code fence holds, or between braces.

    Where none of these is JSON, the text as it is.
    """
    fenced = _FENCED.search(text)
    between = text[text.find("{") : text.rfind("}") + 1]
    for part in (text, fenced.group(1).strip() if fenced else "", between):
        if isinstance(loaded(part), dict):
            return part
    return text
