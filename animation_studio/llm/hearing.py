"""What a chat answer says, while it comes: as server-sent events, or as one JSON object."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any

from ..http import error_text, short
from .messages import Tokens
from .sse import SseError, SseEvent, SseParser

__all__ = ["MAX_ANSWER", "Endless", "Hearing", "Misheard"]

# Bytes of the text that a model writes, its reasoning included.
MAX_ANSWER = 256 << 10
# White space in a row that no answer has: a model that is held to JSON may write it for ever.
_MAX_BLANK = 200
# Bytes of the whole body: events of 250 to 3,000 bytes around each token, or one object.
_MAX_STREAM = 64 << 20
_MAX_OBJECT = 4 << 20
_SHOWN_BYTES = 400
# Seconds between two reports of how many tokens there are.
_REPORT = 0.2
# What a body of one object begins with, after white space.
_OBJECT = b"{"
_OPEN, _CLOSE = "<think>", "</think>"
_FLOOD = re.compile(rf"\s{{{_MAX_BLANK + 1}}}")
# What a request says of it vLLM 0.32 ignores, and it needs to be told the backend by name.
_NO_BLANKS = (
    "Try another seed or a higher temperature; vLLM writes none when it is started with "
    """--structured-outputs-config '{"backend": "xgrammar", "disable_any_whitespace": true}'."""
)
_ANOTHER_MODEL = "Try another seed; if it stays so, use another model."


class Misheard(Exception):  # noqa: N818 - what happened, not yet an error of a service
    """An answer that cannot be used. `said` goes after the service's name, `advice` may be "".

    `code` is the status that an error within the answer has.
    """

    def __init__(self, said: str, advice: str = "", code: int | None = None) -> None:
        super().__init__(said)
        self.said = said
        self.advice = advice
        self.code = code


class Endless(Misheard):
    """An answer that would have gone on and on, and was stopped."""


class Hearing:
    """One answer. `take` gets its bytes, `end` is called when all came; both raise Misheard.

    `text` is the answer with everything that its model wrote into it, `reasoning` what the server
    set apart. `entries` are the log-probabilities of the text's tokens as OpenAI forms them.
    `finish` is the finish_reason; counts are None where the server does not count, `heard` is the
    number of tokens so far, as far as that can be known.
    """

    def __init__(self, tokens: Tokens | None = None) -> None:
        self.text = ""
        self.reasoning = ""
        self.finish: str | None = None
        self.entries: list[Mapping[str, Any]] = []
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.heard = 0
        self._tell = tokens
        self._told = (0, 0.0)
        self._parser = SseParser()
        self._body = bytearray()
        self._size = 0
        self._begun = False
        self._is_object = False
        self._understood = False
        self._done = False
        self._written = 0
        self._blank = 0

    @property
    def answer_start(self) -> int:
        """Where in `text` the answer begins, after a leading <think>...</think>.

        The templates of some models write the first mark themselves, so that only the second comes.
        A thought without its end has no answer after it.
        """
        end = self.text.find(_CLOSE)
        if self.text.lstrip().startswith(_OPEN):
            return len(self.text) if end < 0 else end + len(_CLOSE)
        # Within JSON the mark is somebody's text.
        in_json = self.text.lstrip()[:1] in ("{", "[", '"')
        return end + len(_CLOSE) if end >= 0 and not in_json else 0

    @property
    def answer(self) -> str:
        """The text without a leading thought and without white space around it."""
        return self.text[self.answer_start :].strip()

    def take(self, piece: bytes) -> bool:
        """Hear a piece of the body; return True when nothing more is to come."""
        self._size += len(piece)
        if not self._begun or self._is_object or len(self._body) < _SHOWN_BYTES:
            self._body += piece
        if not self._begun:
            self._begin()
        elif not self._is_object:
            self._hear(piece)
        if self._size > (_MAX_OBJECT if self._is_object else _MAX_STREAM):
            raise Misheard(f"sent more than {self._size:,} bytes")
        return self._done

    def end(self) -> None:
        """Say that nothing more comes."""
        if self._is_object:
            self._data(bytes(self._body).decode("utf-8", "replace"))
        elif self._begun and not self._done:
            self._events(self._end_of_stream())
        if not self._understood:
            shown = short(bytes(self._body[:_SHOWN_BYTES]).decode("utf-8", "replace")) or "nothing"
            raise Misheard(f"answered 200 with what is no chat answer: {shown}")
        self._report(last=True)

    def _begin(self) -> None:
        """Tell by its first letter what the body is."""
        begins = self._body.lstrip()[:1]
        if begins:
            self._begun, self._is_object = True, begins == _OBJECT
            if not self._is_object:
                self._hear(bytes(self._body))
        elif len(self._body) > MAX_ANSWER:
            raise Misheard(f"answered 200 with {len(self._body):,} bytes of white space")

    def _hear(self, piece: bytes) -> None:
        try:
            events = self._parser.feed(piece)
        except SseError as error:
            raise Misheard(f"sent {error}") from None
        self._events(events)

    def _end_of_stream(self) -> list[SseEvent]:
        try:
            return self._parser.end()
        except SseError as error:
            raise Misheard(f"sent {error}") from None

    def _events(self, events: list[SseEvent]) -> None:
        for event in events:
            if event.data.strip() == "[DONE]":
                self._done = True
            elif not self._done:
                self._data(event.data, failed=event.name == "error")

    def _data(self, text: str, *, failed: bool = False) -> None:
        """Hear one JSON object: an event's, or the whole answer."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            what = "an error" if failed else "what is no JSON object"
            raise Misheard(f"sent {what}: {short(text) or 'nothing'}")
        if failed or data.get("error") or data.get("object") == "error":
            inner = data.get("error")
            code = (inner if isinstance(inner, dict) else data).get("code")
            said = f"sent an error: {error_text(text)}"
            raise Misheard(said, code=code if isinstance(code, int) else None)
        self._usage(data.get("usage"))
        choices = data.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            self._choice(choices[0])
        self._understood = self._understood or isinstance(choices, list)
        self._report()

    def _usage(self, usage: object) -> None:
        if not isinstance(usage, dict):
            return
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(prompt, int):
            self.prompt_tokens = prompt
        if isinstance(completion, int):
            self.completion_tokens = completion

    def _choice(self, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta")
        message = delta if isinstance(delta, dict) else choice.get("message")
        message = message if isinstance(message, dict) else {}
        # vLLM, SGLang and llama.cpp have the first name, Ollama and vLLM since 0.12 the second.
        thought = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
        content = _text(message.get("content"))
        self.heard += bool(thought or content)
        if self.completion_tokens is not None:
            self.heard = max(self.heard, self.completion_tokens)
        self.reasoning += thought
        logprobs = choice.get("logprobs")
        entries = logprobs.get("content") if isinstance(logprobs, dict) else None
        # Those of the reasoning's tokens have no place in the text.
        if isinstance(entries, list) and (not thought or message is not delta):
            self.entries += [entry for entry in entries if isinstance(entry, dict)]
        self._write(thought, content)
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish:
            self.finish = finish

    def _write(self, thought: str, content: str) -> None:
        """Add to the text, unless it is about to have no end."""
        run = " " * self._blank + content
        if content and _FLOOD.search(run):
            said = (
                f"wrote more than {_MAX_BLANK} characters of white space in a row and was stopped"
            )
            raise Endless(said, _NO_BLANKS)
        self._written += len(f"{thought}{content}".encode("utf-8", "replace"))
        if self._written > MAX_ANSWER:
            said = f"wrote more than {MAX_ANSWER:,} bytes and was stopped"
            raise Endless(said, _ANOTHER_MODEL)
        self._blank = len(run) - len(run.rstrip())
        self.text += content

    def _report(self, *, last: bool = False) -> None:
        if self._tell is None:
            return
        count, when = self._told
        if last and self.completion_tokens is not None:
            self.heard = self.completion_tokens
        now = time.monotonic()
        if self.heard != count and (last or now - when >= _REPORT):
            self._told = (self.heard, now)
            self._tell(self.heard)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
