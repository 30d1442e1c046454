"""Language models and the sampler take turns on one GPU, inside a running ComfyUI.

The model's memory and the GPU are scripted: it holds 9 of 16 GiB while it is awake, so that neither
a second model nor pictures have room beside it.
"""

from __future__ import annotations

import urllib.request
from collections import Counter

import pytest
import yaml

from tests.support.face_graphs import node
from tests.support.llm_studio import (
    CHANGES,
    GB,
    GUARD,
    WRITER,
    entry_of,
    judged,
    rounds,
    started,
    unique,
)
from tests.support.scripted_llm import ScriptedLlm, good
from tests.support.services import service_file
from tests.support.standin_service import StandIn
from tests.support.waiting import until

QUICK = {"settle_seconds": 0.5}


def sleep(standin):
    """Put a server to sleep as somebody else would."""
    urllib.request.urlopen(
        urllib.request.Request(f"{standin.url}/sleep?level=1", data=b"", method="POST")
    ).close()


def rejected(script, rounds_made=3):
    """Let every picture fail by its framing, so that each round changes the plan."""
    script.p_yes = lambda question: 0.05 if "wide shot" in question else good(question)
    script.changes = [CHANGES] * (rounds_made - 1)


class Eye:
    """A second model, which sees, in the group of the first, which does not."""

    def __init__(self, llm, standin: StandIn) -> None:
        self.llm, self.standin = llm, standin
        # Who was asked, one after the other; and whether the other slept then.
        self.turns: list[str] = []
        self.alone: list[bool] = []
        llm.qwen.model.says = self.says("writer", standin)
        standin.model.says = self.says("eye", llm.qwen)

    def says(self, who, other):
        def answer(body):
            self.alone.append(other.asleep)
            if self.turns[-1:] != [who]:
                self.turns.append(who)
            return self.llm.script(body)

        return answer


@pytest.fixture
def eye(llm):
    """With it services.yaml has two models; the second one sleeps."""
    with StandIn("vllm", gpu=llm.gpu, memory_awake=9 * GB) as standin:
        sleep(standin)
        known = yaml.safe_load(
            service_file("writer", entry_of(llm.qwen, vision=False, group="llm"), QUICK)
        )
        known["services"]["eye"] = entry_of(standin, group="llm")
        with llm.configured("services.yaml", yaml.safe_dump(known)):
            yield Eye(llm, standin)
            standin.heal()
            assert until(llm.is_free)
            assert until(lambda: not llm.qwen.asleep)
            assert standin.model.work_while_asleep == 0
            assert not standin.model.harm


def test_writer_and_judge_of_one_group_take_turns_round_by_round(llm, eye):
    rejected(llm.script)
    result = llm.run(rounds(unique("turns"), writer="writer", judge="eye"))
    assert result.outputs["made"]["text"] == ["3"]
    # What compares pictures that are as good is the judge, too.
    assert eye.turns == ["writer", "eye", "writer", "eye", "writer", "eye"]
    assert all(eye.alone)
    [record] = llm.records(result)
    judgement = record["judgement"]
    assert judgement["service"] == "eye"
    assert judgement["sources"][0]["service"] == "writer"
    assert [one["source"]["service"] for one in judgement["rounds"][1:]] == ["writer", "writer"]


def test_a_judge_that_dies_is_named_and_the_writer_is_back(llm, eye):
    eye.standin.fault("POST /v1/chat/completions", die=True, times=1)
    message = llm.refuses(rounds(unique("dies"), writer="writer", judge="eye"))
    assert "Service eye" in message
    assert eye.standin.url in message
    assert until(lambda: not llm.qwen.asleep)
    eye.standin.serve()
    sleep(eye.standin)
    result = llm.run(rounds(unique("lives"), writer="writer", judge="eye"))
    assert result.outputs["was"]["text"] == ["True"]


# -- automatic_leases: false


@pytest.fixture
def by_hand(llm):
    """Nothing makes room by itself but what the user placed."""
    settings = {**QUICK, "automatic_leases": False}
    with llm.configured("services.yaml", service_file("qwen", entry_of(llm.qwen), settings)):
        yield
        assert until(llm.is_free)


def test_until_accepted_is_a_guard_of_its_own(llm, by_hand):
    rejected(llm.script, 2)
    slept = llm.qwen.requests["POST /sleep"]
    result = llm.run(rounds(unique("own guard"), rounds=2))
    assert result.outputs["made"]["text"] == ["2"]
    assert llm.qwen.requests["POST /sleep"] >= slept + 2


