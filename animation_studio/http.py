"""One question to a service over HTTP, and everything that can come back, told apart.

    reply = await ask(entry, "GET", "/is_sleeping", timeout=5.0)
    if reply.ok: reply.data["is_sleeping"]

Nothing but the service's own address is spoken to: no redirect is followed and no proxy of the
environment is used. The key goes into one header and into no message.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import MissingPackageError, ServiceError
from .registry.services import ServiceEntry

if TYPE_CHECKING:
    import aiohttp

__all__ = ["ANSWER_LIMIT", "Outcome", "Query", "Reply", "api_key", "ask"]

Query: TypeAlias = Sequence[tuple[str, str]]

ANSWER_LIMIT = 1 << 20
_SHOWN = 80
_SHOWN_ERROR = 300
_STARS = "***"


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


@dataclass(frozen=True)
class Reply:
    """The end of one question. `status` is None where none came; `text` is the body of an answer.

    `data` is the JSON object of a good answer, empty where none was expected. `said` is what
    happened, to be put after the service's name ("answered 500: out of memory").
    """

    outcome: Outcome
    said: str
    status: int | None = None
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

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


async def ask(
    entry: ServiceEntry,
    method: str,
    path: str,
    *,
    timeout: float,
    query: Query = (),
    body: Mapping[str, Any] | None = None,
    expect_json: bool = True,
) -> Reply:
    """Send one request and return what became of it, within `timeout` seconds (all in all).

    `expect_json` wants a JSON object in answers of status 200 to 299. Raises ServiceError only for
    the key (see `api_key`), MissingPackageError without aiohttp.
    """
    key = api_key(entry)
    aiohttp = _aiohttp()
    # A body that is packed could be unpacked to any size.
    headers = {"Accept-Encoding": "identity"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=timeout),
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.request(
                method,
                f"{entry.base_url}{path}",
                params=list(query),
                json=body,
                headers=headers,
                allow_redirects=False,
            ) as response,
        ):
            content = await _read(response)
            location = response.headers.get("Location", "")
            reply = _reply(response.status, content, location, expect_json)
    except asyncio.TimeoutError:
        reply = Reply(Outcome.SILENT, f"gave no answer within {timeout:.3g} s")
    except aiohttp.ClientConnectorError as error:
        # A certificate that is not accepted comes without the other error.
        reply = _not_connected(getattr(error, "os_error", error))
    except aiohttp.InvalidURL:
        reply = Reply(Outcome.UNREACHABLE, "has an address that is none")
    except aiohttp.ClientResponseError as error:
        reply = Reply(Outcome.GARBAGE, f"answered with no HTTP: {_short(error.message)}")
    except (aiohttp.ClientError, OSError) as error:
        said = "broke the connection off before its answer was whole"
        reply = Reply(Outcome.BROKEN, f"{said} ({_short(str(error) or type(error).__name__)})")
    return _without(key, reply)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, or one byte more than allowed of a longer one."""
    content = bytearray()
    async for piece in response.content.iter_chunked(1 << 16):
        content += piece
        if len(content) > ANSWER_LIMIT:
            break
    return bytes(content[: ANSWER_LIMIT + 1])


def _reply(status: int, content: bytes, location: str, expect_json: bool) -> Reply:
    if len(content) > ANSWER_LIMIT:
        said = f"answered {status} with more than {ANSWER_LIMIT:,} bytes"
        return Reply(Outcome.GARBAGE, said, status)
    text = content.decode("utf-8", "replace")
    if location and status in range(300, 400):
        said = f"answered {status}: go to {_short(location)}, which is not followed"
        return Reply(Outcome.ANSWERED, said, status, text)
    if status not in range(200, 300):
        said = f"answered {status}: {_error_text(text)}"
        return Reply(Outcome.ANSWERED, said, status, text)
    if not expect_json:
        return Reply(Outcome.ANSWERED, f"answered {status}", status, text)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        said = f"answered {status} with what is no JSON: {_short(text) or 'nothing'}"
        return Reply(Outcome.GARBAGE, said, status, text)
    if not isinstance(data, dict):
        said = f"answered {status} with what is no JSON object: {_short(text)}"
        return Reply(Outcome.GARBAGE, said, status, text)
    return Reply(Outcome.ANSWERED, f"answered {status}", status, text, data)


def _not_connected(error: OSError) -> Reply:
    # "localhost" is two addresses; where they fail for different reasons the errors come as one
    # text without a number. One that refuses is enough: the other has no such address at all.
    refused = isinstance(error, ConnectionRefusedError) or error.errno == errno.ECONNREFUSED
    if refused or (error.errno is None and "refused" in str(error).lower()):
        return Reply(Outcome.REFUSED, "does not run: nothing listens at its address")
    return Reply(Outcome.UNREACHABLE, f"cannot be reached: {_short(str(error))}")


def _error_text(text: str) -> str:
    """Return the message of an error as OpenAI, FastAPI, Ollama and llama.cpp form theirs."""
    try:
        data: object = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    for name in ("error", "detail", "message"):
        inner = data.get(name) if isinstance(data, dict) else None
        data = inner if inner else data
    return _short(data if isinstance(data, str) else text, _SHOWN_ERROR) or "nothing more"


def _short(text: str, limit: int = _SHOWN) -> str:
    """Return the first `limit` characters on one line."""
    line = " ".join(text[: limit * 4].split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= limit else f"{line[:limit]}..."


def _without(key: str | None, reply: Reply) -> Reply:
    """Return the reply with the key struck out, should the server have repeated it."""
    if key is None or (key not in reply.text and key not in reply.said):
        return reply
    said, text = reply.said.replace(key, _STARS), reply.text.replace(key, _STARS)
    return Reply(reply.outcome, said, reply.status, text, reply.data)


def _aiohttp() -> ModuleType:
    try:
        import aiohttp
    except ImportError as error:
        raise MissingPackageError(
            "Services need the package aiohttp, which comes with ComfyUI: pip install aiohttp"
        ) from error
    return aiohttp
