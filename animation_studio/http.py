"""One question to a service over HTTP, and everything that can come back, told apart.

    reply = await ask(entry, "GET", "/is_sleeping", timeout=5.0)
    if reply.ok: reply.data["is_sleeping"]

An answer that comes bit by bit is given away as it comes: `ask(..., take=parser.feed)`.
Nothing but the service's own address is spoken to: no redirect is followed and no proxy of the
environment is used. The key goes into one header and into no message.
"""

from __future__ import annotations

import asyncio
import errno
import io
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import MissingPackageError, ServiceError
from .registry.services import ServiceEntry

if TYPE_CHECKING:
    import aiohttp

__all__ = [
    "ANSWER_LIMIT",
    "Deadline",
    "Outcome",
    "Query",
    "Reply",
    "Take",
    "advice",
    "api_key",
    "ask",
    "error_text",
    "model_ids",
    "short",
    "struck",
]

Query: TypeAlias = Sequence[tuple[str, str]]
# Gets each piece of a body; True says that it is enough.
Take: TypeAlias = Callable[[bytes], bool]

ANSWER_LIMIT = 1 << 20
# The least that a question gets when a time-out is nearly used up, in seconds: enough for a server
# that answers, so that the last look tells how things stand and not that there was no time.
_LEAST = 0.5
_SHOWN = 80
_SHOWN_ERROR = 300
_STARS = "***"
_KEY_STATUSES = (401, 403)
_KEY_ADVICE = "Name the environment variable that holds its key as api_key_env in services.yaml."


class Deadline:
    """A moment in the future, by the monotonic clock.

    `least` are the seconds that a question gets when it has passed; more than 0, which to aiohttp
    is no time-out at all.
    """

    def __init__(self, seconds: float, least: float = _LEAST) -> None:
        self.seconds = seconds
        self._least = least
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until it, but never less than the least that one question gets."""
        return max(self.rest, self._least)

    @property
    def rest(self) -> float:
        """Seconds until it; 0.0 when it has passed."""
        return max(self._end - time.monotonic(), 0.0)


class Outcome(str, Enum):
    """What became of a question.

    REFUSED: nothing listens at the address. UNREACHABLE: the address cannot be reached (no such
    host, no route). SILENT: no whole answer in time. BROKEN: the connection ended before a whole
    answer. GARBAGE: an answer that is not what was expected (no HTTP, no JSON object, too long).
    ANSWERED: an answer of any status.
    """

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    BROKEN = "broken"
    GARBAGE = "garbage"
    ANSWERED = "answered"


_ADVICE = {
    Outcome.REFUSED: "Start it, or check base_url in services.yaml.",
    Outcome.UNREACHABLE: "Check base_url in services.yaml and the network.",
    Outcome.SILENT: "It is busy or hangs: look at its log; if it stays so, restart it.",
    Outcome.BROKEN: "It may have crashed: look at its log and restart it.",
    Outcome.GARBAGE: "Check that base_url and kind in services.yaml are this server's.",
    Outcome.ANSWERED: "Look at its log; if it stays so, restart it.",
}


@dataclass(frozen=True)
class Reply:
    """The end of one question. `status` is None where none came; `text` is the body of an answer.

    `data` is the JSON object of a good answer, empty where none was expected. `said` is what
    happened, to be put after the service's name ("answered 500: out of memory"). `retry_after` is
    how many seconds the server wants to be left alone, where it says so.
    """

    outcome: Outcome
    said: str
    status: int | None = None
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    retry_after: float | None = None

    @property
    def ok(self) -> bool:
        """Whether a whole answer with a status of 200 to 299 came, with JSON where expected."""
        return self.outcome is Outcome.ANSWERED and self.status in range(200, 300)


def api_key(entry: ServiceEntry) -> str | None:
    """Return the key from the variable that `api_key_env` names; None where it names none.

    Raises ServiceError, which names the variable and never its content, when it is not set or
    cannot stand in a header.
    """
    name = entry.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ServiceError(
            f"The environment variable {name} (api_key_env in services.yaml) is not set in "
            "ComfyUI's environment. Set it before ComfyUI starts, or remove api_key_env."
        )
    if not (key.isascii() and key.isprintable()):
        raise ServiceError(
            f"The environment variable {name} (api_key_env in services.yaml) holds characters "
            "that no key has. Set it to the key alone."
        )
    return key


def advice(reply: Reply) -> str:
    """Return what to do about a reply that is not good, as one sentence."""
    return _KEY_ADVICE if reply.status in _KEY_STATUSES else _ADVICE[reply.outcome]


def model_ids(reply: Reply) -> list[str]:
    """Return the names in a good reply to GET /v1/models, in the server's order."""
    models = reply.data.get("data")
    entries = models if isinstance(models, list) else []
    names = (entry.get("id") for entry in entries if isinstance(entry, dict))
    return [name for name in names if isinstance(name, str)]


