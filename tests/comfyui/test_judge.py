"""Pictures judged against their plan, and the plan changed after it, in a running ComfyUI with a
stand-in vision model."""

from __future__ import annotations

import threading

import pytest

from tests.support.face_graphs import node
from tests.support.llm_studio import (
    ACCEPTED,
    CHANGES,
    JUDGE,
    REFINE,
    TEXT,
    WRITER,
    judged,
    unique,
    words_only,
)
from tests.support.pictures import pixels, saved
from tests.support.scripted_llm import BEACH, good
from tests.support.waiting import until


def fails_at(word):
    """Answers that are good but for the questions with this word in them."""
    return lambda question: 0.05 if word in question else good(question)


def test_a_good_picture_is_accepted_and_its_answers_are_in_the_record(llm):
    result = llm.run(judged())
    assert "rejected" not in result.outputs
    records = llm.records(result)
    assert len(records) == 2
    judgement = records[0]["judgement"]
    assert judgement["accepted"] is True
    assert judgement["plan"]["characters"] == ["luca"]
    assert judgement["sources"] == []  # by hand
    assert judgement["mean"] == pytest.approx(0.9)
    assert {one["slot"] for one in judgement["answers"]} >= {"character luca", "action", "count"}
    # One question for each slot and picture, no more at once than the service takes.
    assert len(llm.script.questions) == len(judgement["answers"]) * 2
    assert 1 < llm.qwen.model.most_chats <= 3


def test_a_bad_picture_is_rejected_with_what_to_do(llm):
    llm.script.p_yes = fails_at("action")
    result = llm.run(judged())
    assert "accepted" not in result.outputs
    assert len(saved(llm.server, result)) == 2
    [report] = result.outputs["judge"]["animstudio_report"]
    assert "rejected: action 0.05" in report["lines"][1]
    assert any("none of 2 pictures was accepted" in one for one in report["warnings"])
    passed = llm.run(judged(when_none="pass the best"))
    assert passed.outputs["accepted"]["images"]


def test_a_model_that_sees_nothing_is_named(llm):
    llm.qwen.model.vision = False
    assert "does not see pictures" in llm.refuses(judged())


def test_an_interruption_ends_all_answers(llm):
    llm.qwen.model.token_seconds = 3.0
    messages: list[str] = []
    running = threading.Thread(target=lambda: messages.append(llm.refuses(judged())))
    running.start()
    assert until(lambda: llm.script.questions and llm.qwen.model.chats > 0)

    llm.server.post_json("/interrupt", {})

    assert until(lambda: llm.qwen.model.chats == 0, seconds=4.0)
    running.join(20.0)
    assert "interrupted" in messages[0]


# -- Which pictures


def test_pictures_of_different_sizes_are_judged_one_by_one(llm):
    """Also grey ones and ones with alpha."""
    sizes = "1 64 64 3 0.5, 2 32 48 3 0.1, 1 40 40 1 0.7, 1 24 24 4 0.3"
    llm.script.p_seen = lambda question, level: (
        0.05 if "action" in question and level < 0.2 else good(question)
    )
    result = llm.run(judged(picture=node("Test_Flat", pictures=sizes)))
    assert [float(text) for text in result.outputs["scores"]["text"]] == pytest.approx(
        [0.9, 0.85, 0.85, 0.9, 0.9], abs=0.01
    )
    taken = result.outputs
    assert len(taken["accepted"]["images"]) == 3
    assert len(taken["rejected"]["images"]) == 2
    shapes = [pixels(file).shape for file in saved(llm.server, result)]
    assert sorted(shapes) == sorted(
        [(64, 64, 3), (40, 40, 3), (24, 24, 3), (32, 48, 3), (32, 48, 3)]
    )


def test_a_picture_of_nan_is_in_neither_output(llm):
    flat = node("Test_Flat", pictures="1 64 64 3 nan, 1 64 64 3 0.5")
    result = llm.run(judged(picture=flat))
    assert [float(text) for text in result.outputs["scores"]["text"]] == [-1.0, pytest.approx(0.9)]
    [record] = llm.records(result)
    assert record["judgement"]["accepted"]
    assert "rejected" not in result.outputs
    assert any("cannot be read: 1" in text for text in llm.warnings(result))


def test_nothing_that_can_be_read_is_nothing_accepted(llm):
    flat = node("Test_Flat", pictures="2 64 64 3 nan")
    result = llm.run(judged(picture=flat, when_none="pass the best"))
    assert not saved(llm.server, result)
    assert llm.script.questions == []
    assert any("none of 2 pictures was accepted" in text for text in llm.warnings(result))


@pytest.mark.parametrize("widget", ["threshold", "service", "defects"])
def test_only_pictures_may_be_a_list(llm, widget):
    prompt = judged(**{widget: ["list", 0]})
    values = {"threshold": "[0.7, 0.8]", "service": '["qwen", "qwen"]', "defects": "[true, true]"}
    prompt["list"] = node("Test_Values", json=values[widget])
    message = llm.refuses(prompt)
    assert widget in message
    assert "list" in message
    assert llm.script.questions == []


