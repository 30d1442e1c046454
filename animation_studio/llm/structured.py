"""How a server is held to a schema or to choices: found out by asking, not assumed.

Servers ignore what they do not know and answer 200 all the same. So each form is tried once with
the only choice, or a schema whose only document holds, a random word that the prompt does not have:
only who enforces it can answer that. What was found is remembered for each server and model while
the process runs, and forgotten when the server does not keep to it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from ..registry.services import ServiceEntry, ServiceKind

__all__ = ["CHOICE", "FORMS", "Form", "Found", "Probe", "Tried", "find_form", "forget", "obeys"]

Schema: TypeAlias = Mapping[str, Any]
# The name under which a form without choices of its own asks for one.
CHOICE = "answer"

_REMEMBERED = 64
# Seconds after which a server that enforced nothing is asked again.
_NOTHING = 600.0
_ASKED = "Say one word."
_WORD = "word"
_LETTERS = "bcdfghjklmnpqrstvwxz"


@dataclass(frozen=True)
class Form:
    """One way to say it. `wraps`: choices are asked for as a schema with `CHOICE` as its key."""

    name: str
    of_schema: Callable[[Schema], dict[str, Any]]
    of_choices: Callable[[Sequence[str]], dict[str, Any]] | None = None

    @property
    def wraps(self) -> bool:
        """Whether choices come as a JSON object with the key `CHOICE`."""
        return self.of_choices is None

    def fields(self, schema: Schema | None, choices: Sequence[str]) -> dict[str, Any]:
        """Return what a request's body needs besides the rest."""
        if schema is not None:
            return self.of_schema(schema)
        if self.of_choices is not None:
            return self.of_choices(choices)
        return self.of_schema(_closed(CHOICE, choices))


def _closed(key: str, values: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {key: {"type": "string", "enum": list(values)}},
        "required": [key],
        "additionalProperties": False,
    }


def _json_schema(schema: Schema) -> dict[str, Any]:
    named = {"name": "answer", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _outputs(schema: Schema) -> dict[str, Any]:
    # vLLM 0.32 reads the second field and lets the server's own setting decide.
    return {"structured_outputs": {"json": schema, "disable_any_whitespace": True}}


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        # vLLM since 0.11.
        Form(
            "structured_outputs",
            _outputs,
            lambda choices: {"structured_outputs": {"choice": list(choices)}},
        ),
        # OpenAI's own: older vLLM, Ollama since 0.5, llama.cpp, LM Studio, SGLang.
        Form("response_format", _json_schema),
        # vLLM before 0.11.
        Form(
            "guided",
            lambda schema: {"guided_json": schema},
            lambda choices: {"guided_choice": list(choices)},
        ),
        # TabbyAPI, which takes the wrapping of the form above for the schema itself.
        Form("json_schema", lambda schema: {"json_schema": schema}),
        # Older llama.cpp, llama-cpp-python.
        Form(
            "json_object",
            lambda schema: {"response_format": {"type": "json_object", "schema": schema}},
        ),
    )
}
# What is tried, the likeliest first. Ollama's `format` is known to its own /api/chat alone.
_ORDER: Mapping[ServiceKind, tuple[str, ...]] = {
    "vllm": ("structured_outputs", "response_format", "guided"),
    "ollama": ("response_format",),
    "llama_cpp": ("response_format", "json_object"),
    "openai": ("response_format", "json_schema", "json_object"),
}


class Tried(Enum):
    """What became of a probe.

    FAILED: the server itself did, of which the form may be the cause. UNCLEAR: the answer was cut
    before anything could be said, in thoughts or in white space that JSON allows.
    """

    OBEYED = "obeyed"
    IGNORED = "ignored"
    REFUSED = "refused"
    FAILED = "failed"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Probe:
    """What is asked to find out about a form; `judge` tells what an answer means."""

    form: Form
    word: str

    prompt = _ASKED

    @property
    def fields(self) -> dict[str, Any]:
        """What the request's body needs besides the rest."""
        if self.form.of_choices is not None:
            # Allows no white space, which a model may write until it is cut.
            return self.form.of_choices([self.word])
        return self.form.of_schema(_closed(_WORD, [self.word]))

    def judge(self, text: str, *, cut: bool) -> Tried:
        """Return whether a text can only come from what was asked; `cut`: it is not whole."""
        begins = json.dumps({_WORD: self.word}, separators=(",", ":"))[:-2]
        expected = begins if self.form.wraps else self.word
        bare = "".join(text.split())
        if bare.startswith(expected):
            return Tried.OBEYED
        return Tried.UNCLEAR if cut and bare and expected.startswith(bare) else Tried.IGNORED


