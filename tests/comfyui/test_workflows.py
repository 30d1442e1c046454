"""Every bundled workflow runs over HTTP to a saved picture with its record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.face_graphs import node, noise, put, report_of
from tests.support.pictures import metadata, pixels, saved
from tests.support.prompts import CHECKPOINT, NAMES, bundled, changed, node_id, page_form

# These judge what they make; the others save one picture.
JUDGING = {"luca_consistency_batch", "luca_until_consistent"}
# These need a language model: test_llm.py has one, and tests/services a real one.
SENTENCES = {"sentence_to_picture", "sentence_to_accepted_picture"}
FIVE = {"luca_character", "luca_depth", "luca_multi_control", "luca_portorosso", "luca_pose_scene"}


def ready(name):
    """The bundled prompt; depth's reference picture stands in for a ready map."""
    prompt = bundled(name)
    if "depth" in name:
        return changed(prompt, "AnimStudio_Control", image_is_map=True)
    return prompt


def test_they_are_there():
    assert set(NAMES) >= FIVE | JUDGING | SENTENCES


@pytest.mark.parametrize("name", sorted(set(NAMES) - JUDGING - SENTENCES))
def test_runs_to_a_picture_and_its_record(comfyui, name):
    prompt = ready(name)
    result = comfyui.run(prompt, page_form(name))
    [picture], [record_file] = saved(comfyui, result), saved(comfyui, result, "records")

    assert pixels(picture).std() > 5, "a flat picture: sampling or decoding failed"
    texts = metadata(picture)
    for one in texts["prompt"].values():
        one.pop("is_changed", None)  # ComfyUI's own mark
    assert texts["prompt"] == prompt
    assert texts["workflow"]["nodes"] == page_form(name)["nodes"]
    record = json.loads(record_file.read_text())
    assert texts["animation_studio"] == record
    assert record_file.with_suffix(".png") == picture
    assert record["file"] == picture.name
    assert not list(picture.parent.glob("*.part"))

    seed = prompt[node_id(prompt, "KSampler")]["inputs"]["seed"]
    [sampler] = record["samplers"]
    assert sampler["seed"] == seed
    assert sampler["steps"] == record["sampling"]["steps"]
    assert sampler["sampler_name"] == "dpmpp_2m"
    assert record["models"][0]["ckpt_name"] == CHECKPOINT
    assert record["character"] == "luca"
    for entry in record["entries"]:
        assert bool(entry["sha256"]) == bool(entry["lora_path"])
    assert set(record["versions"]) == {"animation_studio", "comfyui", "torch", "python"}
    controls = [n for n in prompt.values() if n["class_type"] == "AnimStudio_Control"]
    assert len(record["controls"]) == len(controls)


def test_pose_scene_is_the_sentence(comfyui):
    result = comfyui.run(ready("luca_pose_scene"))
    record = json.loads(saved(comfyui, result, "records")[0].read_text())
    assert [e["id"] for e in record["entries"]] == [
        "luca", "portorosso", "pixar_3d", "running", "excited",
    ]  # fmt: skip
    for word in ("luca", "running", "portorosso", "excited expression", "pixar style"):
        assert record["positive"].split(", ").count(word) == 1
    assert record["poses"][0]["pose"] == "running"


def test_each_control_changes_the_picture(comfyui):
    prompt = ready("luca_multi_control")
    pictures = []
    for off in ((), (0,), (1,), (0, 1)):
        variant = prompt
        for nth in off:
            variant = changed(variant, "AnimStudio_Control", nth, strength=0.0)
        pictures.append(pixels(saved(comfyui, comfyui.run(variant))[0]))
    for first in range(4):
        for second in range(first):
            assert abs(pictures[first] - pictures[second]).mean() > 0.5, (first, second)


@pytest.fixture
def luca(comfyui, face_pictures):
    """References of luca, and the names of pictures that a stand-in VAE may show."""
    names = [put(comfyui, face_pictures, f"ref_{e}", "astronaut/1", e) for e in ("jpeg", "crop")]
    graph = {
        "pictures": node("Test_Pictures", names=" ".join(names)),
        "refs": node(
            "AnimStudio_FaceReferences",
            images=["pictures", 0], character="luca", which_face="largest", save=True,
            engine="auto",
        ),
    }  # fmt: skip
    comfyui.run(graph)
    yield [*names, put(comfyui, face_pictures, "somebody", "t1/3"), noise(comfyui)]
    shutil.rmtree(comfyui.user_dir / "animation_studio")


def of_class(prompt, result, class_type, kind):
    """Files of one kind by the prefix of the node that saved them."""
    return {
        prompt[key]["inputs"]["filename_prefix"].rsplit("/", 1)[-1]: [
            Path(comfyui_file["subfolder"], comfyui_file["filename"])
            for comfyui_file in result.outputs.get(key, {}).get(kind, [])
        ]
        for key in prompt
        if prompt[key]["class_type"] == class_type
    }


@pytest.mark.parametrize("name", sorted(JUDGING))
def test_noise_is_nobody_and_the_run_ends_well(comfyui, luca, name):
    prompt = bundled(name)
    result = comfyui.run(prompt, page_form(name))
    report = report_of(comfyui, result)
    assert report["totals"]["no_face"] == report["totals"]["pictures"] == 8
    takes = of_class(prompt, result, "AnimStudio_SaveTake", "images")
    assert takes["kept"] == []
    if name == "luca_consistency_batch":
        assert len(takes["rejected"]) == 8
        for file in takes["rejected"]:
            record = json.loads((comfyui.output_dir / file).with_suffix(".json").read_text())
            assert record["consistency"]["reason"] == report["pictures"][0]["reason"]
    else:
        assert report["tries"]["made"] == 8


def test_the_batch_keeps_the_character(comfyui, luca):
    prompt = bundled("luca_consistency_batch")
    prompt["shown"] = node("Test_Pictures", names=" ".join(luca))
    prompt["vae"] = node("Test_FaceVAE", images=["shown", 0])
    prompt = changed(prompt, "KSampler", steps=1)  # what it samples is not shown
    result = comfyui.run(changed(prompt, "VAEDecode", vae=["vae", 0]))
    report = report_of(comfyui, result)
    takes = of_class(prompt, result, "AnimStudio_SaveTake", "images")
    kept = [one for one in report["pictures"] if one["keep"]]
    assert 0 < len(kept) < 8, "seed 20260821 shows both"
    assert len(takes["kept"]) == len(kept)
    assert len(takes["rejected"]) == 8 - len(kept)
    assert min(one["score"] for one in kept) >= report["subjects"][0]["threshold"]


def test_until_finds_two(comfyui, luca):
    prompt = bundled("luca_until_consistent")
    prompt["shown"] = node("Test_Pictures", names=" ".join(luca))
    prompt["vae"] = node("Test_FaceVAE", images=["shown", 0])
    prompt = changed(prompt, "AnimStudio_UntilConsistent", steps=1)  # as above
    result = comfyui.run(changed(prompt, "AnimStudio_UntilConsistent", vae=["vae", 0]))
    report = report_of(comfyui, result)
    takes = of_class(prompt, result, "AnimStudio_SaveTake", "images")
    assert len(takes["kept"]) == report["totals"]["kept"] == 2
    assert report["tries"]["made"] == len(report["tries"]["seeds"]) <= 8