def test_the_plans_of_several_sentences_are_refused(llm):
    """Which picture is of which plan nobody knows."""
    prompt = judged()
    prompt["texts"] = node("Test_Values", json=f'["{unique("one")}", "{unique("two")}"]')
    prompt["plan"] = node("AnimStudio_PromptWriter", **{**WRITER, "sentence": ["texts", 0]})
    message = llm.refuses(prompt)
    assert "plan" in message
    assert "one Judge for each" in message
    assert llm.script.questions == []


# -- What is asked again


def test_another_model_at_the_same_address_judges_anew(llm):
    prompt = judged()
    llm.run(prompt)
    asked = len(llm.script.questions)
    llm.run(prompt)
    assert len(llm.script.questions) == asked
    known, llm.qwen.model.name = llm.qwen.model.name, "other"
    try:
        result = llm.run(prompt)
    finally:
        llm.qwen.model.name = known
    assert len(llm.script.questions) == 2 * asked
    assert llm.records(result)[0]["judgement"]["model"] == "other"


def test_an_edited_trigger_word_is_asked_about(llm):
    prompt = judged()
    llm.run(prompt)
    with llm.configured("lora_registry.yaml", words_only(luca=["a red scarf"])):
        llm.run(prompt)
    assert any("a red scarf" in question for question in llm.script.questions)


# -- Refine


def test_a_plan_is_changed_only_where_its_picture_failed(llm):
    llm.script.p_yes = fails_at("camera")
    llm.script.changes = [{**CHANGES, "characters": ["giulia"]}]
    result = llm.run(judged(refine=True))
    text = result.outputs[f"refined{TEXT}"]["text"][0]
    assert "camera: close-up" in text
    assert "giulia" not in text
    assert result.outputs[f"refined{ACCEPTED}"]["text"] == ["False"]
    [report] = result.outputs["refine"]["animstudio_report"]
    assert "changed camera, composition, parts.camera: nearer" in report["lines"][0]


def test_an_accepted_plan_is_not_changed_and_nothing_is_asked(llm):
    result = llm.run(judged(refine=True))
    assert result.outputs[f"refined{ACCEPTED}"]["text"] == ["True"]
    assert llm.script.changes_asked == 0


# -- Whose plan it is


def take_of(plan, **judge):
    """Judge the same picture against another plan, and take it whatever comes out."""
    values = {**JUDGE, "when_none": "pass the best", **judge}
    return {
        "last": node("AnimStudio_Judge", images=["picture", 0], plan=plan, **values),
        "take": node(
            "AnimStudio_SaveTake", images=["last", 0], filename_prefix="last",
            judgement=["last", 5],
        ),
    }  # fmt: skip


def sources(llm, prompt):
    """The steps of the plan's making in the record of the node "take"."""
    result = llm.run(prompt)
    [name] = {one["filename"] for one in result.outputs["take"]["images"][:1]}
    [record] = [one for one in llm.records(result) if one["file"].endswith(name)]
    return record["judgement"]["sources"]


def test_the_record_tells_every_step_of_a_plan(llm):
    sentence = unique("Luca kneels")
    llm.script.p_yes = fails_at("camera")
    llm.script.changes = [CHANGES]
    prompt = judged() | take_of(["refine", 0])
    prompt["plan"] = node("AnimStudio_PromptWriter", **{**WRITER, "sentence": sentence, "seed": 11})
    prompt["refine"] = node(
        "AnimStudio_Refine",
        plan=["plan", 0], judgement=["judge", 3], **{**REFINE, "seed": 99, "temperature": 1.3},
    )  # fmt: skip
    written, refined = sources(llm, prompt)
    assert written == {
        "step": "written", "service": "qwen", "model": "tiny", "seed": 11, "temperature": 0.3,
        "sentence": sentence, "change": "", "character": "none", "dialect": "prose",
    }  # fmt: skip
    wanted = {"step": "refined", "service": "qwen", "model": "tiny", "seed": 99, "temperature": 1.3}
    assert refined.items() >= wanted.items()
    assert refined["change"] == "nearer"


def test_a_change_of_a_plan_by_hand_is_a_step(llm):
    change = unique("in bed")
    prompt = judged() | take_of(["plan", 0])
    prompt["hand"] = node("AnimStudio_PlanFromText", text="characters: giulia", dialect="prose")
    values = {**WRITER, "change": change, "dialect": "tags", "character": "luca"}
    prompt["plan"] = node("AnimStudio_PromptWriter", plan=["hand", 0], **values)
    [changed] = sources(llm, prompt)
    assert changed["step"] == "changed"
    assert (changed["change"], changed["seed"]) == (change, 1)
    assert (changed["character"], changed["dialect"]) == ("luca", "tags")


def test_a_plan_that_was_accepted_has_no_step_of_refine(llm):
    prompt = judged(plan=BEACH) | take_of(["refine", 0])
    prompt["refine"] = node("AnimStudio_Refine", plan=["plan", 0], judgement=["judge", 3], **REFINE)
    assert sources(llm, prompt) == []