def test_a_node_alone_says_what_wakes_the_model(llm, by_hand):
    prompts = {
        "Prompt Writer": {
            "maker": node("AnimStudio_PromptWriter", **{**WRITER, "sentence": unique("asleep")}),
            "show": node("PreviewAny", source=["maker", 10]),
        },
        "Judge": judged(),
    }
    sleep(llm.qwen)
    try:
        for prompt in prompts.values():
            message = llm.refuses(prompt)
            assert "Service qwen" in message
            assert "VRAM Guard" in message
    finally:
        llm.server.post_json("/animation_studio/gpu/wake", {"service": "qwen"})
    assert llm.script.plans_asked == 0


# -- Who sleeps when


def guarded(sentence, **inputs):
    """Rounds with the user's own VRAM Guard before them."""
    prompt = rounds(sentence, **inputs)
    prompt["guard"] = node("AnimStudio_VRAMGuard", value=["ckpt", 0], **GUARD)
    prompt["until"]["inputs"]["model"] = ["guard", 0]
    return prompt


def acts(messages):
    """What happened, in order: services' acts, and nodes inside that showed their report."""
    for kind, data in messages:
        if kind == "animation_studio.progress" and data["text"].split(": ")[-1] in _ACTS:
            yield data["text"]
        elif kind == "executed" and data.get("display_node", data["node"]) != data["node"]:
            for report in (data["output"] or {}).get("animstudio_report", []):
                if any(line.startswith("character luca: weight") for line in report["lines"]):
                    yield "loader"


_ACTS = ("sleep", "wake")


@pytest.mark.parametrize("graph", [rounds, guarded])
def test_the_model_sleeps_before_a_rounds_first_node_loads_anything(llm, graph):
    rejected(llm.script, 2)
    heard = list(acts(llm.messages(graph(unique("order"), rounds=2))))
    wakes = [index for index, act in enumerate(heard) if act == "qwen: wake"]
    assert heard.count("loader") == 2, heard
    for index, act in enumerate(heard):
        if act == "loader":
            last = [one for one in heard[:index] if one.startswith("qwen")][-1]
            assert last == "qwen: sleep", heard
    assert wakes


def test_progress_is_shown_on_the_node_in_the_page(llm):
    rejected(llm.script, 2)
    messages = llm.messages(rounds(unique("progress"), rounds=2))
    shown = [data for kind, data in messages if kind == "animation_studio.progress"]
    assert {data["node"] for data in shown} == {"until"}
    assert {"qwen: sleep", "qwen: wake"} <= {data["text"] for data in shown}


def test_the_reports_of_its_guards_are_for_the_record(llm):
    rejected(llm.script, 2)
    prompt = rounds(unique("reports"), rounds=2)
    prompt["take"]["inputs"]["gpu_report"] = ["until", 8]
    [record] = llm.records(llm.run(prompt))
    assert [one["purpose"] for one in record["gpu"]] == ["image", "image"]
    assert all(one["paused"] == ["qwen"] for one in record["gpu"])


def test_a_guard_adds_its_report_to_an_earlier_one(llm):
    prompt = {
        "picture": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "one": node("AnimStudio_VRAMGuard", value=["picture", 0], **GUARD),
        "two": node(
            "AnimStudio_VRAMGuard", value=["one", 0], report=["one", 2],
            **{**GUARD, "purpose": "llm"},
        ),
        "take": node(
            "AnimStudio_SaveTake", images=["two", 0], filename_prefix="two", gpu_report=["two", 2]
        ),
    }  # fmt: skip
    [record] = llm.records(llm.run(prompt))
    assert [one["purpose"] for one in record["gpu"]] == ["image", "llm"]
    prompt["two"]["inputs"]["report"] = ["text", 0]
    prompt["text"] = node("Test_Value", json='"no report"')
    assert "report" in llm.refuses(prompt)


# -- Without ComfyUI's cache


def test_without_a_cache_no_round_is_made_twice(prepared, tmp_path):
    """--cache-none forgets every output as soon as its takers had it."""
    with started(prepared, tmp_path, arguments=["--cache-none"]) as studio:
        script = ScriptedLlm()
        studio.script = studio.qwen.model.says = script
        rejected(script, 2)
        messages = studio.messages(rounds(unique("no cache"), shown="1, 2", rounds=2))
        steps = Counter(data["node"] for kind, data in messages if kind == "progress")
        ends = [kind for kind, _ in messages if kind in ("execution_success", "execution_error")]
        assert ends == ["execution_success"]
        assert studio.server.log().count("ScriptedVae decodes") == 2
        assert len(steps) == 2
        assert set(steps.values()) == {1}
        assert script.plans_asked == 1
        assert script.changes_asked == 1
