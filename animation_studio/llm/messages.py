"""What is said to a language model, and what it answers: plain types, without a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from ..errors import ServiceError

__all__ = ["Chat", "ChatAnswer", "ChatRequest", "Message", "NoChoice", "Role", "Tokens"]

Role: TypeAlias = Literal["system", "user", "assistant"]
# Called with the number of tokens that an answer has so far.
Tokens: TypeAlias = Callable[[int], None]


@dataclass(frozen=True)
class Message:
    """One message. `pictures` are whole PNG or JPEG files; they stand before the text.

    First the picture, then the question: several questions about one picture share the beginning
    of their prompt, which servers keep (prefix caching).
    """

    role: Role
    text: str
    pictures: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class ChatRequest:
    """One request. At most one of `schema` and `choices` is given.

    With `schema` the answer is a JSON text that obeys it, as far as the server can hold its model
    to it; who needs to be sure validates. With `choices` (words that differ in their beginning)
    the answer is one of them, with the probability of each where the server tells it.
    `temperature` is 0 to 2; `seed` is 0 to 2**63 - 1, None for the server's own.
    """

    messages: Sequence[Message]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatAnswer:
    """A whole answer, which ended by itself.

    `probabilities` are of `ChatRequest.choices`, from 0 to 1 and together 1; None where the server
    tells none. Token counts are None where it does not count; `seconds` are from the sending of
    the request that was answered to the answer's end. `enforced` says whether the server held the
    model to the schema or the choices; else the prompt asked for it.
    """

    text: str
    model: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float = 0.0
    probabilities: Mapping[str, float] | None = None
    enforced: bool = True
    retries: int = 0


class NoChoice(ServiceError):  # noqa: N818 - what was answered, not what broke
    """A model answered none of the choices."""


class Chat(Protocol):
    """A language model that can be asked. `chat.ChatClient` is the real one."""

    @property
    def name(self) -> str:
        """How messages call the service, with its address."""

    async def model(self) -> str:
        """Return the model that is asked. Raises ServiceError where the server does not say."""

    async def ask(self, request: ChatRequest, tokens: Tokens | None = None) -> ChatAnswer:
        """Return the answer, within the service's `timeouts.generate`.

        Raises ServiceError, whose message names service, model and cause: not reached, refused
        (401, 404, 400, 429, 5xx), silent, broken off, no chat answer, cut at `max_tokens`, ended
        by the server, a flood of white space; NoChoice for an answer that is none of the choices.
        """
