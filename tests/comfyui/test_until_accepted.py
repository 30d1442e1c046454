"""Until Accepted in a running ComfyUI: from a sentence to an accepted picture, round by round.

Sampling is ComfyUI's own with the stand-in checkpoint; where it matters what a picture shows, a
stand-in VAE (tests/support/packs/list_nodes) says it. The language model is a stand-in.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import yaml

from tests.support.face_graphs import LUCA, OTHER, node, put
from tests.support.llm_studio import CHANGES, SDXL, rounds, unique, words_only
from tests.support.pictures import pixels, saved
from tests.support.scripted_llm import BEACH, good

POSES = Path(__file__).resolve().parents[2] / "configs" / "poses"


def action_by_level(question, level):
    """The action is seen the better, the lighter a picture is."""
    return level if "show this action" in question else good(question)


def level_of(llm, result):
    """The level of the one picture that a run saved."""
    [file] = saved(llm.server, result)
    return round(float(pixels(file).mean()) / 255, 1)


def test_a_first_picture_that_is_good_is_the_only_one(llm):
    result = llm.run(rounds(unique("Luca jumps")))
    assert result.outputs["was"]["text"] == ["True"]
    assert result.outputs["made"]["text"] == ["1"]
    [record] = llm.records(result)
    assert record["character"] == "luca"
    assert record["judgement"]["accepted"]
    assert [one["number"] for one in record["judgement"]["rounds"]] == [1]
    assert record["sampling"]["steps"] == 1


def test_the_plan_is_changed_until_a_picture_is_accepted(llm):
    sentence = unique("Luca climbs")
    llm.script.p_yes = lambda question: (
        0.05 if "wide shot" in question and not llm.script.changes_asked else good(question)
    )
    llm.script.changes = [CHANGES]
    result = llm.run(rounds(sentence))
    assert result.outputs["was"]["text"] == ["True"]
    assert result.outputs["made"]["text"] == ["2"]
    [record] = llm.records(result)
    written, refined = record["judgement"]["sources"]
    assert (written["step"], written["sentence"], written["seed"]) == ("written", sentence, 5)
    first, second = record["judgement"]["rounds"]
    assert refined == second["source"]
    assert (first["seed"], second["seed"]) == (5, 6)
    assert first["judgement"]["accepted"] is False
    assert first["source"] is None
    assert second["changed"] == ["camera", "composition", "parts.camera"]
    assert second["source"]["step"] == "refined"
    assert second["source"]["model"] == "tiny"
    assert "close-up of the face" in record["positive"]
    # The model slept while pictures were made, and never got work then (the fixture looks).
    assert llm.qwen.requests["POST /sleep"] >= 2


@pytest.mark.parametrize("intent", ["", BEACH["intent"]])
def test_every_round_is_held_to_the_first_plan(llm, intent):
    """However the plan is changed: what the sentence asked for is looked for in each picture."""
    action = f"Luca saves a dog {time.monotonic_ns()}"
    llm.script.plan = {**BEACH, "intent": intent, "action": action, "time": "at midnight"}
    llm.script.p_yes = lambda question: (
        0.02 if "saves a dog" in question or "midnight" in question else good(question)
    )
    easier = {"reasoning": "easier", "action": "a boy", "time": "day", "light": "sunny"}
    llm.script.changes = [easier, easier]
    result = llm.run(rounds(unique("Luca saves a dog at midnight")))
    assert result.outputs["was"]["text"] == ["False"]
    [record] = llm.records(result)
    made = record["judgement"]["rounds"]
    asked = [[one["question"] for one in each["judgement"]["answers"]] for each in made]
    assert asked[0] == asked[1] == asked[2]
    assert made[1]["plan"]["action"] == "a boy"


def test_the_best_picture_is_kept_where_none_is_accepted(llm):
    llm.script.p_seen = action_by_level
    llm.script.changes = [{"reasoning": "plainer", "action": "he runs"}] * 2
    result = llm.run(rounds(unique("Luca hides"), shown="2, 0, 1"))
    assert result.outputs["was"]["text"] == ["False"]
    assert result.outputs["made"]["text"] == ["3"]
    assert level_of(llm, result) == 0.2
    said = "no picture was accepted in 3 rounds; the best one, of round 1"
    assert any(said in one for one in llm.warnings(result))
    [record] = llm.records(result)
    judgement = record["judgement"]
    assert judgement["best"] == 1
    assert judgement["plan"]["action"] == BEACH["action"]
    assert [one["seed"] for one in judgement["rounds"]] == [5, 6, 7]
    assert judgement["mean"] == judgement["rounds"][0]["judgement"]["mean"]


def test_the_best_of_a_batch_is_kept_and_the_record_says_where_it_lay(llm):
    llm.script.p_seen = action_by_level
    llm.script.changes = [{"reasoning": "plainer", "action": "he runs"}] * 2
    result = llm.run(rounds(unique("Luca turns"), shown="0 1 2, 1 2 0, 0 9 1", pictures=3))
    assert result.outputs["made"]["text"] == ["3"]
    assert level_of(llm, result) == 0.9
    [record] = llm.records(result)
    assert (record["batch_index"], record["batch_size"]) == (1, 3)
    assert [one["seed"] for one in record["samplers"]] == [7]
    made = record["judgement"]["rounds"]
    assert [(one["index"], one["batch_size"]) for one in made] == [(2, 3), (1, 3), (1, 3)]
    assert [one["seed"] for one in made] == [5, 6, 7]


def test_an_earlier_round_that_is_kept_names_its_own_seed(llm):
    llm.script.p_seen = action_by_level
    llm.script.changes = [{"reasoning": "plainer", "action": "he runs"}] * 2
    result = llm.run(rounds(unique("Luca falls"), shown="0, 1 2, 0", pictures=2, seed=2**64 - 1))
    assert level_of(llm, result) == 0.2
    [record] = llm.records(result)
    assert [one["seed"] for one in record["judgement"]["rounds"]] == [2**64 - 1, 0, 1]
    assert record["judgement"]["best"] == 2
    assert [one["seed"] for one in record["samplers"]] == [0]
    assert (record["batch_index"], record["batch_size"]) == (1, 2)


def test_a_picture_of_nan_is_never_kept(llm):
    odd = node("Test_Flat", pictures="1 64 64 3 nan, 1 64 64 3 0.4")
    result = llm.run(rounds(unique("nan"), shown="0 1", pictures_from=odd, pictures=2))
    assert level_of(llm, result) == 0.4
    assert llm.records(result)[0]["batch_index"] == 1


@pytest.mark.parametrize(("second", "plan"), [(0.1, "the first"), (0.9, "the second")])
def test_pictures_that_are_as_good_are_compared_side_by_side(llm, second, plan):
    llm.script.p_yes = lambda question: 0.1 if "action" in question else good(question)
    llm.script.changes = [{"reasoning": "other words", "action": "the second"}]
    llm.script.plan = {**BEACH, "action": "the first"}
    # The newer picture is asked about first: as A, then as B.
    answers = [{"A": second, "B": 1 - second}, {"A": 1 - second, "B": second}]
    script = llm.script
    llm.qwen.model.says = lambda body: (
        answers.pop(0) if "The first picture is A" in json.dumps(body) else script(body)
    )
    result = llm.run(rounds(unique("Luca turns"), rounds=2))
    assert not answers
    assert f"action: {plan}" in result.outputs["plan"]["text"][0]


# -- Linked widgets


def test_its_widgets_may_come_by_link(llm):
    prompt = rounds(
        ["sentence", 0], character=["who", 0], writer=["service", 0], judge=["service", 0],
        seed=["seed", 0], rounds=1,
    )  # fmt: skip
    sentence = unique("linked")
    prompt |= {
        "sentence": node("Test_Value", json=json.dumps(sentence)),
        "who": node("Test_Value", json='"giulia"'),
        "service": node("Test_Value", json='"qwen"'),
        "seed": node("Test_Value", json=str(2**64 - 1)),
    }
    [record] = llm.records(llm.run(prompt))
    assert record["character"] == "giulia"
    assert [one["seed"] for one in record["samplers"]] == [2**64 - 1]
    assert record["judgement"]["sources"][0]["sentence"] == sentence

    # Another plan's character, as its output gives it.
    prompt["who"] = node("AnimStudio_PlanFromText", text="characters: alberto", dialect="prose")
    prompt["until"]["inputs"]["character"] = ["who", 1]
    [record] = llm.records(llm.run(prompt))
    assert record["character"] == "alberto"


def test_a_plan_by_hand_takes_the_place_of_the_sentence(llm):
    prompt = rounds("", plan=["hand", 0], rounds=1)
    prompt["hand"] = node("AnimStudio_PlanFromText", text=yaml.safe_dump(BEACH), dialect="prose")
    [record] = llm.records(llm.run(prompt))
    assert llm.script.plans_asked == 0
    assert record["judgement"]["sources"] == []


# -- Faces


@pytest.fixture
def faces(llm, llm_references, face_pictures):
    """The names of a picture of somebody else and of luca, of whom there are references."""
    server = llm.server
    own = [put(server, face_pictures, f"ref_{edit}", LUCA, edit) for edit in ("jpeg", "darker")]
    llm.run(
        {
            "pictures": node("Test_Pictures", names=" ".join(own)),
            "refs": node(
                "AnimStudio_FaceReferences",
                images=["pictures", 0], character="luca", which_face="largest", save=True,
                engine="dlib",
            ),
        }
    )  # fmt: skip
    return [
        put(server, face_pictures, "somebody_else", OTHER),
        put(server, face_pictures, "luca_himself", LUCA, "crop"),
    ]


def of_faces(names, **inputs):
    """Rounds whose pictures are these, 0 and 1, as `shown` says."""
    pictures = node("Test_Pictures", names=" ".join(names))
    values = {"check_faces": "where it has references", **inputs}
    return rounds(unique("faces"), pictures_from=pictures, **values)


def test_the_characters_face_wins_over_a_better_picture_of_somebody_else(llm, faces):
    levels = [pixels(llm.server.input_dir / name).mean() / 255 for name in faces]
    middle = sum(levels) / 2
    others_are_better = (levels[0] > middle, 0.99, 0.8)
    llm.script.p_seen = lambda question, level: (
        good(question)
        if "show this action" not in question
        else others_are_better[1 if (level > middle) == others_are_better[0] else 2]
    )
    result = llm.run(of_faces(faces, shown="0 1", pictures=2))
    assert result.outputs["was"]["text"] == ["True"]
    [picture] = saved(llm.server, result)
    assert (pixels(picture) == pixels(llm.server.input_dir / faces[1])).all()
    [record] = llm.records(result)
    assert record["batch_index"] == 1
    assert record["consistency"]["keep"] is True
    [only] = record["judgement"]["rounds"]
    assert only["faces"]["kept"] is True


def test_a_picture_of_somebody_else_is_not_accepted(llm, faces):
    result = llm.run(of_faces(faces, shown="0, 1, 0"))
    assert result.outputs["was"]["text"] == ["True"]
    [record] = llm.records(result)
    assert [one["faces"]["kept"] for one in record["judgement"]["rounds"]] == [False, True]
    assert record["consistency"]["keep"] is True

    never = llm.run(of_faces(faces, shown="0", rounds=1))
    assert never.outputs["was"]["text"] == ["False"]
    [record] = llm.records(never)
    assert record["consistency"]["keep"] is False

    unasked = llm.run(of_faces(faces, shown="0", rounds=1, check_faces="never"))
    assert unasked.outputs["was"]["text"] == ["True"]
    assert llm.records(unasked)[0]["consistency"] is None


# -- Controls


@pytest.mark.parametrize(
    ("control", "said"),
    [({"type": "depth", "pose": "none"}, "depth"), ({"type": "openpose", "pose": "none"}, "pose")],
)
def test_a_control_that_needs_more_than_the_plan_has_is_told(llm, control, said):
    llm.script.plan = {**BEACH, "controls": [{"reason": "why not", **control}]}
    result = llm.run(rounds(unique("controls"), rounds=1))
    assert any(said in text for text in llm.warnings(result))
    [record] = llm.records(result)
    assert record["controls"] == []
    assert record["judgement"]["rounds"][0]["controls"] == []


# -- The same prompt again


@pytest.fixture
def own_pose(llm):
    """The file of a pose that the user made."""
    folder = llm.server.user_dir / "animation_studio" / "poses"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "mine.json"
    shutil.copyfile(POSES / "running.json", file)
    yield file
    file.unlink()


def asked_again(llm, prompt):
    """How many questions the same prompt asks once more."""
    before = len(llm.script.questions)
    llm.run(prompt)
    return len(llm.script.questions) - before


def test_nothing_is_asked_where_nothing_changed(llm):
    prompt = rounds(unique("again"), rounds=1)
    llm.run(prompt)
    assert asked_again(llm, prompt) == 0


def test_a_pose_that_the_plan_wants_steers_a_round_and_once_edited_makes_another(llm, own_pose):
    wanted = {"reason": "he runs", "type": "openpose", "pose": "mine"}
    llm.script.plan = {**BEACH, "controls": [wanted]}
    prompt = rounds(unique("mine"), rounds=1, base=SDXL)
    result = llm.run(prompt)
    [record] = llm.records(result)
    assert record["controls"] == [{"control": "openpose (mine)"}]
    [only] = record["judgement"]["rounds"]
    assert only["controls"] == ["openpose (mine)"]
    assert llm.warnings(result) == []

    shutil.copyfile(POSES / "sitting.json", own_pose)
    assert asked_again(llm, prompt) > 0


def test_an_edited_trigger_word_is_judged_anew(llm):
    prompt = rounds(unique("scarf"), rounds=1)
    llm.run(prompt)
    with llm.configured("lora_registry.yaml", words_only(luca=["a red scarf"])):
        [record] = llm.records(llm.run(prompt))
    assert "a red scarf" in record["positive"]
    assert any("a red scarf" in question for question in llm.script.questions)


def test_another_model_at_the_same_address_judges_anew(llm):
    prompt = rounds(unique("other"), rounds=1)
    llm.run(prompt)
    known, llm.qwen.model.name = llm.qwen.model.name, "other"
    try:
        assert asked_again(llm, prompt) > 0
    finally:
        llm.qwen.model.name = known
    assert llm.script.plans_asked == 2


def test_new_and_deleted_references_are_judged_by(llm, llm_references, faces):
    prompt = of_faces(faces, shown="0", rounds=1)
    [record] = llm.records(llm.run(prompt))
    assert record["judgement"]["rounds"][0]["faces"]["kept"] is False
    shutil.rmtree(llm_references)
    [record] = llm.records(llm.run(prompt))
    assert record["judgement"]["rounds"][0]["faces"] is None
    assert record["consistency"] is None
