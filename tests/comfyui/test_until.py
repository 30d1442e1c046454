"""Until Consistent: samples by itself until enough pass, and never samples a judged seed again.

Sampling is ComfyUI's own with the stand-in checkpoint; a stand-in VAE (tests/support/packs) shows a
real face for each latent, and dlib judges it.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from animation_studio.errors import PromptFailedError
from tests.support.face_graphs import JUDGE, fields, node, noise, put, report_of, sampling
from tests.support.pictures import pixels, saved
from tests.support.prompts import bundled, changed

LUCA, OTHERS = "astronaut/1", ("sample3/1", "t1/3")


@pytest.fixture
def faces(comfyui, face_pictures):
    """Pictures that the stand-in VAE may show: luca in one of four; references of luca are made."""
    names = [put(comfyui, face_pictures, "show_luca", LUCA, "crop")]
    names += [put(comfyui, face_pictures, f"show_{i}", who) for i, who in enumerate(OTHERS)]
    names.append(noise(comfyui, "show_nobody"))
    own = [put(comfyui, face_pictures, f"ref_{e}", LUCA, e) for e in ("jpeg", "darker")]
    comfyui.run(
        {
            "pictures": node("Test_Pictures", names=" ".join(own)),
            "refs": node(
                "AnimStudio_FaceReferences",
                images=["pictures", 0], character="luca", which_face="largest", save=True,
                engine="dlib",
            ),
        }
    )  # fmt: skip
    yield names
    shutil.rmtree(comfyui.user_dir / "animation_studio")


def until(names, text, batch=1, **inputs):
    """A prompt of its own: `text` is in the positive prompt, so in the recipe of its pictures."""
    nodes = sampling(batch=batch)
    nodes["positive"]["inputs"]["text"] = text
    values = {
        **JUDGE,
        "model": ["ckpt", 0], "positive": ["positive", 0], "negative": ["positive", 0],
        "latent": ["latent", 0], "vae": ["vae", 0],
        "seed": 100, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal",
        "denoise": 1.0, "wanted": 1, "tries": 12, **inputs,
    }  # fmt: skip
    return {
        **nodes,
        "pictures": node("Test_Pictures", names=" ".join(names)),
        "vae": node("Test_FaceVAE", images=["pictures", 0]),
        "until": node("AnimStudio_UntilConsistent", **values),
        "kept": node(
            "AnimStudio_SaveTake", images=["until", 0], filename_prefix="kept", report=["until", 5]
        ),
        "seeds": node("PreviewAny", source=["until", 3]),
        "tries": node("PreviewAny", source=["until", 4]),
        "report": node(
            "AnimStudio_SaveReport",
            report=["until", 5], filename_prefix="until", contact_sheet=["until", 6],
        ),
    }  # fmt: skip


def decodes(comfyui):
    return comfyui.log().count("FaceVAE decodes")


def kept(comfyui, result):
    return [
        Path(comfyui.output_dir, one["subfolder"], one["filename"])
        for one in result.outputs.get("kept", {}).get("images", [])
    ]


def test_goes_on_until_one_passes_and_never_samples_a_seed_twice(comfyui, faces):
    before = decodes(comfyui)
    first = comfyui.run(until(faces, "first"))
    report = report_of(comfyui, first)
    made = report["tries"]["made"]
    assert made == decodes(comfyui) - before >= 1
    assert report["tries"]["seeds"] == list(range(100, 100 + made))
    assert fields(report, "seed") == report["tries"]["seeds"]
    assert fields(report, "keep") == [False] * (made - 1) + [True]
    assert [int(text) for text in first.outputs["seeds"]["text"]] == report["tries"]["seeds"]
    assert int(first.outputs["tries"]["text"][0]) == made
    [picture] = kept(comfyui, first)
    assert (pixels(picture) == pixels(comfyui.input_dir / faces[0])).all()

    # The same again: ComfyUI's cache.
    comfyui.run(until(faces, "first"))
    assert decodes(comfyui) - before == made

    # Two wanted: what was judged counts and is not sampled.
    second = comfyui.run(until(faces, "first", wanted=2, tries=30))
    report = report_of(comfyui, second)
    assert report["tries"]["judged_before"] == list(range(100, 100 + made))
    assert decodes(comfyui) - before == made + report["tries"]["made"]
    assert sum(fields(report, "keep")) == 2
    assert len(kept(comfyui, second)) == 2

    # A run that begins in the middle counts what is there as well.
    last = report["tries"]["seeds"][-1]
    third = report_of(comfyui, comfyui.run(until(faces, "first", seed=last)))
    assert third["tries"] | {"limit": 0} == {
        "wanted": 1, "limit": 0, "made": 0, "seeds": [last], "judged_before": [last],
    }  # fmt: skip
    # Another recipe knows none of them.
    other = report_of(comfyui, comfyui.run(until(faces, "another text")))
    assert other["tries"]["judged_before"] == []


def test_a_vram_guard_before_it_does_not_make_it_forget(comfyui, faces):
    """The guard always runs and says nothing about the value that it passes on."""
    prompt = until(faces, "guarded")
    prompt["guard"] = node(
        "AnimStudio_VRAMGuard",
        value=["ckpt", 0], purpose="image", needed_gb=0.0, service="auto", pause="as needed",
        level="configured", timeout=30, on_failure="error", resume="end of prompt",
    )  # fmt: skip
    prompt["until"]["inputs"]["model"] = ["guard", 0]
    made = report_of(comfyui, comfyui.run(prompt))["tries"]["made"]
    before = decodes(comfyui)

    again = report_of(comfyui, comfyui.run(prompt))["tries"]

    assert made >= 1
    assert again["made"] == 0
    assert len(again["judged_before"]) == made
    assert decodes(comfyui) == before


def test_spent_tries_are_a_normal_result_and_the_next_run_goes_on(comfyui, faces):
    only_others = faces[1:]
    prompt = until(only_others, "spent", tries=2)
    before = decodes(comfyui)
    result = comfyui.run(prompt)
    report = report_of(comfyui, result)
    assert report["tries"]["seeds"] == [100, 101]
    assert report["totals"]["kept"] == 0
    assert not kept(comfyui, result)
    warning = " ".join(
        text
        for output in result.outputs.values()
        for one in output.get("animstudio_report", [])
        for text in one["warnings"]
    )
    assert "0 of 1 pictures passed after 2 tries" in warning
    assert "Queue again" in warning

    again = report_of(comfyui, comfyui.run(prompt))
    assert again["tries"]["seeds"] == [100, 101, 102, 103]
    assert again["tries"]["judged_before"] == [100, 101]
    assert decodes(comfyui) - before == 4

    best = comfyui.run(until(only_others[:1], "best", tries=2, when_none="pass the best"))
    assert report_of(comfyui, best)["totals"]["kept"] == 0
    [picture] = kept(comfyui, best)
    assert (pixels(picture) == pixels(comfyui.input_dir / only_others[0])).all()


def test_other_references_judge_the_same_pictures_without_sampling(comfyui, faces):
    first = report_of(comfyui, comfyui.run(until(faces, "rejudged", wanted=8, tries=8)))
    with_face = sum(score is not None for score in fields(first, "score"))
    before = decodes(comfyui)
    lenient = until(faces, "rejudged", wanted=with_face, tries=8, threshold=-0.99)
    report = report_of(comfyui, comfyui.run(lenient))
    assert decodes(comfyui) == before
    assert report["tries"]["made"] == 0
    assert sum(fields(report, "keep")) == with_face > sum(fields(first, "keep"))


def test_a_batch_is_one_try(comfyui, faces):
    report = report_of(comfyui, comfyui.run(until(faces, "batch", batch=3, wanted=2, tries=8)))
    seeds = fields(report, "seed")
    assert len(seeds) == 3 * len(report["tries"]["seeds"])
    assert sum(fields(report, "keep")) >= 2


def test_interrupted_it_stops_and_keeps_what_was_judged(comfyui, faces):
    prompt = until(faces[1:], "stopped", tries=200)
    before = decodes(comfyui)

    def stop():
        while decodes(comfyui) < before + 3:
            time.sleep(0.05)
        comfyui.post_json("/interrupt", {})

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(PromptFailedError, match="interrupted"):
        comfyui.run(prompt)
    thread.join()
    sampled = decodes(comfyui) - before
    assert 3 <= sampled < 200
    report = report_of(comfyui, comfyui.run(until(faces[1:], "stopped", tries=1)))
    assert len(report["tries"]["judged_before"]) >= sampled - 1
    assert report["tries"]["made"] == 1


def test_missing_references_are_told_before_the_first_try(comfyui, faces):
    before = decodes(comfyui)
    with pytest.raises(PromptFailedError, match="no references yet"):
        comfyui.run(until(faces, "giulia", character="giulia"))
    assert decodes(comfyui) == before


def test_pictures_are_saved_with_their_seed(comfyui, faces):
    result = comfyui.run(until(faces, "record"))
    report = report_of(comfyui, result)
    [record] = [json.loads(p.with_suffix(".json").read_text()) for p in kept(comfyui, result)]
    assert record["consistency"]["seed"] == report["tries"]["seeds"][-1]
    assert saved(comfyui, result, "reports")
    lines = [
        line
        for output in result.outputs.values()
        for one in output.get("animstudio_report", [])
        for line in one["lines"]
    ]
    assert any(line.startswith("1 of 1 found") for line in lines)
    # The history's entry of the node itself is none of a step on the way.
    assert "until" not in result.outputs


def test_a_strangers_plan_is_refused(comfyui, faces):
    plan = {
        "request": {"characters": ["luca"], "engine": "dlib"},
        "recipe": "b" * 32, "lasting": True, "seed": 1, "wanted": 1, "limit": 1, "pass_best": False,
        "sampling": {"id": "x"}, "key": "", "state": "", "waiting": 1,
    }  # fmt: skip
    nodes = until(faces, "stranger")
    links = {name: nodes["until"]["inputs"][name] for name in ("model", "positive", "negative")}
    graph = {
        **{key: nodes[key] for key in ("ckpt", "positive", "latent", "pictures", "vae")},
        "one": node("LoadImage", image=faces[0]),
        "try": node(
            "AnimStudio_JudgeTry",
            images=["one", 0], latent=["latent", 0], vae=["vae", 0], **links,
        ),
        "save": node("SaveImage", images=["try", 0], filename_prefix="stranger"),
    }  # fmt: skip
    for text in (json.dumps(plan), f"{'0' * 64} {json.dumps(plan)}", "", "\udcff"):
        graph["text"] = node("PrimitiveString", value=text)
        graph["try"]["inputs"]["plan"] = ["text", 0]
        with pytest.raises(PromptFailedError, match="Until Consistent did not write this"):
            comfyui.run(graph)
    assert not (comfyui.user_dir / "animation_studio" / "judged" / ("b" * 32)).exists()


def test_a_list_of_latents_is_refused(comfyui, faces):
    prompt = until(faces, "list", batch=2)
    prompt["list"] = node("RebatchLatents", latents=["latent", 0], batch_size=1)
    prompt["until"]["inputs"]["latent"] = ["list", 0]
    before = decodes(comfyui)
    with pytest.raises(PromptFailedError, match="latent: 2 values came as a list"):
        comfyui.run(prompt)
    assert decodes(comfyui) == before


def test_seeds_that_could_not_be_read_are_judged_too(comfyui, faces):
    prompt = until(faces[:1], "nan", tries=2)
    prompt["nan"] = node("Test_OddPicture", kind="nan", images=["pictures", 0])
    prompt["vae"]["inputs"]["images"] = ["nan", 0]
    report = report_of(comfyui, comfyui.run(prompt))
    assert report["totals"]["unreadable"] == 2
    assert "NaN" in report["pictures"][0]["reason"]
    again = report_of(comfyui, comfyui.run(prompt))
    assert again["tries"]["judged_before"] == [100, 101]
    assert again["tries"]["seeds"] == [100, 101, 102, 103]


def test_a_changed_file_is_another_recipe(comfyui, faces):
    prompt = until(faces[1:], "files", tries=1)
    prompt["own"] = node("LoadImage", image=faces[0])
    prompt["latent"] = node("VAEEncode", pixels=["own", 0], vae=["ckpt", 2])
    first = report_of(comfyui, comfyui.run(prompt))
    assert first["tries"]["made"] == 1
    shutil.copyfile(comfyui.input_dir / faces[1], comfyui.input_dir / faces[0])
    second = report_of(comfyui, comfyui.run(prompt))
    assert second["tries"]["judged_before"] == []
    assert second["tries"]["made"] == 1


def test_after_a_restart_nothing_is_sampled_again(comfyui, faces, start_comfyui):
    prompt = bundled("luca_until_consistent")
    prompt["shown"] = node("Test_Pictures", names=" ".join(faces[1:]))
    prompt["vae"] = node("Test_FaceVAE", images=["shown", 0])
    prompt = changed(
        prompt, "AnimStudio_UntilConsistent", vae=["vae", 0], steps=1, tries=3, engine="dlib"
    )
    first = report_of(comfyui, comfyui.run(prompt))
    assert first["tries"]["made"] == 3

    other = start_comfyui(test_packs=True)
    shutil.copytree(comfyui.user_dir / "animation_studio", other.user_dir / "animation_studio")
    for name in faces:
        shutil.copyfile(comfyui.input_dir / name, other.input_dir / name)
    second = report_of(other, other.run(prompt))
    assert second["tries"]["judged_before"] == first["tries"]["seeds"]
    assert second["tries"]["made"] == decodes(other) == 3


def test_a_character_that_cannot_have_a_folder_is_nobodys_trouble(comfyui, faces):
    presets = comfyui.config_dir / "character_presets.yaml"
    before = presets.read_bytes()
    presets.write_bytes(before + b"\ncon: {character_name: Con, lora_name: luca}\n")
    try:
        report = report_of(comfyui, comfyui.run(until(faces, "odd id", tries=40)))
        assert report["totals"]["kept"] == 1
    finally:
        presets.write_bytes(before)
