"""From a sentence to a plan in a running ComfyUI, with a stand-in language model: Prompt Writer and
Plan From Text; and the bundled workflows, whose record tells all of it."""

from __future__ import annotations

import json
import threading

import pytest

from animation_studio.errors import PromptRejectedError
from tests.support.face_graphs import node
from tests.support.llm_studio import (
    BACKGROUND,
    CHARACTER,
    CONTROL,
    EXPRESSION,
    LINES,
    NEGATIVE,
    POSE,
    SCENE,
    SD15,
    STYLE,
    TEXT,
    WRITER,
    unique,
)
from tests.support.pictures import saved
from tests.support.prompts import bundled, changed, page_form
from tests.support.scripted_llm import BEACH
from tests.support.waiting import until


def test_a_sentence_becomes_what_the_loader_takes(llm):
    made = llm.write(sentence=unique("Luca running on the beach, excited"))
    assert made[CHARACTER] == "luca"
    assert made[EXPRESSION] == "excited"
    assert (made[BACKGROUND], made[STYLE]) == ("none", "pixar_3d")
    assert made[SCENE].startswith("running along the beach, arms wide")
    assert made[NEGATIVE] == "crowd"
    assert (made[CONTROL], made[POSE], made[LINES]) == ("none", "none", "")
    again = llm.show(node("AnimStudio_PlanFromText", text=made[TEXT], dialect="prose"))
    assert {key: again[key] for key in range(CHARACTER, TEXT + 1)} == {
        key: made[key] for key in range(CHARACTER, TEXT + 1)
    }


# -- What was written before


def test_the_same_sentence_is_asked_once(llm):
    sentence = unique("Luca waves")
    first = llm.write(sentence=sentence)
    assert llm.script.plans_asked == 1
    llm.forget()
    again = llm.write(sentence=sentence)
    assert llm.script.plans_asked == 1
    assert again[TEXT] == first[TEXT]
    assert "written before" in again["report"][0]["lines"][0]
    llm.write(sentence=sentence, seed=2)
    assert llm.script.plans_asked == 2


def test_the_same_sentence_needs_no_server(llm):
    sentence = unique("Luca sits")
    llm.write(sentence=sentence)
    llm.forget()
    llm.qwen.crash()
    try:
        again = llm.write(sentence=sentence)
    finally:
        llm.qwen.serve()
    assert "written before" in again["report"][0]["lines"][0]


def test_another_model_at_the_same_address_is_asked_anew(llm):
    sentence = unique("Luca stands")
    llm.write(sentence=sentence)
    known, llm.qwen.model.name = llm.qwen.model.name, "other"
    try:
        made = llm.write(sentence=sentence)
    finally:
        llm.qwen.model.name = known
    assert llm.script.plans_asked == 2
    assert made["report"][0]["lines"][0].startswith("qwen (other)")
    again = llm.write(sentence=sentence)
    assert llm.script.plans_asked == 2
    assert again["report"][0]["lines"][0].startswith("qwen (tiny)")


