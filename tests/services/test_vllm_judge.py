"""Judge and Refine before a real vLLM whose model, tiny and random, sees pictures.

What it says means nothing; that every answer is one, with probabilities, and that no plan comes
out that may not, is what counts.
"""

from __future__ import annotations

import asyncio

import pytest

from animation_studio.llm.chat import ChatClient
from animation_studio.llm.judge import Comparison, compare_pictures, judge_picture
from animation_studio.llm.judgement import Judgement, JudgementRules
from animation_studio.llm.plan import Plan
from animation_studio.llm.questions import plan_summary, questions_for
from animation_studio.llm.refine import allowed_changes, refine_plan
from animation_studio.registry import ServiceEntry
from tests.services.test_vllm_vision import picture
from tests.support.judged_plan import KNOWN, PLAN, REGISTRY
from tests.support.vllm import VllmServer

ASKED = questions_for(PLAN, REGISTRY)


def client(server: VllmServer) -> ChatClient:
    entry = {"kind": "vllm", "base_url": server.url}
    return ChatClient("eyes", ServiceEntry.model_validate(entry))


def judged(server: VllmServer, colour: str) -> Judgement:
    async def work() -> Judgement:
        return await judge_picture(
            client(server),
            picture(colour),
            "sha",
            ASKED,
            JudgementRules(mean=1.0),
            service="eyes",
            slots=asyncio.Semaphore(4),
        )

    return asyncio.run(work())


def test_every_question_has_an_answer_with_its_probability(vision_vllm):
    red, blue = judged(vision_vllm, "red"), judged(vision_vllm, "blue")
    assert [one.slot for one in red.answers] == [one.slot for one in ASKED]
    assert not red.unanswered
    assert all(one.measured and 0.0 < one.p_yes < 1.0 for one in red.answers)
    assert [one.p_yes for one in red.answers] != [one.p_yes for one in blue.answers]
    again = judged(vision_vllm, "red")
    assert [one.p_yes for one in again.answers] == pytest.approx(
        [one.p_yes for one in red.answers], abs=1e-3
    )


def test_two_pictures_are_compared_in_both_orders(vision_vllm):
    async def work() -> Comparison:
        red, blue = picture("red"), picture("blue")
        summary = plan_summary(PLAN, REGISTRY)
        slots = asyncio.Semaphore(2)
        return await compare_pictures(client(vision_vllm), red, blue, summary, slots=slots)

    done = asyncio.run(work())
    assert done.measured
    assert 0.0 < done.p_first < 1.0
    assert done.consistent == (done.winner is not None)


def test_a_random_model_changes_only_what_may_change(vision_vllm):
    judgement = judged(vision_vllm, "red")
    assert not judgement.accepted
    allowed = allowed_changes(judgement)
    for seed in range(3):
        done = asyncio.run(
            refine_plan(
                client(vision_vllm), PLAN, judgement, KNOWN, REGISTRY, seed=seed, temperature=1.0
            )
        )
        assert set(done.changed) <= allowed
        assert Plan.model_validate(done.plan.model_dump(), context=KNOWN) == done.plan
        assert done.plan.characters == PLAN.characters
        assert done.plan.style == PLAN.style
