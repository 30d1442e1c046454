"""Which of some choices an answer is, and how likely each of them was."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["chosen", "probabilities"]

_WORD = re.compile(r"[^\W_]+")
# Below this none of the choices was among the tokens that the server tells.
_LEAST_SUM = 1e-6
# A choice that is not told is as unlikely as the least likely token that is, or more; beyond this
# part of all choices that is no answer.
_UNTOLD = 0.05


def chosen(text: str, choices: Sequence[str]) -> str | None:
    """Return the choice with which a text begins, None where that is none of them.

    Case, punctuation, quotes and Markdown do not count. A choice of one letter must stand alone or
    before punctuation: "A cat sits there" is not "A".
    """
    found = [choice for choice in choices if _begins_with(text, choice)]
    return max(found, key=len) if found else None


def _begins_with(text: str, choice: str) -> bool:
    said = list(_WORD.finditer(text))
    wanted = [word.casefold() for word in _WORD.findall(choice)]
    if not wanted or [word[0].casefold() for word in said[: len(wanted)]] != wanted:
        return False
    after = text[said[len(wanted) - 1].end() :]
    return len(choice) > 1 or re.match(r"[*_\"'`]*\s+\w", after) is None


def probabilities(
    entries: Sequence[Mapping[str, Any]], text: str, start: int, choices: Sequence[str]
) -> dict[str, float] | None:
    """Return how likely each choice was, together 1; None where the server does not tell.

    `entries` are OpenAI's `logprobs.content` of `text`, in which the choice begins at `start`. A
    token counts for the choice whose beginning it is: "Y" and "Yes" both for "Yes". vLLM tells
    them after everything else was ruled out, llama.cpp before: there a choice may be missing among
    the likeliest tokens.
    """
    found = _entry_at(entries, text, start)
    if found is None:
        return None
    # White space before the choice may be another in each token.
    entry, before = found[0], found[1].lstrip()
    sums = dict.fromkeys(choices, 0.0)
    for token, share in _shares(entry).items():
        if token.lstrip().startswith(before):
            rest = token.lstrip()[len(before) :]
            for choice in choices:
                sums[choice] += share if _is_start(rest, choice) else 0.0
    total = sum(sums.values())
    untold = 0.0 if all(sums.values()) else _least_told(entry)
    if total < _LEAST_SUM or untold > _UNTOLD * total:
        return None
    return {name: value / total for name, value in sums.items()}


def _entry_at(
    entries: Sequence[Mapping[str, Any]], text: str, start: int
) -> tuple[Mapping[str, Any], str] | None:
    """Return the entry of the token in which `start` lies, and what of it stands before."""
    at = 0
    for entry in entries if start >= 0 else ():
        token = entry.get("token")
        if not isinstance(token, str):
            return None
        # Some servers leave out the white space with which a text begins.
        blank = len(token) - len(token.lstrip())
        if at == 0 and blank and not text.startswith(token):
            at = -blank
        if not text.startswith(token[max(-at, 0) :], max(at, 0)):
            return None
        if at + len(token) > start:
            return entry, token[: start - at]
        at += len(token)
    return None


def _shares(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the probabilities of a place's tokens."""
    top = entry.get("top_logprobs")
    shares = {}
    for one in [*(top if isinstance(top, list) else ()), entry]:
        token, value = (
            (one.get("token"), one.get("logprob")) if isinstance(one, Mapping) else ("", 0)
        )
        if isinstance(token, str) and isinstance(value, int | float) and math.isfinite(value):
            shares[token] = math.exp(min(value, 0.0))
    return shares


def _least_told(entry: Mapping[str, Any]) -> float:
    """Return the probability of the least likely token that is told beside the one that came.

    That one is told whatever its place. Where it stands alone, it is what is left for the others.
    """
    shares = _shares(entry)
    came = shares.pop(str(entry.get("token")), 0.0)
    return min(shares.values(), default=1.0 - came)


def _is_start(token: str, choice: str) -> bool:
    """Whether a token begins a choice, or is the choice and something after it."""
    token, choice = token.lstrip().casefold(), choice.casefold()
    if not token:
        return False
    return choice.startswith(token) or (
        token.startswith(choice) and not token[len(choice)].isalnum()
    )
