"""Why there is no answer: what a service did, and what to do about it, in one sentence each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..http import Outcome, Reply, advice
from ..registry.services import ServiceEntry
from .hearing import Hearing, Misheard
from .messages import ChatRequest

__all__ = ["Cause", "cause_of_end", "cause_of_reply", "cause_of_trouble", "key_advice"]

_WHERE = "Check base_url (without /v1) and kind in services.yaml."
_LOG = "Look at its log; if it stays so, restart it."
# vLLM: "is not a multimodal model", "At most 0 image(s)"; llama.cpp, with 500: "image input is not
# supported", "unsupported content part"; Ollama: "missing data required for image input".
_BLIND = re.compile(
    r"not a (multi-?modal|vision)|at most 0 image|missing data required for image|mmproj|"
    r"image(s|_url| input)? .{0,20}not support|(not|n't) support.{0,20}(image|vision|multi-?modal)|"
    r"unsupported content (part|type)",
    re.IGNORECASE,
)
_BLIND_STATUSES = (400, 415, 422, 500, 501)
_LONG = re.compile(
    r"context.{0,20}(length|size|window)|maximum context|max_model_len|n_ctx|too (long|large)|"
    r"exceeds? the (available|maximum)",
    re.IGNORECASE,
)
_LONG_STATUSES = (400, 413, 422, 500)
_MAX_NAMED = 8
# "eos" and "eos_token" are TabbyAPI's and TGI's words.
_GOOD_ENDS = ("stop", "eos", "eos_token")


@dataclass(frozen=True)
class Cause:
    """`said` goes after "was asked ... and"; `todo` is a sentence.

    `known` is False where the server alone knows what was wrong with the request.
    """

    said: str
    todo: str
    known: bool = True


def cause_of_reply(
    entry: ServiceEntry,
    model: str,
    request: ChatRequest,
    reply: Reply,
    *,
    heard: int,
    retries: int,
    offered: Sequence[str] | None,
) -> Cause:
    """Return why a reply that is not good is none.

    `heard` tokens had come. `offered` are the models that the server lists, None where it was not
    asked or did not say.
    """
    again = f" after {retries} {'retry' if retries == 1 else 'retries'}" if retries else ""
    if reply.outcome is Outcome.SILENT:
        return _silent(entry, heard)
    if reply.outcome is Outcome.BROKEN and heard:
        said = f"broke the connection off after {heard} tokens of its answer"
        return Cause(said, advice(reply))
    status = reply.status
    if reply.outcome is not Outcome.ANSWERED or status is None:
        return Cause(f"{reply.said}{again}", advice(reply))
    pictures = any(message.pictures for message in request.messages)
    if pictures and status in _BLIND_STATUSES and _BLIND.search(reply.text):
        todo = "Choose a service with a vision model."
        return Cause(f"does not see pictures: it {reply.said}", todo)
    if status in _LONG_STATUSES and _LONG.search(reply.text):
        return Cause(
            f"found the request longer than its context: it {reply.said}",
            "Ask for less, or start it with a longer context.",
        )
    if status in (401, 403):
        return Cause(reply.said, key_advice(entry, reply))
    if status == 404:
        return _not_there(model, reply, offered)
    if status in range(300, 400):
        return Cause(reply.said, _WHERE)
    if status == 429:
        return Cause(
            f"is busy{again}: it {reply.said}",
            "Try again when it has less to do, or lower its `parallel` in services.yaml.",
        )
    if status == 503:
        todo = "It is loading or overloaded: try again in a moment, or look at its log."
        return Cause(f"{reply.said}{again}", todo)
    todo = _LOG if status >= 500 else "Its log may say more; check its kind in services.yaml."
    return Cause(f"{reply.said}{again}", todo, known=False)


def _silent(entry: ServiceEntry, heard: int) -> Cause:
    seconds = entry.timeouts.generate
    if heard:
        return Cause(
            f"was not done after {seconds:.3g} s, when {heard} tokens had come",
            "Raise timeouts.generate in services.yaml if it is that slow, or look at its log.",
        )
    return Cause(
        f"gave no answer within {seconds:.3g} s",
        "It is busy, asleep or hangs: look at its log, or raise timeouts.generate in "
        "services.yaml if it is that slow.",
    )


def key_advice(entry: ServiceEntry, reply: Reply) -> str:
    """Return what to do about a reply, which may be one to the key."""
    if entry.api_key_env is None or reply.status not in (401, 403):
        return advice(reply)
    return (
        f"Check the key in the environment variable {entry.api_key_env} (api_key_env in "
        "services.yaml)."
    )


def _not_there(model: str, reply: Reply, offered: Sequence[str] | None) -> Cause:
    if not offered:
        return Cause(f"{reply.said} (to POST /v1/chat/completions)", _WHERE)
    if model in offered:
        return Cause(f"{reply.said}, although it lists that model", _LOG)
    named = ", ".join(offered[:_MAX_NAMED]) + (", ..." if len(offered) > _MAX_NAMED else "")
    todo = "Name one of these as `model` of the service in services.yaml, or load the other."
    return Cause(f"does not have it: it offers {named}", todo)


def cause_of_trouble(trouble: Misheard, heard: int) -> Cause:
    """Return why an answer that came, of `heard` tokens so far, is none."""
    said = trouble.said + (f" after {heard} tokens" if heard else "")
    kind = Outcome.GARBAGE if trouble.code is None else Outcome.ANSWERED
    return Cause(said, trouble.advice or advice(Reply(kind, said)), known=trouble.code is None)


def cause_of_end(request: ChatRequest, hearing: Hearing, text: str) -> Cause | None:
    """Return why a whole answer, whose text without its reasoning is `text`, is none."""
    finish = hearing.finish
    if finish == "length":
        return _cut(request, hearing, text)
    if finish is None:
        said = "ended its answer without a finish_reason, so that it may not be whole"
        return Cause(said, "It may have crashed: look at its log.")
    if finish == "abort":
        said = "ended its answer half way (finish_reason abort)"
        return Cause(said, "It was put to sleep or stopped meanwhile: ask again.")
    if finish == "content_filter":
        return Cause("withheld its answer (finish_reason content_filter)", "Use another model.")
    if finish in ("tool_calls", "function_call"):
        said = f"called a tool instead of answering (finish_reason {finish})"
        return Cause(said, "Start it without tools, or use another model.")
    if finish not in _GOOD_ENDS:
        return Cause(f"ended its answer with finish_reason {finish[:40]!r}", _LOG)
    if not text.strip():
        what = "nothing but its reasoning" if hearing.heard > 1 else "nothing"
        return Cause(f"answered {what}", "Try another seed, or use another model.")
    return None


def _cut(request: ChatRequest, hearing: Hearing, text: str) -> Cause:
    count = hearing.completion_tokens or hearing.heard
    if not text.strip():
        return Cause(
            f"used up its {count} tokens without an answer (finish_reason length)",
            "Switch its thinking off, or use a model that does not think aloud.",
        )
    return Cause(
        f"had its answer cut after {count} of at most {request.max_tokens} tokens "
        "(finish_reason length)",
        "Ask for less, try another seed, or give the server a longer context.",
    )
