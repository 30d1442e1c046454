"""How a stand-in chats: answers that obey the constraints its kind knows, streamed token by token.

What it says is `says`: a list, from whose front each request takes one, or a function of the
request's body. One of them may be a text (sent as it is, whatever was asked for), a mapping of
first tokens to probabilities (the answer is the likeliest, of a request with choices the choice
that it begins), an Answer of any status, or None for an answer of its own: to a schema or choices
that the server knows a valid random one, of seed and prompt; else prose.

Requests of one token, and for the only document of a schema (so the pack finds out what a server
enforces), take nothing from the list.
"""

from __future__ import annotations

import json
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tests.support.standin_documents import legal_documents, random_document
from tests.support.standin_parts import Answer, Question

__all__ = ["Chatting", "Constraint", "constraints"]

PROSE = "Certainly! Here is what you asked for."
_LEAST, _UNLIKELY = -9999.0, -14.0


class Chatting:
    """The chat of a model. All attributes may be set by a test at any time.

    `structured`: the forms of constraints it knows ("structured_outputs", "response_format",
    "json_schema", "json_object", "guided"); others are ignored, or with `refuses_unknown` answered
    400. `vision`: whether it takes pictures. `streams`, `counts`, `gives_logprobs`: whether it
    streams, tells usage, tells logprobs. `blanks`: how much white space its own documents have
    after the first brace. `reasoning` is said before the answer, in `reasoning_field`, or where
    that is "" as <think> in the text. `token_seconds` pass before each token, of which
    `chunk_tokens` come in an event, whose bytes are sent `chunk_bytes` at a time (0: at once).
    `context` in tokens. `chat_finish` replaces the finish_reason. After `break_after` tokens the
    stream breaks as `break_how` says: "hang", "cut" (the connection), "end" (as if all were said),
    "error" (an event), "line" (a megabyte without line feed), "garbage" (an event of no JSON).
    More than `parallel` chats at once are answered 429, with `retry_after` where it is not "".

    Counted: `chats` under way, `most_chats` at once, `left_chats` whose asker left before the end.
    """

    name: str
    lock: threading.RLock
    knows: tuple[str, ...] = ("response_format",)
    picture_refusal = (400, "{name} is not a multimodal model")
    # Whether what the constraint rules out has no probability; llama.cpp tells them before that.
    masks = True

    def prepare_chat(self) -> None:
        """Set the attributes."""
        self.says: list[Any] | Callable[[Mapping[str, Any]], Any] = []
        self.structured = self.knows
        self.refuses_unknown = False
        self.vision = True
        self.streams = True
        self.counts = True
        self.gives_logprobs = True
        self.blanks = 0
        self.reasoning = ""
        self.reasoning_field = "reasoning_content"
        self.token_seconds = 0.0
        self.chunk_tokens = 1
        self.chunk_bytes = 0
        self.context = 32768
        self.chat_finish: str | None = None
        self.break_after: int | None = None
        self.break_how = "hang"
        self.parallel: int | None = None
        self.retry_after = ""
        self.chats = self.most_chats = self.left_chats = 0

    def work(self, question: Question) -> Answer | None:
        """What every request for work does first."""
        raise NotImplementedError

    def post_v1_chat_completions(self, question: Question) -> Answer | None:
        with self.lock:
            if self.parallel is not None and self.chats >= self.parallel:
                headers = {"Retry-After": self.retry_after} if self.retry_after else {}
                return Answer(429, _error("too many requests", 429), headers=headers)
            self.chats += 1
            self.most_chats = max(self.chats, self.most_chats)
        answer = None
        try:
            answer = self._chat(question)
        finally:
            if answer is None or answer.events is None:
                self._end_chat(answer is None)
        return answer

    def _end_chat(self, left: bool) -> None:
        with self.lock:
            self.chats -= 1
            self.left_chats += left

    def _chat(self, question: Question) -> Answer | None:
        worked = self.work(question)
        if worked is None or worked.status != 200:
            return worked
        body = question.body
        refused = self._refusal(body)
        if refused is not None:
            return refused
        said = self._said(body)
        if isinstance(said, Answer):
            return said
        speech = Speech(self, body, said)
        if body.get("stream") and self.streams:
            return Answer(200, events=self._streamed(speech, question))
        for _ in speech.tokens:
            if not self.takes(self.token_seconds, question):
                return None
        return Answer(200, speech.whole())

    def takes(self, seconds: float, question: Question) -> bool:
        """Let time pass; return False when the asker left meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if question.gone():
                return False
            time.sleep(0.002)
        return True

    def _refusal(self, body: Mapping[str, Any]) -> Answer | None:
        """What a server finds wrong with a request before it begins."""
        unknown = [one.form for one in constraints(body) if one.form not in self.structured]
        if unknown and self.refuses_unknown:
            return Answer(400, _error(f"Extra inputs are not permitted: {unknown[0]}", 400))
        if not self.vision and "image_url" in json.dumps(body["messages"]):
            status, text = self.picture_refusal
            return Answer(status, _error(text.format(name=self.name), status))
        if self.prompt_tokens(body) > self.context:
            text = f"This model's maximum context length is {self.context} tokens. However, your "
            text += f"prompt contains at least {self.context + 1} input tokens."
            return Answer(400, _error(text, 400))
        return None

    def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """About as many tokens as its texts have."""
        return sum(len(_text_of(message)) for message in body["messages"]) // 4 + 1

    # What is said

    def _said(self, body: Mapping[str, Any]) -> str | Mapping[str, float] | Answer:
        only = any(len(legal_documents(one.schema, 2)) == 1 for one in constraints(body))
        probe = only or (body.get("max_tokens") or 99) <= 1
        said = None if probe else self._from_script(body)
        if said is not None:
            return said
        held = self.held_to(body)
        if held is None:
            return PROSE
        source = random.Random(f"{body.get('seed')}|{_text_of(body['messages'][-1])}")
        if held.choices:
            share = 0.5 + source.random() / 2
            return {**dict.fromkeys(held.choices, 1 - share), held.choices[0]: share}
        document = json.dumps(random_document(held.schema, source), separators=(",", ":"))
        return document.replace("{", "{" + "\n" * self.blanks, 1)

    def held_to(self, body: Mapping[str, Any]) -> Constraint | None:
        """The constraint that it enforces: the first of a form that it knows."""
        known = (one for one in constraints(body) if one.form in self.structured)
        return next(known, None)

    def _from_script(self, body: Mapping[str, Any]) -> str | Mapping[str, float] | Answer | None:
        with self.lock:
            if callable(self.says):
                said = self.says(body)
            else:
                said = self.says.pop(0) if self.says else None
        assert said is None or isinstance(said, str | Mapping | Answer), said
        return said

    # Streaming

    def _streamed(self, speech: Speech, question: Question) -> Iterator[bytes | None]:
        """The bytes of the events as they come; None cuts the connection."""
        try:
            for piece in self._events(speech, question):
                size = self.chunk_bytes or len(piece or b"") or 1
                if piece is None:
                    yield None
                else:
                    for at in range(0, len(piece), size):
                        yield piece[at : at + size]
        finally:
            self._end_chat(not speech.over)

    def _events(self, speech: Speech, question: Question) -> Iterator[bytes | None]:
        yield speech.event({"role": "assistant", "content": ""}, 0)
        for at in range(0, len(speech.tokens), self.chunk_tokens):
            if self.break_after is not None and at >= self.break_after:
                yield from self._broken(speech, question)
                return
            tokens = speech.tokens[at : at + self.chunk_tokens]
            if not self.takes(self.token_seconds * len(tokens), question) or question.gone():
                return
            yield speech.event_of(at, at + len(tokens))
        speech.over = True
        yield speech.event({"content": ""}, len(speech.tokens), speech.finish)
        if self.counts and (speech.body.get("stream_options") or {}).get("include_usage"):
            yield _event(speech.shell([], speech.usage(len(speech.tokens))))
        yield b"data: [DONE]\n\n"

    def _broken(self, speech: Speech, question: Question) -> Iterator[bytes | None]:
        speech.over = self.break_how != "hang"
        if self.break_how == "hang":
            while not question.gone():
                time.sleep(0.005)
        elif self.break_how == "cut":
            yield b'data: {"choices": [{"del'
            yield None
        elif self.break_how == "error":
            yield _event(_error("the engine died", 500))
            yield b"data: [DONE]\n\n"
        elif self.break_how == "garbage":
            yield b"data: {no JSON at all\n\n"
        elif self.break_how == "line":
            for _ in range(64):
                yield b"x" * (1 << 16)


class Speech:
    """One answer as tokens: of the reasoning first, then of the text."""

    def __init__(
        self, model: Chatting, body: Mapping[str, Any], said: str | Mapping[str, float]
    ) -> None:
        self.model = model
        self.body = body
        self.over = False
        self.first = said if isinstance(said, Mapping) else {}
        held = model.held_to(body)
        text = _likeliest(said, held.choices if held else ()) if self.first else str(said)
        start = ""
        if self.first and held and held.key:
            text = json.dumps({held.key: text}, separators=(",", ":"))
            start = text[: text.index(":") + 2]
        self.thinking = _tokens(model.reasoning) if model.reasoning_field else []
        if model.reasoning and not model.reasoning_field:
            thought = f"<think>{model.reasoning}</think>\n\n"
            text, start = thought + text, thought + start
        every = [*self.thinking, *_tokens(text)]
        most = body.get("max_tokens") or len(every) or 1
        self.tokens = every[:most]
        # The index of the token whose alternatives are `first`.
        self.begins = len(self.thinking) + len(_tokens(start))
        self.finish = model.chat_finish or ("length" if len(every) > most else "stop")
        self.text = "".join(self.tokens[len(self.thinking) :])

    def shell(self, choices: list[Any], usage: Any, kind: str = "chat.completion.chunk") -> Any:
        """What stands around every event and answer."""
        shell = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": self.model.name}
        return {**shell, "choices": choices, **({"usage": usage} if usage else {})}

    def usage(self, tokens: int) -> Any:
        prompt = self.model.prompt_tokens(self.body)
        counts = {"prompt_tokens": prompt, "completion_tokens": tokens}
        return {**counts, "total_tokens": prompt + tokens}

    def event(self, delta: Any, tokens: int, finish: str | None = None, logs: Any = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logs, "finish_reason": finish}
        options = self.body.get("stream_options") or {}
        tells = self.model.counts and options.get("continuous_usage_stats")
        return _event(self.shell([choice], self.usage(tokens) if tells else None))

    def event_of(self, start: int, end: int) -> bytes:
        """The event of the tokens from `start` to before `end`."""
        middle = max(min(len(self.thinking), end), start)
        delta = {"content": "".join(self.tokens[middle:end])}
        if middle > start:
            delta[self.model.reasoning_field] = "".join(self.tokens[start:middle])
        return self.event(delta, end, logs=self.logprobs(start, end))

    def whole(self) -> Any:
        """The answer as one JSON object."""
        message = {"role": "assistant", "content": self.text}
        if self.thinking:
            message[self.model.reasoning_field] = self.model.reasoning
        logs = self.logprobs(0, len(self.tokens))
        choice = {"index": 0, "message": message, "logprobs": logs, "finish_reason": self.finish}
        usage = self.usage(len(self.tokens)) if self.model.counts else None
        return self.shell([choice], usage, "chat.completion")

    def logprobs(self, start: int, end: int) -> Any:
        """As vLLM tells them: the drawn token first, then the likely ones, then what is masked."""
        if not (self.body.get("logprobs") and self.model.gives_logprobs):
            return None
        most = self.body.get("top_logprobs") or 0
        return {"content": [self._entry(index, most) for index in range(start, end)]}

    def _entry(self, index: int, most: int) -> dict[str, Any]:
        token = self.tokens[index]
        known = {token: 0.0}
        if index == self.begins and self.first:
            known = {each: _log(share) for each, share in self.first.items()}
        top = sorted(known.items(), key=lambda one: (not _begins(token, one[0]), -one[1]))
        rest = _LEAST if self.model.masks else _UNLIKELY
        others = ((f"other{i}", rest) for i in range(max(most - len(top), 0)))
        listed = [_logprob(*one) for one in [*top, *others]][:most]
        return {**_logprob(token, known.get(token, 0.0)), "top_logprobs": listed}


class Constraint(NamedTuple):
    """What an answer is held to. `choices` are also a schema; `key` is where in it they stand."""

    form: str
    schema: Mapping[str, Any]
    choices: tuple[str, ...] = ()
    key: str = ""


def constraints(body: Mapping[str, Any]) -> list[Constraint]:
    """Return each constraint of a request, in whatever form."""
    found: list[Constraint] = []
    outputs = body.get("structured_outputs") or {}
    for form, schema, choices in (
        ("structured_outputs", outputs.get("json"), outputs.get("choice")),
        ("guided", body.get("guided_json"), body.get("guided_choice")),
    ):
        if choices:
            found.append(Constraint(form, {"enum": choices}, tuple(choices)))
        elif schema:
            found.append(Constraint(form, schema))
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        found.append(_of_schema("response_format", wanted["json_schema"]["schema"]))
    elif wanted.get("schema"):
        found.append(_of_schema("json_object", wanted["schema"]))
    if body.get("json_schema"):
        found.append(_of_schema("json_schema", body["json_schema"]))
    return found


def _of_schema(form: str, schema: Mapping[str, Any]) -> Constraint:
    """An object with one enum is how choices are asked for as a schema."""
    properties = dict(schema.get("properties", {}))
    if len(properties) == 1:
        ((key, inner),) = properties.items()
        if len(inner.get("enum", ())) > 1:
            return Constraint(form, schema, tuple(inner["enum"]), key)
    return Constraint(form, schema)


def _likeliest(first: Mapping[str, float], choices: tuple[str, ...]) -> str:
    token = max(first, key=lambda each: first[each])
    return next((choice for choice in choices if _begins(choice, token)), token)


def _begins(text: str, start: str) -> bool:
    text, start = text.strip().casefold(), start.strip().casefold()
    return bool(start) and text.startswith(start)


def _text_of(message: Mapping[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _tokens(text: str) -> list[str]:
    """Words and marks of no more than six letters, and white space."""
    return re.findall(r"[^\W_]{1,6}|[^\w\s]|_|\s{1,16}", text)


def _log(share: float) -> float:
    return math.log(share) if share > 0 else _LEAST


def _logprob(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}


def _event(data: Any) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def _error(message: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": "Error", "param": None, "code": code}}
