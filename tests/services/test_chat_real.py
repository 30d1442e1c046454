"""The pack's ChatClient before real servers: a model that writes noise, and one that sees it.

Whatever such a model says, what comes out of the client is a plan, a choice or a sentence about
what went wrong.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image, ImageDraw

from animation_studio.control import PoseLibrary
from animation_studio.errors import ServiceError
from animation_studio.llm.chat import ChatClient
from animation_studio.llm.checked import json_object
from animation_studio.llm.messages import ChatAnswer, ChatRequest, Message
from animation_studio.llm.plan import Plan, checked_plan
from animation_studio.llm.vocabulary import vocabulary_of
from animation_studio.llm.writer import Brief, plan_request, write_plan
from animation_studio.registry import load_registry
from animation_studio.registry.services import ServiceEntry
from tests.support.vllm import VllmServer
from tests.support.waiting import until

T = TypeVar("T")

CONFIGS = Path(__file__).parents[2] / "configs"
REGISTRY = load_registry([CONFIGS])
KNOWN = vocabulary_of(REGISTRY, PoseLibrary([CONFIGS / "poses"]).names())
BEACH = "Luca running on the beach, excited"
# A text that takes some seconds, whatever is in it.
LONG = {"type": "string", "minLength": 4000, "maxLength": 8000}
# More than any answer here takes; a hang is no endless test.
SECONDS = 120.0


def run(waiting: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(waiting, SECONDS))


def client_of(server: VllmServer, **entry: Any) -> ChatClient:
    values = {"kind": "vllm", "base_url": server.url, "timeouts": {"generate": SECONDS}, **entry}
    return ChatClient("writer", ServiceEntry.model_validate(values))


def said(text: str, *pictures: bytes, **settings: Any) -> ChatRequest:
    return ChatRequest([Message("user", text, pictures)], **{"max_tokens": 64, **settings})


def picture(colour: str, size: tuple[int, int] = (512, 512), kind: str = "PNG") -> bytes:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse((0, 0, size[0] // 2, size[1] // 2), fill=colour)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def running(server: VllmServer) -> int:
    """How many requests it works on or keeps waiting."""
    _, metrics = server.ask("GET", "/metrics")
    names = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
    rows = [row for row in metrics.splitlines() if row.startswith(names)]
    assert len(rows) == len(names)
    return sum(int(float(row.split()[-1])) for row in rows)


def no_answer(server: VllmServer, request: ChatRequest, **entry: Any) -> str:
    client = client_of(server, **entry)
    with pytest.raises(ServiceError) as caught:
        run(client.ask(request))
    message = str(caught.value)
    assert message.startswith(f"Service writer ({server.url})")
    return message


@pytest.fixture
def slept(vllm: VllmServer) -> Iterator[VllmServer]:
    """The shared vLLM, which may be put to sleep; left awake."""
    yield vllm
    vllm.wake()
    assert not vllm.is_sleeping()


@pytest.mark.parametrize("kind", ["vllm", "vision_vllm"])
def test_whatever_it_says_it_is_a_plan(request, kind):
    client = client_of(request.getfixturevalue(kind))

    async def plan(seed: int, slots: asyncio.Semaphore) -> ChatAnswer:
        brief = Brief(BEACH, REGISTRY, KNOWN, seed=seed, temperature=1.0)
        async with slots:
            return await client.ask(plan_request(brief))

    async def plans() -> list[ChatAnswer]:
        slots = asyncio.Semaphore(4)
        return await asyncio.gather(*(plan(seed, slots) for seed in range(12)))

    answers = run(plans())
    found: list[Plan] = []
    for answer in answers:
        assert answer.enforced
        found.append(checked_plan(json_object(answer.text), KNOWN))
    # They are noise, and no two alike.
    assert len({plan.model_dump_json() for plan in found}) == len(found)
    assert any(plan.characters for plan in found)
    assert any(plan.controls for plan in found)
    assert any(plan.parts.action for plan in found)


def test_where_white_space_is_legal(start_vllm):
    """As users start vLLM: a model of noise may write white space until it is stopped."""
    server = start_vllm(white_space=True)
    client = client_of(server)

    async def outcome(seed: int, temperature: float) -> str:
        brief = Brief(BEACH, REGISTRY, KNOWN, seed=seed, temperature=temperature)
        try:
            answer = await client.ask(plan_request(brief))
        except ServiceError as error:
            return str(error)
        assert answer.enforced
        checked_plan(json_object(answer.text), KNOWN)
        return "plan"

    async def outcomes() -> list[str]:
        cold = [outcome(0, 0.0)]
        warm = [outcome(seed, 1.0) for seed in range(6)]
        return list(await asyncio.gather(*cold, *warm))

    cold, *warm = run(outcomes())
    # Without choices in between it repeats itself, most often white space.
    assert cold == "plan" or "white space in a row and was stopped" in cold
    assert warm.count("plan") >= 4
    assert all(one == "plan" or "white space" in one for one in warm)
    assert run(client.ask(said("Is it?", choices=("Yes", "No")))).text in ("Yes", "No")
    assert until(lambda: running(server) == 0, 2.0)


def test_a_sentence_becomes_a_plan(vllm):
    brief = Brief(BEACH, REGISTRY, KNOWN, seed=2, temperature=0.3, character="luca")
    written = run(write_plan(client_of(vllm), brief))
    assert written.plan.character == "luca"
    assert written.model == vllm.model
    assert written.enforced
    assert written.completion_tokens is not None
    assert written.completion_tokens > 50

    again = run(write_plan(client_of(vllm), brief))
    assert again.plan == written.plan


def test_choices_have_probabilities(vllm):
    answer = run(client_of(vllm).ask(said("Is it?", choices=("Yes", "No"))))
    assert answer.text in ("Yes", "No")
    assert answer.enforced
    assert answer.probabilities is not None
    assert set(answer.probabilities) == {"Yes", "No"}
    assert math.fsum(answer.probabilities.values()) == pytest.approx(1.0, abs=1e-3)
    # As the server itself gives them: the sum over all tokens that the word may begin with.
    first = vllm.chat(
        8,
        temperature=0,
        ignore_eos=False,
        messages=[{"role": "user", "content": "Is it?"}],
        structured_outputs={"choice": ["Yes", "No"]},
        logprobs=True,
        top_logprobs=20,
    )["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    yes = sum(math.exp(one["logprob"]) for one in first if one["token"] in ("Y", "Ye", "Yes"))
    assert answer.probabilities["Yes"] == pytest.approx(yes, abs=1e-3)


def test_pictures_are_looked_at(vision_vllm):
    client = client_of(vision_vllm, vision=True)

    async def looks() -> list[ChatAnswer]:
        return [
            await client.ask(said("Is it red?", data, choices=("Yes", "No")))
            for data in (picture("red"), picture("blue"), picture("red", kind="JPEG"))
        ]

    red, blue, jpeg = (answer.probabilities for answer in run(looks()))
    assert red is not None
    assert blue is not None
    assert jpeg is not None
    assert red["Yes"] != pytest.approx(blue["Yes"], abs=1e-3)
    assert red["Yes"] == pytest.approx(jpeg["Yes"], abs=0.2)


def test_tokens_are_counted_while_they_come(vllm):
    counts: list[int] = []
    brief = Brief(BEACH, REGISTRY, KNOWN, seed=1, temperature=1.0)
    answer = run(client_of(vllm).ask(plan_request(brief), counts.append))
    assert len(counts) > 2
    assert counts == sorted(set(counts))
    assert counts[-1] == answer.completion_tokens


def test_a_cut_answer_is_none(vllm):
    brief = Brief(BEACH, REGISTRY, KNOWN, temperature=1.0)
    request = plan_request(brief)
    cut = ChatRequest(request.messages, max_tokens=30, schema=request.schema)
    assert "30 tokens (finish_reason length)" in no_answer(vllm, cut)


def test_who_goes_away_frees_the_server(vllm):
    client = client_of(vllm)

    async def leave() -> None:
        begun = asyncio.Event()
        request = said("Tell a story.", max_tokens=12000, schema=LONG)
        answer = asyncio.create_task(client.ask(request, lambda count: begun.set()))
        await begun.wait()
        assert await asyncio.to_thread(running, vllm) == 1
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer

    run(leave())
    assert until(lambda: running(vllm) == 0, 2.0)


def test_one_that_sleeps_is_not_waited_for(slept):
    slept.ask("POST", "/sleep?level=1")
    message = no_answer(slept, said("Hello"), timeouts={"generate": 2.0})
    assert "gave no answer within 2 s" in message
    slept.wake()
    assert until(lambda: running(slept) == 0, 2.0)


def test_one_that_is_put_to_sleep_meanwhile(slept):
    client = client_of(slept)

    async def cut_off() -> str:
        begun = asyncio.Event()
        request = said("Tell a story.", max_tokens=12000, schema=LONG)
        answer = asyncio.create_task(client.ask(request, lambda count: begun.set()))
        await begun.wait()
        await asyncio.to_thread(slept.ask, "POST", "/sleep?level=1&mode=abort")
        with pytest.raises(ServiceError) as caught:
            await answer
        return str(caught.value)

    assert "finish_reason abort" in run(cut_off())


def test_what_it_refuses_is_said_in_words(vllm, vision_vllm):
    assert "does not see pictures" in no_answer(vllm, said("Is it red?", picture("red")))
    assert "does not have it: it offers tiny." in no_answer(vllm, said("Hello"), model="gpt")
    long = said("a long story about nothing " * 5000)
    assert "longer than its context" in no_answer(vllm, long)
    assert "nonsense" in no_answer(vllm, said("Hello", schema={"type": "nonsense"}))
    half = picture("red")[:500]
    assert "image file is truncated" in no_answer(vision_vllm, said("Is it red?", half))
    nowhere = said("Which?", *[picture("red", (64, 64))] * 5)
    assert "At most 4 image(s)" in no_answer(vision_vllm, nowhere)