async def ask(
    entry: ServiceEntry,
    method: str,
    path: str,
    *,
    timeout: float,
    connect: float | None = None,
    query: Query = (),
    body: Mapping[str, Any] | None = None,
    expect_json: bool = True,
    take: Take | None = None,
) -> Reply:
    """Send one request and return what became of it, within `timeout` seconds (all in all).

    `connect` bounds connecting alone. `expect_json` wants a JSON object in answers of status 200 to
    299. With `take` their body goes there, of any length and form, as it comes, until `take`
    returns True or raises: then the connection is closed, and `text` and `data` stay empty.
    Cancelling closes the connection, too. Raises ServiceError only for the key (see `api_key`),
    MissingPackageError without aiohttp, and what `take` raises.
    """
    key = api_key(entry)
    aiohttp = _aiohttp()
    # A body that is packed could be unpacked to any size.
    headers = {"Accept-Encoding": "identity"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    data = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        # As a file: bytes of more than a megabyte make aiohttp warn that they block the loop.
        data = io.BytesIO(json.dumps(body).encode())
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=connect),
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.request(
                method,
                f"{entry.base_url}{path}",
                params=list(query),
                data=data,
                headers=headers,
                allow_redirects=False,
            ) as response,
        ):
            if take is not None and response.status in range(200, 300):
                await _give(response, take)
                reply = Reply(Outcome.ANSWERED, f"answered {response.status}", response.status)
            else:
                content = await _read(response)
                reply = _reply(response.status, content, response.headers, expect_json)
    except aiohttp.ConnectionTimeoutError:
        said = f"cannot be reached: no connection within {connect or timeout:.3g} s"
        reply = Reply(Outcome.UNREACHABLE, said)
    except asyncio.TimeoutError:
        reply = Reply(Outcome.SILENT, f"gave no answer within {timeout:.3g} s")
    except aiohttp.ClientConnectorError as error:
        # A certificate that is not accepted comes without the other error.
        reply = _not_connected(getattr(error, "os_error", error))
    except aiohttp.InvalidURL:
        reply = Reply(Outcome.UNREACHABLE, "has an address that is none")
    except aiohttp.ClientResponseError as error:
        reply = Reply(Outcome.GARBAGE, f"answered with no HTTP: {short(error.message)}")
    except (aiohttp.ClientError, OSError) as error:
        said = "broke the connection off before its answer was whole"
        reply = Reply(Outcome.BROKEN, f"{said} ({short(str(error) or type(error).__name__)})")
    return _without(key, reply)


async def _give(response: aiohttp.ClientResponse, take: Take) -> None:
    async for piece in response.content.iter_any():
        if take(piece):
            return


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, or one byte more than allowed of a longer one."""
    content = bytearray()
    async for piece in response.content.iter_chunked(1 << 16):
        content += piece
        if len(content) > ANSWER_LIMIT:
            break
    return bytes(content[: ANSWER_LIMIT + 1])


def _reply(status: int, content: bytes, headers: Mapping[str, str], expect_json: bool) -> Reply:
    if len(content) > ANSWER_LIMIT:
        said = f"answered {status} with more than {ANSWER_LIMIT:,} bytes"
        return Reply(Outcome.GARBAGE, said, status)
    text = content.decode("utf-8", "replace")
    location = headers.get("Location", "")
    if location and status in range(300, 400):
        said = f"answered {status}: go to {short(location)}, which is not followed"
        return Reply(Outcome.ANSWERED, said, status, text)
    if status not in range(200, 300):
        said = f"answered {status}: {error_text(text)}"
        wait = _seconds(headers.get("Retry-After", ""))
        return Reply(Outcome.ANSWERED, said, status, text, retry_after=wait)
    if not expect_json:
        return Reply(Outcome.ANSWERED, f"answered {status}", status, text)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        said = f"answered {status} with what is no JSON: {short(text) or 'nothing'}"
        return Reply(Outcome.GARBAGE, said, status, text)
    if not isinstance(data, dict):
        said = f"answered {status} with what is no JSON object: {short(text)}"
        return Reply(Outcome.GARBAGE, said, status, text)
    return Reply(Outcome.ANSWERED, f"answered {status}", status, text, data)


def _not_connected(error: OSError) -> Reply:
    # "localhost" is two addresses; where they fail for different reasons the errors come as one
    # text without a number. One that refuses is enough: the other has no such address at all.
    refused = isinstance(error, ConnectionRefusedError) or error.errno == errno.ECONNREFUSED
    if refused or (error.errno is None and "refused" in str(error).lower()):
        return Reply(Outcome.REFUSED, "does not run: nothing listens at its address")
    return Reply(Outcome.UNREACHABLE, f"cannot be reached: {short(str(error))}")


def _seconds(text: str) -> float | None:
    """Return a Retry-After; None for a date, which no local server sends."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def error_text(text: str) -> str:
    """Return the message of an error as OpenAI, FastAPI, Ollama and llama.cpp form theirs.

    On one line, cut after 300 characters; "nothing more" for an empty body.
    """
    try:
        data: object = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    for name in ("error", "detail", "message"):
        inner = data.get(name) if isinstance(data, dict) else None
        data = inner if inner else data
    return short(data if isinstance(data, str) else text, _SHOWN_ERROR) or "nothing more"


def short(text: str, limit: int = _SHOWN) -> str:
    """Return the first `limit` characters on one line, without what no terminal can show."""
    line = " ".join(text[: limit * 4].split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= limit else f"{line[:limit]}..."


def struck(key: str | None, text: str) -> str:
    """Return a text that a server sent with the key struck out, should it have repeated it."""
    return text if key is None else text.replace(key, _STARS)


def _without(key: str | None, reply: Reply) -> Reply:
    said, text = struck(key, reply.said), struck(key, reply.text)
    return (
        reply if (said, text) == (reply.said, reply.text) else replace(reply, said=said, text=text)
    )


def _aiohttp() -> ModuleType:
    try:
        import aiohttp
    except ImportError as error:
        raise MissingPackageError(
            "Services need the package aiohttp, which comes with ComfyUI: pip install aiohttp"
        ) from error
    return aiohttp