DAMAGES = {
    "warnings are no list": {"warnings": 5},
    "warnings are no texts": {"warnings": [{"a": 1}, 7]},
    "a model that is a list": {"model": ["<b>"]},
    "seconds in words": {"seconds": "long"},
    "a plan that is none": {"plan": 7},
    "nothing that is known": {"colour": "red"},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_answer_on_the_disk_is_asked_anew(llm, damage):
    sentence = unique(damage)
    first = llm.write(sentence=sentence)
    folder = llm.server.user_dir / "animation_studio" / "answers"
    for file in folder.glob("*.json"):
        document = json.loads(file.read_text(encoding="utf-8"))
        answer = document.get("answer", {})
        if "plan" in answer:
            document["answer"] = {**answer, **DAMAGES[damage]}
        file.write_text(json.dumps(document), encoding="utf-8")
    llm.forget()

    again = llm.write(sentence=sentence)

    assert again[TEXT] == first[TEXT]
    [report] = again["report"]
    assert all(isinstance(text, str) for text in report["warnings"])
    assert "<b>" not in json.dumps(report)
    if damage != "nothing that is known":
        assert llm.script.plans_asked == 2


# -- What the model says


def test_whatever_the_model_says_the_plan_names_what_is_there(llm):
    llm.script.plan = None  # valid random documents
    for seed in range(8):
        made = llm.write(sentence=unique("noise"), seed=seed, temperature=1.5)
        registry = {"luca", "alberto", "giulia", "none"}
        assert made[CHARACTER] in registry
        assert made[CONTROL] in {"openpose", "depth", "canny", "none"}


def test_a_character_chosen_by_hand_is_the_main_one(llm):
    made = llm.write(sentence=unique("a walk"), character="giulia")
    assert made[CHARACTER] == "giulia"


def test_an_earlier_plan_is_changed(llm):
    earlier = {"earlier": node("AnimStudio_PlanFromText", text="characters: luca", dialect="prose")}
    llm.script.plan = {**BEACH, "camera": "close-up"}
    made = llm.write(earlier, plan=["earlier", 0], change=unique("nearer"), sentence="", seed=3)
    assert "camera: close-up" in made[TEXT]
    [asked] = [one.body for one in llm.qwen.log[-3:] if "CHANGE REQUEST" in json.dumps(one.body)]
    assert "EARLIER PLAN" in asked["messages"][-1]["content"]


def test_somebody_who_is_not_of_the_cast_is_told(llm):
    llm.script.plan = {**BEACH, "others": ["Albert", "an old fisherman"]}
    made = llm.write(sentence=unique("Luca and Albert"))
    [report] = made["report"]
    assert any("'Albert' is not in the cast" in one for one in report["warnings"])
    assert any("Did you mean 'alberto'" in one for one in report["warnings"])


@pytest.mark.parametrize("language", ["Luca corre sulla spiaggia, felice", "卢卡在沙滩上奔跑"])
def test_other_languages_reach_the_model_as_they_are(llm, language):
    sentence = unique(language)
    llm.write(sentence=sentence)
    told = llm.qwen.log[-1].body["messages"][-1]["content"]
    assert json.dumps(sentence, ensure_ascii=False) in told


BAD_ANSWERS = {
    "prose": ({"says": "I would rather not."}, "plan"),
    "empty": ({"says": ""}, "qwen"),
    "half a JSON": ({"says": '{"intent": "x", "characters": ["lu'}, "plan"),
    "white space": ({"says": " " * (1 << 20)}, "white space"),
    "another name": ({"says": json.dumps({**BEACH, "characters": ["bruno"]})}, "bruno"),
    "status 401": ({"status": 401}, "401"),
    "status 429": ({"status": 429}, "429"),
    "status 500": ({"status": 500}, "500"),
    "never": ({"hang": True}, "8 s"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_a_bad_answer_names_service_and_cause_and_the_next_is_good(llm, case):
    how, said = BAD_ANSWERS[case]
    if "says" in how:
        script = llm.script
        llm.qwen.model.says = lambda body: how["says"] if script(body) else None
    else:
        llm.qwen.fault("POST /v1/chat/completions", **how)
    sentence = unique("Luca reads")
    message = llm.fails(node("AnimStudio_PromptWriter", **{**WRITER, "sentence": sentence}))
    assert "qwen" in message
    assert llm.qwen.url in message
    assert said in message
    llm.qwen.heal()
    llm.qwen.model.says = llm.script
    assert llm.write(sentence=sentence)[CHARACTER] == "luca"


def test_an_interruption_ends_the_answer_at_once(llm):
    # Longer than the answer may take: only the interruption ends it so soon.
    llm.qwen.model.token_seconds = 2.0
    left = llm.qwen.model.left_chats
    messages: list[str] = []
    maker = node("AnimStudio_PromptWriter", **{**WRITER, "sentence": unique("Luca sleeps")})
    running = threading.Thread(target=lambda: messages.append(llm.fails(maker)))
    running.start()
    assert until(lambda: llm.script.plans_asked > 0 and llm.qwen.model.chats > 0)

    llm.server.post_json("/interrupt", {})

    assert until(lambda: llm.qwen.model.left_chats > left, seconds=4.0)
    running.join(20.0)
    assert "interrupted" in messages[0]


# -- Nothing is asked


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"sentence": ""}, "sentence: it is empty"),
        ({"sentence": " \n\t"}, "sentence: it is empty"),
        ({"sentence": "word " * 10_000}, "sentence: it has 10,000 words"),
        ({"sentence": "海" * 5_000}, "5,000 letters"),
        ({"service": "gpt-9"}, "service 'gpt-9' is not in the configuration"),
        ({"dialect": "haiku"}, "dialect 'haiku'"),
    ],
)
def test_what_no_plan_can_be_made_of_is_said(llm, inputs, said):
    assert said in llm.fails(node("AnimStudio_PromptWriter", **{**WRITER, **inputs}))
    assert llm.script.plans_asked == 0


