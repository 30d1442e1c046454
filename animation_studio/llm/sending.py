"""A request on its way to a server: sent, and sent again where that is safe.

What is sent again: a request that was refused unread (429, 503), and one for which no connection
could be made, for two seconds, as for a server that is just starting. Never one of which any answer
came, nor after a time-out or a broken connection: the server may still be at work on it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..http import Deadline, Outcome, Reply, ask
from ..registry.services import ServiceEntry
from .hearing import Hearing, Misheard
from .messages import Tokens

__all__ = ["PATH", "UNKNOWN", "Spoken", "speak"]

PATH = "/v1/chat/completions"
# A server answers so what it does not understand.
UNKNOWN = (400, 422, 501)
_BUSY = (429, 503)
# How often; seconds of the first pause and of the longest, and the longest that a server may wish.
_RETRIES, _PAUSE, _LONGEST_PAUSE, _LONGEST_WISH = 5, 0.5, 8.0, 30.0
# Seconds that a server has which does not listen yet, and between two looks.
_STARTING, _LOOK = 2.0, 0.4
_SPREAD = random.SystemRandom()


@dataclass(frozen=True)
class Spoken:
    """What came of a request. `trouble` is what was wrong with an answer that came.

    `seconds` are those of the last time that it was sent.
    """

    hearing: Hearing
    reply: Reply
    trouble: Misheard | None
    retries: int
    seconds: float

    @property
    def good(self) -> bool:
        """Whether a whole answer came."""
        return self.trouble is None and self.reply.ok

    @property
    def not_understood(self) -> bool:
        """Whether the server did not understand the request."""
        status = self.reply.status if self.trouble is None else self.trouble.code
        return status in UNKNOWN


async def speak(
    entry: ServiceEntry, body: Mapping[str, Any], deadline: Deadline, tokens: Tokens | None
) -> Spoken:
    """Send a request until it is answered or must not be sent again, by the deadline.

    Raises ServiceError for the key alone.
    """
    first, retries = time.monotonic(), 0
    while True:
        began = time.monotonic()
        hearing = Hearing(tokens)
        reply, trouble = await _send(entry, body, deadline, hearing)
        now = time.monotonic()
        pause = _pause(reply, retries, now - first)
        if pause is None or pause >= deadline.left:
            return Spoken(hearing, reply, trouble, retries, now - began)
        await asyncio.sleep(pause)
        retries += 1


async def _send(
    entry: ServiceEntry, body: Mapping[str, Any], deadline: Deadline, hearing: Hearing
) -> tuple[Reply, Misheard | None]:
    timeout = deadline.left
    connect = min(entry.timeouts.answer, timeout)
    try:
        reply = await ask(
            entry, "POST", PATH, timeout=timeout, connect=connect, body=body, take=hearing.take
        )
        if reply.outcome is Outcome.BROKEN and hearing.finish is not None:
            # All was said but the good-bye.
            reply = Reply(Outcome.ANSWERED, "answered 200", 200)
        if reply.ok:
            hearing.end()
    except Misheard as trouble:
        return Reply(Outcome.GARBAGE, trouble.said, 200), trouble
    return reply, None


def _pause(reply: Reply, retries: int, spent: float) -> float | None:
    """Return the seconds after which to ask again, None where that must not be."""
    if reply.outcome is Outcome.REFUSED:
        return _LOOK if spent + _LOOK < _STARTING else None
    if reply.status not in _BUSY or retries >= _RETRIES:
        return None
    if reply.retry_after is not None:
        return min(reply.retry_after, _LONGEST_WISH) + _SPREAD.uniform(0.0, _PAUSE)
    # Half of the pause is chance, so that those who were refused together do not come together.
    return min(_PAUSE * 2.0**retries, _LONGEST_PAUSE) * _SPREAD.uniform(0.5, 1.0)
