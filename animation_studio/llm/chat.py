"""One request to an OpenAI-compatible server, whichever it is, and one whole answer or the cause.

    client = ChatClient("writer", registry.service("writer"))
    answer = await client.ask(ChatRequest([Message("user", "Hello")], max_tokens=64))

A request with a schema or choices is held to them in the form that the server is found to know
(see `structured`); what is sent again after a failure, `sending` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ServiceError
from ..http import Deadline, Outcome, Reply, api_key, ask, model_ids, short, struck
from ..registry.services import ServiceEntry
from .causes import Cause, cause_of_end, cause_of_reply, cause_of_trouble, key_advice
from .checked import json_object
from .choices import chosen, probabilities
from .hearing import Endless, Hearing
from .messages import ChatAnswer, ChatRequest, NoChoice, Tokens
from .request_body import media_type, message_bodies, told
from .sending import Spoken, speak
from .structured import CHOICE, Found, Probe, Tried, find_form, forget, obeys

__all__ = ["ChatClient"]

# An answer gets no second more than its time-out: never quite 0.
_NO_MORE = 0.001
# Tokens of a probe, and of one that a model answers which thinks first.
_PROBE_TOKENS = (48, 1024)
# Tokens that a choice may take at least, in whatever form.
_CHOICE_TOKENS = 48
# How many alternatives are asked for where more were refused.
_FEWER_LOGPROBS = {20: 5, 5: 0}


@dataclass(frozen=True)
class _Task:
    """A request on its way: to which model, until when, who hears of tokens."""

    request: ChatRequest
    model: str
    deadline: Deadline
    tokens: Tokens | None = None


class _NotUnderstoodError(ServiceError):
    """The server refused a request that is held to a form, and does not say clearly why."""


class ChatClient:
    """The language model of one service. Safe to use for several requests at once."""

    def __init__(self, key: str, entry: ServiceEntry) -> None:
        self._key = key
        self._entry = entry
        # What the server offered first, where services.yaml names no model.
        self._offered: str | None = None

    @property
    def name(self) -> str:
        """How messages call it: its key and address."""
        return f"Service {self._key} ({self._entry.base_url})"

    async def model(self) -> str:
        """Return the model of services.yaml, else the first that the server offers."""
        return await self._model(Deadline(self._entry.timeouts.answer, _NO_MORE))

    async def ask(self, request: ChatRequest, tokens: Tokens | None = None) -> ChatAnswer:
        """Return the answer, within `timeouts.generate`; see `messages.Chat`.

        Of choices none of which the model answered the error is a NoChoice.
        """
        deadline = Deadline(self._entry.timeouts.generate, _NO_MORE)
        self._check_pictures(request)
        task = _Task(request, await self._model(deadline), deadline, tokens)
        if request.schema is None and not request.choices:
            return await self._answer(task, None)
        found = await self._find(task)
        try:
            return await self._answer(task, found)
        except _NotUnderstoodError:
            # An updated server, or a request that is wrong in itself: the form tells which.
            forget(self._entry, task.model)
            again = await self._find(task)
            if again.form is found.form:
                raise
        return await self._answer(task, again)

    # What is asked

    async def _model(self, deadline: Deadline) -> str:
        known = self._entry.model or self._offered
        if known is not None:
            return known
        reply = await self._list_models(deadline)
        names = model_ids(reply)
        if names:
            self._offered = names[0]
            return names[0]
        if not reply.ok:
            raise self._error("its models", Cause(reply.said, key_advice(self._entry, reply)))
        todo = "Load one, or name it as `model` in services.yaml."
        raise self._error("its models", Cause("offers no model", todo))

    async def _list_models(self, deadline: Deadline) -> Reply:
        timeout = min(self._entry.timeouts.answer, deadline.left)
        return await ask(self._entry, "GET", "/v1/models", timeout=timeout)

    def _check_pictures(self, request: ChatRequest) -> None:
        pictures = [picture for message in request.messages for picture in message.pictures]
        if pictures and self._entry.vision is False:
            todo = "Choose a service with a vision model."
            said = "does not see pictures (vision: false in services.yaml)"
            raise self._error("a look at pictures", Cause(said, todo))
        for picture in pictures:
            if media_type(picture) is None:
                said = f"was not asked: a picture of {len(picture):,} bytes is no PNG and no JPEG"
                raise ServiceError(f"{self.name} {said}. Give it as a PNG file.")

    def _body(self, task: _Task, found: Found | None) -> dict[str, Any]:
        request = task.request
        form = found.form if found else None
        body = self._common(task.model, request.max_tokens, request.temperature)
        addition = told(request) if found is not None and form is None else ""
        body["messages"] = message_bodies(request.messages, addition)
        if request.seed is not None:
            body["seed"] = request.seed
        if form is not None:
            body.update(form.fields(request.schema, request.choices))
        if request.choices:
            body["max_tokens"] = max(request.max_tokens, _CHOICE_TOKENS)
            if found is not None and found.top_logprobs:
                body.update(logprobs=True, top_logprobs=found.top_logprobs)
        return body

    def _common(self, model: str, max_tokens: int, temperature: float) -> dict[str, Any]:
        options = {"include_usage": True}
        if self._entry.kind == "vllm":
            options["continuous_usage_stats"] = True
        return {
            "model": model,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "stream": True,
            "stream_options": options,
        }

    async def _find(self, task: _Task) -> Found:
        """Return how the server is held to something."""

        async def ask_form(probe: Probe) -> Tried:
            return await self._try(probe, task)

        found = await find_form(self._entry, task.model, ask_form, task.deadline.left)
        if found is None:
            silent = Reply(Outcome.SILENT, "gave no answer")
            raise self._no_answer(task.model, self._cause(task, silent))
        return found

    async def _try(self, probe: Probe, task: _Task) -> Tried:
        for most in _PROBE_TOKENS:
            body = self._common(task.model, most, 0.0)
            body.update(probe.fields, messages=[{"role": "user", "content": probe.prompt}])
            spoken = await speak(self._entry, body, task.deadline, None)
            if spoken.not_understood:
                return Tried.REFUSED
            if spoken.reply.status == 500:
                return Tried.FAILED
            endless = isinstance(spoken.trouble, Endless)
            if not (spoken.good or endless):
                raise await self._failure(task, spoken)
            hearing = spoken.hearing
            cut = endless or hearing.finish == "length"
            thinks = bool(hearing.reasoning) or hearing.answer_start > 0
            if hearing.answer or not (cut and thinks):
                return probe.judge(hearing.answer, cut=cut)
        return Tried.UNCLEAR

    # What comes of it

    async def _answer(self, task: _Task, found: Found | None) -> ChatAnswer:
        spoken = await speak(self._entry, self._body(task, found), task.deadline, task.tokens)
        while found is not None and found.top_logprobs and _refuses_logprobs(spoken):
            found.top_logprobs = _FEWER_LOGPROBS.get(found.top_logprobs, 0)
            spoken = await speak(self._entry, self._body(task, found), task.deadline, task.tokens)
        if not spoken.good:
            raise await self._failure(task, spoken, found)
        hearing = spoken.hearing
        text = hearing.answer
        cause = cause_of_end(task.request, hearing, text)
        # The first word of an answer that was cut may say enough.
        bare = bool(task.request.choices) and found is not None and found.form is None
        if cause is not None and not (bare and text and hearing.finish == "length"):
            raise self._no_answer(task.model, cause)
        answer = ChatAnswer(
            text,
            task.model,
            prompt_tokens=hearing.prompt_tokens,
            completion_tokens=hearing.completion_tokens,
            seconds=spoken.seconds,
            retries=spoken.retries,
        )
        if found is None:
            return answer
        if task.request.schema is not None:
            return self._of_schema(task, found, answer)
        return self._of_choices(task, found, answer, hearing)

    def _of_schema(self, task: _Task, found: Found, answer: ChatAnswer) -> ChatAnswer:
        assert task.request.schema is not None
        held = found.form is not None and obeys(_object(answer.text), task.request.schema)
        if found.form is not None and not held:
            forget(self._entry, task.model)
        return replace(answer, enforced=held)

    def _of_choices(
        self, task: _Task, found: Found, answer: ChatAnswer, hearing: Hearing
    ) -> ChatAnswer:
        choices, word = task.request.choices, answer.text
        if found.form is not None and found.form.wraps:
            inner = (_object(word) or {}).get(CHOICE)
            word = inner if isinstance(inner, str) else word
        held = found.form is not None and word in choices
        if found.form is not None and not held:
            forget(self._entry, task.model)
        choice = word if word in choices else chosen(word, choices)
        if choice is None:
            neither = " nor ".join(f'"{one}"' for one in choices)
            cause = Cause(f'answered neither {neither} but "{short(word)}"', "Use another model.")
            raise NoChoice(str(self._no_answer(task.model, cause)))
        start = hearing.answer_start
        if found.form is not None and found.form.wraps:
            start = max(start, hearing.text.find(":", start))
        start = hearing.text.lower().find(choice.lower(), start)
        shares = probabilities(hearing.entries, hearing.text, start, choices)
        return replace(answer, text=choice, probabilities=shares, enforced=held)

    # What is said about it

    async def _failure(
        self, task: _Task, spoken: Spoken, found: Found | None = None
    ) -> ServiceError:
        """Return the error of what is no answer."""
        offered = None
        if spoken.reply.status == 404:
            self._offered = None
            offered = model_ids(await self._list_models(task.deadline))
        if spoken.trouble is not None:
            cause = cause_of_trouble(spoken.trouble, spoken.hearing.heard)
        else:
            cause = self._cause(task, spoken.reply, spoken, offered)
        if found is not None and found.form is None:
            # Refused without a form too: that a form was refused has said nothing.
            forget(self._entry, task.model)
        error = self._no_answer(task.model, cause)
        of_form = found is not None and found.form is not None and spoken.not_understood
        return _NotUnderstoodError(str(error)) if of_form and not cause.known else error

    def _cause(
        self,
        task: _Task,
        reply: Reply,
        spoken: Spoken | None = None,
        offered: Sequence[str] | None = None,
    ) -> Cause:
        return cause_of_reply(
            self._entry,
            task.model,
            task.request,
            reply,
            heard=spoken.hearing.heard if spoken else 0,
            retries=spoken.retries if spoken else 0,
            offered=offered,
        )

    def _no_answer(self, model: str, cause: Cause) -> ServiceError:
        return self._error(f"an answer of {model}", cause)

    def _error(self, asked: str, cause: Cause) -> ServiceError:
        text = f"{self.name} was asked for {asked} and {cause.said}. {cause.todo}"
        return ServiceError(struck(api_key(self._entry), text))


def _object(text: str) -> dict[str, object] | None:
    """The JSON object in a text, None where there is none."""
    try:
        return json_object(text)
    except ValueError:
        return None


def _refuses_logprobs(spoken: Spoken) -> bool:
    said = spoken.trouble.said if spoken.trouble else spoken.reply.text
    return spoken.not_understood and "logprob" in said.lower()