def test_an_unknown_character_is_refused_with_the_nearest(llm):
    with pytest.raises(PromptRejectedError, match="Did you mean 'luca'"):
        llm.show(node("AnimStudio_PromptWriter", **{**WRITER, "character": "lucca"}))
    said = llm.fails(node("AnimStudio_PlanFromText", text="characters: [lucca]\n", dialect="prose"))
    assert "Did you mean 'luca'" in said


def test_no_folder_of_the_user_is_told_to_the_model(llm):
    """What travels to the model is the sentence and the names of the configuration, no folder."""
    llm.write(sentence=unique("Luca looks up"))
    told = json.dumps([one.body for one in llm.qwen.log if one.body])
    assert str(llm.server.output_dir) not in told
    assert str(llm.server.user_dir) not in told


# -- The bundled workflows


def test_sentence_to_picture(llm):
    prompt = bundled("sentence_to_picture")
    prompt = changed(prompt, "AnimStudio_PromptWriter", sentence=unique("Luca waves"))
    with llm.whole_cast():
        result = llm.run(prompt, page_form("sentence_to_picture"))
    [picture], [record] = saved(llm.server, result), llm.records(result)
    assert "accepted" in picture.name
    assert record["character"] == "luca"
    assert [one["id"] for one in record["entries"]] == ["luca", "pixar_3d", "excited"]
    assert "running along the beach" in record["positive"]
    assert record["judgement"]["accepted"]
    [source] = record["judgement"]["sources"]
    assert (source["step"], source["service"], source["model"]) == ("written", "qwen", "tiny")
    assert (source["seed"], source["temperature"]) == (20261121, 0.3)
    assert source["sentence"].startswith("Luca waves")
    assert [one["purpose"] for one in record["gpu"]] == ["image", "llm"]


def test_what_sentence_to_picture_rejects_is_saved_apart(llm):
    llm.script.p_yes = lambda question: 0.1
    prompt = bundled("sentence_to_picture")
    prompt = changed(prompt, "AnimStudio_PromptWriter", sentence=unique("Luca bows"))
    prompt = changed(prompt, "CheckpointLoaderSimple", ckpt_name=SD15)
    result = llm.run(prompt)
    [picture] = saved(llm.server, result)
    assert "rejected" in picture.name


def test_sentence_to_accepted_picture(llm):
    prompt = bundled("sentence_to_accepted_picture")
    prompt = changed(prompt, "AnimStudio_UntilAccepted", sentence=unique("Luca dives"))
    with llm.whole_cast():
        result = llm.run(prompt, page_form("sentence_to_accepted_picture"))
    [record] = llm.records(result)
    assert [one["number"] for one in record["judgement"]["rounds"]] == [1]
    assert record["sampling"]["source"] == "character's own"
