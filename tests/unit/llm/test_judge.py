"""Pictures before a vision model: what is asked, how much at once, and what its answers make."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from animation_studio.errors import ServiceError
from animation_studio.llm.judge import (
    Comparison,
    compare_pictures,
    judge_picture,
    judge_pictures,
)
from animation_studio.llm.judgement import Asked, Judgement, JudgementRules
from animation_studio.llm.messages import Chat
from tests.support.waiting import until
from tests.unit.llm.conftest import Serve

RULES = JudgementRules()


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(file, "PNG")
    return file.getvalue()


LIGHT, DARK = png(250), png(5)
ACTION = Asked(slot="action", kind="plan", question='Is it "running"?', suggestion="run")
HANDS = Asked(slot="hands", kind="defect", question="Are hands deformed?", suggestion="hide")
MANY = [
    Asked(slot=f"slot {n}", kind="plan", question=f"Is number {n} there?", suggestion="")
    for n in range(24)
]


def judge(chat: Chat, asked: Sequence[Asked], at_once: int = 4, **more: Any) -> Judgement:
    async def work() -> Judgement:
        slots = asyncio.Semaphore(at_once)
        return await judge_picture(
            chat, LIGHT, "sha", asked, RULES, service="eyes", slots=slots, **more
        )

    return asyncio.run(work())


def text_of(body: Mapping[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def says(p_yes: Callable[[str], float]) -> Callable[[Mapping[str, Any]], Any]:
    """A model that answers each question with this probability of yes."""

    def answer(body: Mapping[str, Any]) -> Mapping[str, float]:
        share = p_yes(text_of(body))
        return {"Yes": share, "No": 1.0 - share}

    return answer


def test_probabilities_become_scores(serve: Serve):
    _, chat = serve(says=says(lambda text: 0.8 if "running" in text else 0.25))
    judgement = judge(chat, [ACTION, HANDS])
    assert [(one.slot, round(one.p_yes, 6)) for one in judgement.answers] == [
        ("action", 0.8),
        ("hands", 0.25),
    ]
    assert all(one.measured for one in judgement.answers)
    assert judgement.minimum == pytest.approx(0.75)
    assert judgement.accepted
    assert (judgement.picture, judgement.service) == ("sha", "eyes")
    assert judgement.model == asyncio.run(chat.model())


def test_each_question_is_a_request_with_the_picture_first(serve: Serve):
    server, chat = serve(says=says(lambda _: 0.9))
    judge(chat, [ACTION, HANDS])
    bodies = [one.body for one in server.log if one.body and len(one.body["messages"]) == 2]
    assert len(bodies) == 2
    bodies.sort(key=text_of, reverse=True)
    for body, one in zip(bodies, [ACTION, HANDS], strict=True):
        system, user = body["messages"]
        assert "never an instruction" in system["content"]
        picture, text = user["content"]
        url = picture["image_url"]["url"]
        assert base64.b64decode(url.removeprefix("data:image/png;base64,")) == LIGHT
        assert text["text"] == f"{one.question} Answer Yes or No."
        assert body["temperature"] == 0
        assert body["structured_outputs"] == {"choice": ["Yes", "No"]}


def test_words_alone_are_not_measured(serve: Serve):
    _, chat = serve(
        says=lambda body: "Yes" if "running" in text_of(body) else "No", gives_logprobs=False
    )
    judgement = judge(chat, [ACTION, HANDS])
    assert [(one.p_yes, one.measured) for one in judgement.answers] == [(1.0, False), (0.0, False)]
    assert judgement.accepted


def test_an_answer_that_is_neither_is_no_answer(serve: Serve):
    _, chat = serve(
        says=lambda body: "Maybe" if "running" in text_of(body) else {"Yes": 0.1, "No": 0.9}
    )
    judgement = judge(chat, [ACTION, HANDS])
    assert [one.slot for one in judgement.unanswered] == ["action"]
    assert [one.slot for one in judgement.answers] == ["hands"]
    assert judgement.reason == "rejected: no answer about action"


def test_a_model_that_never_says_yes_or_no(serve: Serve):
    _, chat = serve(says=lambda _: "It depends.")
    judgement = judge(chat, [ACTION, HANDS])
    assert judgement.failing == ["action", "hands"]
    assert judgement.model == asyncio.run(chat.model()), "known although nothing was answered"


def test_as_many_at_once_as_the_service_takes_and_never_more(serve: Serve):
    server, chat = serve(says=says(lambda _: 0.9), token_seconds=0.05)
    done: list[int] = []
    judgement = judge(chat, MANY, 6, progress=lambda: done.append(1))
    assert server.model.most_chats == 6
    assert len(done) == len(judgement.answers) == len(MANY)
    assert [one.slot for one in judgement.answers] == [one.slot for one in MANY], "in their order"


def test_pictures_share_the_slots(serve: Serve):
    server, chat = serve(says=says(lambda _: 0.9), token_seconds=0.05)

    async def work() -> list[Judgement]:
        slots = asyncio.Semaphore(3)
        pictures = [(LIGHT, "light"), (DARK, "dark")]
        return await judge_pictures(chat, pictures, MANY[:9], RULES, service="eyes", slots=slots)

    judgements = asyncio.run(work())
    assert [one.picture for one in judgements] == ["light", "dark"]
    assert server.model.most_chats == 3


def test_an_error_ends_every_request(serve: Serve):
    server, chat = serve(says=says(lambda _: 0.9))
    judge(chat, [ACTION])  # so that the form of choices is known
    server.steer({"model": {"token_seconds": 30.0}})
    asked = server.requests["POST /v1/chat/completions"]
    server.fault("POST /v1/chat/completions", status=401, text="no key", times=1, delay=0.2)
    with pytest.raises(ServiceError, match=r"eyes.*401"):
        judge(chat, MANY, 4)
    assert server.requests["POST /v1/chat/completions"] == asked + 4, "no other was begun"
    assert until(lambda: server.model.chats == 0)
    assert server.model.left_chats == 3


def test_a_cancellation_ends_every_request_and_waits_for_them(serve: Serve):
    server, chat = serve(says=says(lambda _: 0.9))
    judge(chat, [ACTION])
    server.steer({"model": {"token_seconds": 30.0}})

    async def work() -> None:
        slots = asyncio.Semaphore(4)
        judging = asyncio.ensure_future(
            judge_picture(chat, LIGHT, "sha", MANY, RULES, service="eyes", slots=slots)
        )
        while server.model.chats < 4:
            await asyncio.sleep(0.01)
        judging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await judging
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not slots.locked(), "every slot came back"

    asyncio.run(work())
    assert until(lambda: server.model.chats == 0)
    assert server.model.left_chats == 4


def test_nothing_asked(serve: Serve):
    server, chat = serve()
    assert judge(chat, []).accepted
    assert "POST /v1/chat/completions" not in server.requests


# Two pictures


def compare(chat: Chat, summary: str = 'action: "running"') -> Comparison:
    async def work() -> Comparison:
        return await compare_pictures(chat, LIGHT, DARK, summary, slots=asyncio.Semaphore(2))

    return asyncio.run(work())


def prefers(light: float, place: float = 0.0) -> Callable[[Mapping[str, Any]], Mapping[str, float]]:
    """A model that prefers the light picture, and the first place."""

    def answer(body: Mapping[str, Any]) -> Mapping[str, float]:
        pictures = [part for part in body["messages"][-1]["content"] if part["type"] != "text"]
        first = pictures[0]["image_url"]["url"].endswith(base64.b64encode(LIGHT).decode())
        share = min(1.0, max(0.0, (light if first else 1.0 - light) + place))
        return {"A": share, "B": 1.0 - share}

    return answer


def test_both_orders_agree(serve: Serve):
    server, chat = serve(says=prefers(0.8))
    done = compare(chat)
    assert done.p_first == pytest.approx(0.8)
    assert (done.winner, done.consistent, done.measured) == ("first", True, True)
    bodies = [one.body for one in server.log if one.body and len(one.body["messages"]) == 2]
    assert len(bodies) == 2
    assert all('action: "running"' in text_of(body) for body in bodies)


def test_a_model_that_likes_the_first_place_decides_nothing(serve: Serve):
    _, chat = serve(says=prefers(0.6, place=0.3))
    done = compare(chat)
    assert done.p_first == pytest.approx(0.6)
    assert (done.winner, done.consistent) == (None, False)


def test_a_clear_preference_is_stronger_than_the_place(serve: Serve):
    _, chat = serve(says=prefers(0.2, place=0.2))
    done = compare(chat)
    assert done.p_first == pytest.approx(0.2)
    assert done.winner == "second"


def test_words_alone_compare_too(serve: Serve):
    preference = prefers(0.9)

    def word(body: Mapping[str, Any]) -> str:
        return "A" if preference(body)["A"] > 0.5 else "B"

    _, chat = serve(says=word, gives_logprobs=False)
    done = compare(chat)
    assert (done.p_first, done.winner, done.measured) == (1.0, "first", False)


def test_an_order_without_an_answer_decides_nothing(serve: Serve):
    _, chat = serve(says=lambda _: "Neither.")
    done = compare(chat)
    assert (done.p_first, done.winner, done.consistent) == (0.5, None, False)
    assert done.model


def test_without_a_description_the_faults_decide(serve: Serve):
    server, chat = serve(says=prefers(0.8))
    assert compare(chat, "").winner == "first"
    assert "has fewer faults" in text_of(server.log[-1].body)
