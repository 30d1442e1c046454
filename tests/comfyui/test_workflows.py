"""Every bundled workflow runs over HTTP to a saved picture with its record."""

from __future__ import annotations

import json

import pytest

from tests.support.pictures import metadata, pixels, saved
from tests.support.prompts import CHECKPOINT, NAMES, bundled, changed, node_id, page_form

FIVE = {"luca_character", "luca_depth", "luca_multi_control", "luca_portorosso", "luca_pose_scene"}


def ready(name):
    """The bundled prompt; depth's reference picture stands in for a ready map."""
    prompt = bundled(name)
    if "depth" in name:
        return changed(prompt, "AnimStudio_Control", image_is_map=True)
    return prompt


def test_the_five_are_there():
    assert set(NAMES) >= FIVE


@pytest.mark.parametrize("name", NAMES)
def test_runs_to_a_picture_and_its_record(comfyui, name):
    prompt = ready(name)
    result = comfyui.run(prompt, page_form(name))
    [picture], [record_file] = saved(comfyui, result), saved(comfyui, result, "records")

    assert pixels(picture).std() > 5, "a flat picture: sampling or decoding failed"
    texts = metadata(picture)
    for node in texts["prompt"].values():
        node.pop("is_changed", None)  # ComfyUI's own mark
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
