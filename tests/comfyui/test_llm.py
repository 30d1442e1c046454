"""Sentence to plan to picture to judgement in a running ComfyUI, with a stand-in language model.

The model is a real server on a real port that says what a test scripts (tests/support); the memory
it holds is a scripted GPU's, so that ComfyUI and it have to take turns.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
import yaml

from animation_studio.errors import PromptFailedError, PromptRejectedError
from tests.support import nvml_standin
from tests.support.face_graphs import node
from tests.support.nvml_standin import ScriptedGpu
from tests.support.pictures import saved
from tests.support.prompts import bundled, changed, page_form
from tests.support.scripted_llm import BEACH, ScriptedLlm, good
from tests.support.server import ComfyServer
from tests.support.services import only_service
from tests.support.standin_service import StandIn
from tests.support.waiting import until

GB = 10**9
WRITER = {
    "sentence": "Luca running on the beach, excited", "service": "auto", "seed": 1,
    "temperature": 0.3, "dialect": "prose", "character": "none",
}  # fmt: skip
JUDGE = {
    "service": "auto", "threshold": 0.7, "slot_threshold": 0.3, "defects": True,
    "when_none": "block",
}  # fmt: skip
REFINE = {"service": "auto", "seed": 1, "temperature": 0.7, "dialect": "prose"}
# The outputs of every node that makes a plan.
(PLAN, CHARACTER, BACKGROUND, STYLE, EXPRESSION, SCENE, NEGATIVE, CONTROL, POSE, LINES, TEXT) = (
    range(11)
)
ACCEPTED = 11  # of Refine
KINDS = ("character", "background", "style", "pose", "expression")


class Studio:
    """A ComfyUI, and the language model beside it."""

    def __init__(self, server: ComfyServer, qwen: StandIn) -> None:
        self.server, self.qwen = server, qwen
        self.script = ScriptedLlm()

    def write(self, prompt_nodes: dict | None = None, **inputs: object) -> dict:
        """Run a Prompt Writer alone and return what its outputs show, by index."""
        return self.show(node("AnimStudio_PromptWriter", **{**WRITER, **inputs}), prompt_nodes)

    def show(self, maker: dict, prompt_nodes: dict | None = None) -> dict:
        shown = {
            f"show{index}": node("PreviewAny", source=["maker", index])
            for index in range(CHARACTER, TEXT + 1)
        }
        result = self.server.run({**(prompt_nodes or {}), "maker": maker, **shown})
        values = {
            index: result.outputs[f"show{index}"]["text"][0] for index in range(CHARACTER, TEXT + 1)
        }
        return {**values, "report": result.outputs.get("maker", {}).get("animstudio_report")}

    def fails(self, maker: dict) -> str:
        """Run a node that makes a plan and must fail; return the message."""
        with pytest.raises(PromptFailedError) as caught:
            self.show(maker)
        return str(caught.value)


@pytest.fixture(scope="module")
def running(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llm")
    library = nvml_standin.build(folder / "nvml")
    gpu = ScriptedGpu(folder / "gpu.txt")
    with StandIn("vllm", gpu=gpu, memory_awake=9 * GB) as qwen:
        config = folder / "config"
        entry = {
            "kind": "vllm", "base_url": qwen.url, "vram_gb": 8.0, "vision": True, "parallel": 3,
            "timeouts": {"answer": 2.0, "generate": 8.0, "sleep": 5.0, "wake": 5.0},
        }  # fmt: skip
        only_service(prepared.standins / "config", config, "qwen", entry, {"settle_seconds": 0.5})
        add_tiny_preset(config)
        server = ComfyServer.start(
            prepared, folder / "comfyui", config=config, test_packs=True,
            environment=gpu.environment(library),
        )  # fmt: skip
        yield Studio(server, qwen)
        server.stop()


def add_tiny_preset(config: Path) -> None:
    """Give the configuration a quality preset that a CPU makes in a second."""
    tiny = {"steps": 1, "cfg_scale": 1.0, "size": [64, 64]}
    file = config / "sdxl_config.yaml"
    known = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    known.setdefault("generation", {}).setdefault("quality_presets", {})["tiny"] = tiny
    file.write_text(yaml.safe_dump(known), encoding="utf-8")


@pytest.fixture
def studio(running):
    running.script = ScriptedLlm()
    running.qwen.model.says = running.script
    yield running
    running.qwen.heal()
    running.qwen.model.prepare_chat()
    status = "/animation_studio/gpu"
    assert until(lambda: running.server.get_json(status)["lease"] is None)
    assert until(lambda: not running.qwen.asleep)
    assert running.qwen.model.work_while_asleep == 0
    assert running.qwen.model.chats == 0


def unique(text: str) -> str:
    """A sentence that no other test has asked about."""
    return f"{text} ({time.monotonic_ns()})"


# -- Prompt Writer and Plan From Text


def test_a_sentence_becomes_what_the_loader_takes(studio):
    made = studio.write(sentence=unique("Luca running on the beach, excited"))
    assert made[CHARACTER] == "luca"
    assert made[EXPRESSION] == "excited"
    assert (made[BACKGROUND], made[STYLE]) == ("none", "pixar_3d")
    assert made[SCENE].startswith("running along the beach, arms wide")
    assert made[NEGATIVE] == "crowd"
    assert (made[CONTROL], made[POSE], made[LINES]) == ("none", "none", "")
    again = studio.show(node("AnimStudio_PlanFromText", text=made[TEXT], dialect="prose"))
    assert {key: again[key] for key in range(CHARACTER, TEXT + 1)} == {
        key: made[key] for key in range(CHARACTER, TEXT + 1)
    }


def test_the_same_sentence_is_asked_once(studio):
    sentence = unique("Luca waves")
    first = studio.write(sentence=sentence)
    assert studio.script.plans_asked == 1
    # Past ComfyUI's cache: another widget that does not go into the question.
    studio.server.post_json("/free", {"unload_models": True, "free_memory": True})
    again = studio.write(sentence=sentence)
    assert studio.script.plans_asked == 1
    assert again[TEXT] == first[TEXT]
    assert "written before" in again["report"][0]["lines"][0]
    studio.write(sentence=sentence, seed=2)
    assert studio.script.plans_asked == 2


def test_the_same_sentence_needs_no_server(studio):
    sentence = unique("Luca sits")
    studio.write(sentence=sentence)
    studio.server.post_json("/free", {"unload_models": True, "free_memory": True})
    studio.qwen.crash()
    try:
        again = studio.write(sentence=sentence)
    finally:
        studio.qwen.serve()
    assert "written before" in again["report"][0]["lines"][0]


def test_whatever_the_model_says_the_plan_names_what_is_there(studio):
    studio.script.plan = None  # valid random documents
    for seed in range(8):
        made = studio.write(sentence=unique("noise"), seed=seed, temperature=1.5)
        registry = {"luca", "alberto", "giulia", "none"}
        assert made[CHARACTER] in registry
        assert made[CONTROL] in {"openpose", "depth", "canny", "none"}


def test_a_character_chosen_by_hand_is_the_main_one(studio):
    made = studio.write(sentence=unique("a walk"), character="giulia")
    assert made[CHARACTER] == "giulia"


def test_an_earlier_plan_is_changed(studio):
    earlier = {"earlier": node("AnimStudio_PlanFromText", text="characters: luca", dialect="prose")}
    studio.script.plan = {**BEACH, "camera": "close-up"}
    made = studio.write(earlier, plan=["earlier", 0], change=unique("nearer"), sentence="", seed=3)
    assert "camera: close-up" in made[TEXT]
    [asked] = [one.body for one in studio.qwen.log[-3:] if "CHANGE REQUEST" in json.dumps(one.body)]
    assert "EARLIER PLAN" in asked["messages"][-1]["content"]


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
def test_what_no_plan_can_be_made_of_is_said(studio, inputs, said):
    asked = studio.script.plans_asked
    assert said in studio.fails(node("AnimStudio_PromptWriter", **{**WRITER, **inputs}))
    assert studio.script.plans_asked == asked


def test_an_unknown_character_is_refused_with_the_nearest(studio):
    with pytest.raises(PromptRejectedError, match="Did you mean 'luca'"):
        studio.show(node("AnimStudio_PromptWriter", **{**WRITER, "character": "lucca"}))
    said = studio.fails(
        node("AnimStudio_PlanFromText", text="characters: [lucca]\n", dialect="prose")
    )
    assert "Did you mean 'luca'" in said


def test_somebody_who_is_not_of_the_cast_is_told(studio):
    studio.script.plan = {**BEACH, "others": ["Albert", "an old fisherman"]}
    made = studio.write(sentence=unique("Luca and Albert"))
    [report] = made["report"]
    assert any("'Albert' is not in the cast" in one for one in report["warnings"])
    assert any("Did you mean 'alberto'" in one for one in report["warnings"])


@pytest.mark.parametrize("language", ["Luca corre sulla spiaggia, felice", "卢卡在沙滩上奔跑"])
def test_other_languages_reach_the_model_as_they_are(studio, language):
    sentence = unique(language)
    studio.write(sentence=sentence)
    told = studio.qwen.log[-1].body["messages"][-1]["content"]
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
def test_a_bad_answer_names_service_and_cause_and_the_next_is_good(studio, case):
    how, said = BAD_ANSWERS[case]
    if "says" in how:
        script = studio.script
        studio.qwen.model.says = lambda body: how["says"] if script(body) else None
    else:
        studio.qwen.fault("POST /v1/chat/completions", **how)
    sentence = unique("Luca reads")
    message = studio.fails(node("AnimStudio_PromptWriter", **{**WRITER, "sentence": sentence}))
    assert "qwen" in message
    assert studio.qwen.url in message
    assert said in message
    studio.qwen.heal()
    studio.qwen.model.says = studio.script
    assert studio.write(sentence=sentence)[CHARACTER] == "luca"


def test_an_interruption_ends_the_answer_within_a_second(studio):
    studio.qwen.model.token_seconds = 0.2
    server = studio.server
    left = studio.qwen.model.left_chats

    def interrupt():
        until(lambda: studio.qwen.model.chats > 0 and studio.script.plans_asked > 0)
        server.post_json("/interrupt", {})

    stopper = threading.Thread(target=interrupt)
    stopper.start()
    maker = node("AnimStudio_PromptWriter", **{**WRITER, "sentence": unique("Luca sleeps")})
    with pytest.raises(PromptFailedError, match="interrupted"):
        studio.show(maker)
    stopper.join()
    assert until(lambda: studio.qwen.model.left_chats > left)


# -- Judge and Refine


def judged(studio, *, picture: dict | None = None, refine: bool = False, **judge: object) -> dict:
    """An empty picture judged against a plan by hand, kept where it is accepted."""
    nodes = {
        "plan": node(
            "AnimStudio_PlanFromText", text=yaml.safe_dump(BEACH), dialect="prose"
        ),
        "picture": picture
        or node("EmptyImage", width=64, height=64, batch_size=2, color=time.time_ns() % 2**24),
        "judge": node(
            "AnimStudio_Judge", images=["picture", 0], plan=["plan", 0], **{**JUDGE, **judge}
        ),
        "accepted": node(
            "AnimStudio_SaveTake", images=["judge", 0], filename_prefix="accepted",
            judgement=["judge", 5],
        ),
        "rejected": node("AnimStudio_SaveTake", images=["judge", 1], filename_prefix="rejected"),
        "scores": node("PreviewAny", source=["judge", 4]),
    }  # fmt: skip
    if refine:
        nodes["refine"] = node(
            "AnimStudio_Refine", plan=["plan", 0], judgement=["judge", 3], **REFINE
        )
        for index in (TEXT, ACCEPTED):
            nodes[f"refined{index}"] = node("PreviewAny", source=["refine", index])
    return nodes


def test_a_good_picture_is_accepted_and_its_answers_are_in_the_record(studio):
    result = studio.server.run(judged(studio))
    assert "rejected" not in result.outputs
    records = [json.loads(path.read_text()) for path in saved(studio.server, result, "records")]
    assert len(records) == 2
    judgement = records[0]["judgement"]
    assert judgement["accepted"] is True
    assert judgement["plan"]["characters"] == ["luca"]
    assert judgement["mean"] == pytest.approx(0.9)
    assert {one["slot"] for one in judgement["answers"]} >= {"character luca", "action", "count"}
    # One question for each slot and picture, no more at once than the service takes.
    assert len(studio.script.questions) == len(judgement["answers"]) * 2
    assert 1 < studio.qwen.model.most_chats <= 3


def test_a_bad_picture_is_rejected_with_what_to_do(studio):
    studio.script.p_yes = lambda question: 0.05 if "action" in question else good(question)
    result = studio.server.run(judged(studio))
    assert "accepted" not in result.outputs
    assert len(saved(studio.server, result)) == 2
    [report] = result.outputs["judge"]["animstudio_report"]
    assert "rejected: action 0.05" in report["lines"][1]
    assert any("none of 2 pictures was accepted" in one for one in report["warnings"])
    passed = studio.server.run(judged(studio, when_none="pass the best"))
    assert passed.outputs["accepted"]["images"]


def test_a_plan_is_changed_only_where_its_picture_failed(studio):
    studio.script.p_yes = lambda question: 0.05 if "camera" in question else good(question)
    studio.script.changes = [
        {
            "reasoning": "nearer", "camera": "close-up", "composition": "his face",
            "characters": ["giulia"], "parts": {"camera": ["close-up of the face"]},
        }
    ]  # fmt: skip
    result = studio.server.run(judged(studio, refine=True))
    text = result.outputs[f"refined{TEXT}"]["text"][0]
    assert "camera: close-up" in text
    assert "giulia" not in text
    assert result.outputs[f"refined{ACCEPTED}"]["text"] == ["False"]
    [report] = result.outputs["refine"]["animstudio_report"]
    assert "changed camera, composition, parts.camera: nearer" in report["lines"][0]


def test_an_accepted_plan_is_not_changed_and_nothing_is_asked(studio):
    result = studio.server.run(judged(studio, refine=True))
    assert result.outputs[f"refined{ACCEPTED}"]["text"] == ["True"]
    assert studio.script.changes_asked == 0


def test_a_model_that_sees_nothing_is_named(studio):
    studio.qwen.model.vision = False
    with pytest.raises(PromptFailedError, match="does not see pictures"):
        studio.server.run(judged(studio))


# -- Until Accepted


def rounds(sentence: str, **inputs: object) -> dict:
    values = {
        "sentence": sentence, "writer": "auto", "judge": "auto", "seed": 5, "temperature": 0.3,
        "dialect": "prose", "character": "none", "quality": "tiny", "rounds": 3, "pictures": 1,
        "threshold": 0.7, "slot_threshold": 0.3, "defects": True, "check_faces": "never",
        **inputs,
    }  # fmt: skip
    return {
        "ckpt": node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
        "until": node(
            "AnimStudio_UntilAccepted",
            model=["ckpt", 0], clip=["ckpt", 1], vae=["ckpt", 2], **values,
        ),
        "take": node(
            "AnimStudio_SaveTake", images=["until", 0], look=["until", 3], sampling=["until", 4],
            judgement=["until", 5], filename_prefix="accepted",
        ),
        "was": node("PreviewAny", source=["until", 1]),
        "made": node("PreviewAny", source=["until", 7]),
        "plan": node("PreviewAny", source=["until", 6]),
    }  # fmt: skip


CHANGES = {
    "reasoning": "nearer", "camera": "close-up", "composition": "his face",
    "parts": {"camera": ["close-up of the face"]},
}  # fmt: skip


def test_a_first_picture_that_is_good_is_the_only_one(studio):
    result = studio.server.run(rounds(unique("Luca jumps")))
    assert result.outputs["was"]["text"] == ["True"]
    assert result.outputs["made"]["text"] == ["1"]
    [record] = [json.loads(path.read_text()) for path in saved(studio.server, result, "records")]
    assert record["character"] == "luca"
    assert record["judgement"]["accepted"]
    assert [one["number"] for one in record["judgement"]["rounds"]] == [1]
    assert record["sampling"]["steps"] == 1


def test_the_plan_is_changed_until_a_picture_is_accepted(studio):
    answers = {"wide shot": 0.05}
    studio.script.p_yes = lambda question: next(
        (p for text, p in answers.items() if text in question), good(question)
    )
    studio.script.changes = [CHANGES]
    result = studio.server.run(rounds(unique("Luca climbs")))
    assert result.outputs["was"]["text"] == ["True"]
    assert result.outputs["made"]["text"] == ["2"]
    [record] = [json.loads(path.read_text()) for path in saved(studio.server, result, "records")]
    assert record["judgement"]["source"]["sentence"].startswith("Luca climbs")
    first, second = record["judgement"]["rounds"]
    assert (first["seed"], second["seed"]) == (5, 6)
    assert first["judgement"]["accepted"] is False
    assert second["changed"] == ["camera", "composition", "parts.camera"]
    assert "close-up of the face" in record["positive"]
    # The model slept while pictures were made, and never got work then (the fixture looks).
    assert studio.qwen.requests["POST /sleep"] >= 2


def test_the_best_picture_is_kept_where_none_is_accepted(studio):
    # By round, which ends with a change of the plan: never shown, the first time the most.
    shown = [0.25, 0.0, 0.1]
    studio.script.p_yes = lambda question: (
        shown[studio.script.changes_asked] if "action" in question else good(question) * 0.6
    )
    studio.script.changes = [{"reasoning": "plainer", "action": "he runs"}] * 2
    result = studio.server.run(rounds(unique("Luca hides")))
    assert result.outputs["was"]["text"] == ["False"]
    assert result.outputs["made"]["text"] == ["3"]
    warnings = [
        one
        for output in result.outputs.values()
        for report in output.get("animstudio_report", [])
        for one in report["warnings"]
    ]
    assert any(
        "no picture was accepted in 3 rounds; the best one, of round 1" in one for one in warnings
    )
    [record] = [json.loads(path.read_text()) for path in saved(studio.server, result, "records")]
    assert record["judgement"]["plan"]["action"] == BEACH["action"]
    assert [one["seed"] for one in record["judgement"]["rounds"]] == [5, 6, 7]
    assert record["judgement"]["mean"] == record["judgement"]["rounds"][0]["judgement"]["mean"]


@pytest.mark.parametrize(("second", "plan"), [(0.1, "the first"), (0.9, "the second")])
def test_pictures_that_are_as_good_are_compared_side_by_side(studio, second, plan):
    studio.script.p_yes = lambda question: 0.1 if "action" in question else good(question)
    studio.script.changes = [{"reasoning": "other words", "action": "the second"}]
    studio.script.plan = {**BEACH, "action": "the first"}
    # The newer picture is asked about first: as A, then as B.
    answers = [{"A": second, "B": 1 - second}, {"A": 1 - second, "B": second}]
    script = studio.script
    studio.qwen.model.says = lambda body: (
        answers.pop(0) if "The first picture is A" in json.dumps(body) else script(body)
    )
    result = studio.server.run(rounds(unique("Luca turns"), rounds=2))
    assert not answers
    assert f"action: {plan}" in result.outputs["plan"]["text"][0]


# -- The bundled workflows


def test_sentence_to_picture(studio):
    prompt = bundled("sentence_to_picture")
    prompt = changed(prompt, "AnimStudio_PromptWriter", sentence=unique("Luca waves"))
    result = studio.server.run(prompt, page_form("sentence_to_picture"))
    [picture], [file] = saved(studio.server, result), saved(studio.server, result, "records")
    record = json.loads(file.read_text(encoding="utf-8"))
    assert "accepted" in picture.name
    assert record["character"] == "luca"
    assert [one["id"] for one in record["entries"]] == ["luca", "pixar_3d", "excited"]
    assert "running along the beach" in record["positive"]
    assert record["judgement"]["accepted"]
    source = record["judgement"]["source"]
    assert (source["service"], source["model"], source["seed"]) == ("qwen", "tiny", 20261121)
    assert source["sentence"].startswith("Luca waves")
    assert [one["purpose"] for one in record["gpu"]] == ["llm"]


def test_what_sentence_to_picture_rejects_is_saved_apart(studio):
    studio.script.p_yes = lambda question: 0.1
    prompt = bundled("sentence_to_picture")
    prompt = changed(prompt, "AnimStudio_PromptWriter", sentence=unique("Luca bows"))
    result = studio.server.run(prompt)
    [picture] = saved(studio.server, result)
    assert "rejected" in picture.name


def test_sentence_to_accepted_picture(studio):
    prompt = bundled("sentence_to_accepted_picture")
    prompt = changed(prompt, "AnimStudio_UntilAccepted", sentence=unique("Luca dives"))
    result = studio.server.run(prompt, page_form("sentence_to_accepted_picture"))
    [file] = saved(studio.server, result, "records")
    record = json.loads(file.read_text(encoding="utf-8"))
    assert [one["number"] for one in record["judgement"]["rounds"]] == [1]
    assert record["sampling"]["source"] == "character's own"


def test_a_course_from_a_stranger_is_refused(studio):
    prompt = rounds(unique("x"))
    prompt["until"] = node(
        "AnimStudio_JudgeRound",
        images=["picture", 0], course='{"wish": {}}', model=["ckpt", 0], clip=["ckpt", 1],
        vae=["ckpt", 2], look=["loader", 4],
    )  # fmt: skip
    prompt["picture"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0)
    prompt["loader"] = node(
        "AnimStudio_CharacterLoraLoader", model=["ckpt", 0], clip=["ckpt", 1], scene_text="",
        negative_text="",
        **dict.fromkeys(KINDS, "none"), **{f"{kind}_weight": -1.0 for kind in KINDS},
    )  # fmt: skip
    with pytest.raises(PromptFailedError, match="Until Accepted did not write this"):
        studio.server.run(prompt)
