"""An answer that has to be a JSON object of a certain form: checked, and repaired once.

checked = await ask_checked(chat, request, lambda data: plan_problems(data, known), "plan")
checked.value
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeAlias, TypeVar, cast

from ..errors import ServiceError
from .bounds import bounded
from .messages import Chat, ChatAnswer, ChatRequest, Message, Tokens
from .quoting import unmarked

__all__ = ["Checked", "Problems", "ask_checked", "json_object"]

T = TypeVar("T")

# (place, sentence) pairs; the place is a path such as `lines.0.character`, empty for the whole.
Problems: TypeAlias = list[tuple[str, str]]

# What of a bad answer is shown to the model again, and of its problems to model and user.
_SHOWN_ANSWER = 8_000
_SHOWN_PROBLEMS = 8
_SHOWN_PROBLEM = 300
# Places where an object may begin; noise has more of them than any answer.
_BEGINNINGS = 64
# What ends the thoughts that some models put before their answer.
_THOUGHT = "</think>"


@dataclass(frozen=True)
class Checked(Generic[T]):
    """What passed, and the answers it took: one, or two where the first was repaired.

    `problems` are the first answer's; empty where it passed.
    """

    value: T
    answers: tuple[ChatAnswer, ...]
    problems: Problems

    @property
    def answer(self) -> ChatAnswer:
        """The answer that passed."""
        return self.answers[-1]

    @property
    def repaired(self) -> bool:
        """Whether the first answer did not pass."""
        return len(self.answers) > 1


async def ask_checked(
    chat: Chat,
    request: ChatRequest,
    check: Callable[[object], T | Problems],
    what: str,
    tokens: Tokens | None = None,
) -> Checked[T]:
    """Ask for a JSON object, and once more, with the problems named, where `check` finds some.

    What goes beyond the request's schema is left out before it is checked (see `bounds`).
    `check` returns what it makes of the object (never a list), or a list of problems. `what` is
    the noun for messages ("plan"). `tokens` counts each answer from its beginning. Raises
    ServiceError when the second answer fails too, beside what `Chat.ask` raises.
    """
    first = await chat.ask(request, tokens)
    value = _judged(first.text, request, check)
    if not isinstance(value, list):
        return Checked(value, (first,), [])
    problems = cast(Problems, value)
    second = await chat.ask(_repairing(request, first.text, problems), tokens)
    value = _judged(second.text, request, check)
    if not isinstance(value, list):
        return Checked(value, (first, second), problems)
    raise ServiceError(
        f"{chat.name}: the model {second.model} wrote no usable {what}, also when it was told "
        f"what was wrong: {'; '.join(_lines(cast(Problems, value))).rstrip('.')}. Try another "
        "seed or a larger model."
    )


def json_object(text: str) -> dict[str, object]:
    """Return the JSON object in an answer, without fences, thoughts and words around it.

    Of several the longest is meant. Raises ValueError, which says where the JSON breaks.
    """
    thoughts, _, answer = text.rpartition(_THOUGHT)
    found, error = _longest(answer)
    if found is None and thoughts:  # the word may stand inside of the answer
        found, _ = _longest(text)
    if found is None:
        raise ValueError(error)
    return found


def _judged(
    text: str, request: ChatRequest, check: Callable[[object], T | Problems]
) -> T | Problems:
    try:
        data: object = json_object(text)
    except ValueError as error:
        return [("", str(error))]
    return check(data if request.schema is None else bounded(data, request.schema))


def _longest(text: str) -> tuple[dict[str, object] | None, str]:
    """Return the longest object in `text`, or None and why there is none."""
    best: dict[str, object] | None = None
    longest, error, start = 0, "", text.find("{")
    decoder = json.JSONDecoder(strict=False)  # models break lines inside of texts
    for _ in range(_BEGINNINGS):
        if start < 0:
            break
        try:
            found, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as broken:
            # What was read as far as here is no beginning of its own: an object inside of half an
            # object is not the answer. After a text without end no quote comes any more.
            unended = broken.msg.startswith("Unterminated string")
            end = len(text) if unended else max(start + 1, broken.pos)
            error = error or f"the JSON breaks at character {broken.pos + 1}: {broken.msg}"
        except (ValueError, RecursionError):
            return best, error or "the JSON holds a number or a nesting without end"
        else:
            if end - start > longest:
                best, longest = found, end - start
        start = text.find("{", end)
    if not text.strip():
        return best, "the answer is empty"
    return best, error or "the answer holds no JSON object"


def _repairing(request: ChatRequest, text: str, problems: Problems) -> ChatRequest:
    """The request again, with the answer and what is wrong with it."""
    # An empty message of the assistant is refused by some servers.
    answered = Message("assistant", unmarked(text.strip()[:_SHOWN_ANSWER]) or "(nothing)")
    listed = "\n".join(f"- {' '.join(unmarked(line).split())}" for line in _lines(problems))
    again = Message(
        "user",
        f"That answer cannot be used:\n{listed}\n"
        "Answer again with the whole corrected JSON object, and nothing else.",
    )
    return replace(request, messages=(*request.messages, answered, again))


def _lines(problems: Sequence[tuple[str, str]]) -> list[str]:
    """The problems as short lines, the first of them."""
    lines = [f"{place}: {said}" if place else said for place, said in problems[:_SHOWN_PROBLEMS]]
    shown = [
        line if len(line) <= _SHOWN_PROBLEM else f"{line[:_SHOWN_PROBLEM]}..." for line in lines
    ]
    more = len(problems) - _SHOWN_PROBLEMS
    return [*shown, f"and {more} more"] if more > 0 else shown