@dataclass
class Found:
    """What is known of a server and model. `top_logprobs`: how many it tells; 0 for none."""

    form: Form | None
    when: float
    top_logprobs: int = 20


Key: TypeAlias = tuple[str, str, str]
Ask: TypeAlias = Callable[[Probe], Awaitable[Tried]]

_found: OrderedDict[Key, Found] = OrderedDict()
_searches: dict[tuple[int, Key], asyncio.Future[None]] = {}


def _key(entry: ServiceEntry, model: str) -> Key:
    return (entry.base_url, entry.kind, model)


def forget(entry: ServiceEntry, model: str) -> None:
    """Find out again at the next request."""
    _found.pop(_key(entry, model), None)


async def find_form(entry: ServiceEntry, model: str, ask: Ask, patience: float) -> Found | None:
    """Return what is known of a server; who asks first finds it out, by `ask`.

    Others wait for that, no longer than `patience` seconds: then it is None. Raises what `ask`
    raises, to the one who asked.
    """
    key = _key(entry, model)
    search = (id(asyncio.get_running_loop()), key)
    end = time.monotonic() + patience
    while (known := _known(key)) is None:
        under_way = _searches.get(search)
        if under_way is None:
            return await _search(search, ask, _ORDER[entry.kind])
        await asyncio.wait({under_way}, timeout=max(end - time.monotonic(), 0.0))
        if not under_way.done():
            return None
    return known


def _known(key: Key) -> Found | None:
    known = _found.get(key)
    if known is None or (known.form is None and time.monotonic() - known.when > _NOTHING):
        return None
    _found.move_to_end(key)
    return known


async def _search(search: tuple[int, Key], ask: Ask, order: Sequence[str]) -> Found:
    done = _searches[search] = asyncio.get_running_loop().create_future()
    try:
        form, sure = await _first(ask, order)
        found = Found(form, time.monotonic())
        if sure:
            _found[search[1]] = found
        while len(_found) > _REMEMBERED:
            _found.popitem(last=False)
        return found
    finally:
        del _searches[search]
        done.set_result(None)


async def _first(ask: Ask, order: Sequence[str]) -> tuple[Form | None, bool]:
    """Return the first form that is obeyed, and whether that is worth remembering.

    One of which nothing can be said is hoped for.
    """
    unclear, sure = None, True
    for name in order:
        word = "".join(secrets.choice(_LETTERS) for _ in range(6))
        tried = await ask(Probe(FORMS[name], word))
        if tried is Tried.OBEYED:
            return FORMS[name], True
        if tried is Tried.UNCLEAR:
            unclear = unclear or FORMS[name]
        sure = sure and tried is not Tried.FAILED
    return unclear, sure


_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def obeys(data: object, schema: Schema) -> bool:
    """Whether data has the schema's form: types, enums, keys. Lengths are not looked at.

    What a server that enforces a schema cannot get wrong; it is no validation.
    """
    if "enum" in schema and data not in schema["enum"]:
        return False
    types = _TYPES.get(str(schema.get("type")))
    if types is not None and not isinstance(data, types):
        return False
    if isinstance(data, list):
        items = schema.get("items")
        return not isinstance(items, Mapping) or all(obeys(item, items) for item in data)
    if isinstance(data, dict):
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is False and set(data) - set(properties):
            return False
        return all(name in data for name in schema.get("required", ())) and all(
            obeys(value, properties[name]) for name, value in data.items() if name in properties
        )
    return True
