"""Bad input gets one clear message on the node at fault, and ComfyUI goes on."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import save_file

from animation_studio.errors import PromptFailedError, PromptRejectedError, RunError
from tests.support.pictures import saved
from tests.support.prompts import bundled, changed, node_id

LOADER = "AnimStudio_CharacterLoraLoader"
CONTROL = "AnimStudio_Control"


@pytest.fixture
def overlay(comfyui):
    """Write one overlay file of the running server; put it back afterwards."""
    before = {}

    def write(name, text):
        path = comfyui.config_dir / name
        before.setdefault(path, path.read_bytes() if path.exists() else None)
        path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
        return path

    yield write
    for path, data in before.items():
        path.unlink() if data is None else path.write_bytes(data)


POSE = {"width": 64, "height": 64, "mirror": False, "scale": 1.0, "x": 0.0, "y": 0.0}
# A run without a checkpoint: seconds less, and a stuck or fallen ComfyUI shows in it as well.
QUICK = {
    "1": {"class_type": "AnimStudio_Pose", "inputs": {**POSE, "pose": "standing"}},
    "2": {
        "class_type": "AnimStudio_SaveTake",
        "inputs": {"images": ["1", 0], "filename_prefix": "after"},
    },
}


@pytest.fixture
def healthy(comfyui):
    """After the test the next run works and nothing half-written remains."""
    yield
    assert saved(comfyui, comfyui.run(QUICK))
    assert not list(comfyui.output_dir.rglob("*.part"))
    assert comfyui.process.poll() is None


def with_lora(overlay, path):
    entry = {"name": "Broken", "lora_path": str(path)}
    overlay("lora_registry.yaml", {"styles": {"broken": entry}})
    return changed(bundled("luca_character"), LOADER, style="broken")


def refused(comfyui, prompt, node_class=LOADER):
    """Run `prompt`, which must be refused, and return the message; it names the node at fault."""
    with pytest.raises(RunError) as caught:
        comfyui.run(prompt)
    message = str(caught.value)
    assert isinstance(caught.value, (PromptFailedError, PromptRejectedError))
    assert node_id(prompt, node_class) in message or node_class in message
    assert "Traceback" not in message
    return message


def kohya(width, rank=2):
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    down = np.ones((rank, width), np.float32)
    return {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": np.ones((640, rank), np.float32),
        f"{name}.alpha": np.array(1.0, np.float32),
    }


def bad_lora(kind, folder):
    """Write one bad LoRA; return its path and the words that its message must hold."""
    path = folder / "bad_lora.safetensors"
    if kind == "missing":
        return path, ["bad_lora.safetensors", "lora_path"]
    if kind == "truncated":
        save_file(kohya(2048), path)
        path.write_bytes(path.read_bytes()[:-100])
        return path, ["bad_lora.safetensors"]
    if kind == "not safetensors":
        path.write_bytes(b"PK\x03\x04 this is a zip, as old checkpoints are" * 20)
        return path, ["bad_lora.safetensors", "safetensors"]
    if kind == "header too long":
        path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
        return path, ["bad_lora.safetensors"]
    if kind == "another base":
        save_file(kohya(768), path)
        return path, ["bad_lora.safetensors", "SD 1.5", "SDXL"]
    if kind == "nothing matches":
        save_file({"something.else": np.ones((2, 2), np.float32)}, path)
        return path, ["bad_lora.safetensors"]
    assert kind == "unsupported PEFT"
    peft = folder / "peft_lora"
    peft.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "modules_to_save": ["conv_in"]}
    (peft / "adapter_config.json").write_text(json.dumps(config))
    module = "base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    weights = {
        f"{module}.lora_A.weight": np.ones((2, 640), np.float32),
        f"{module}.lora_B.weight": np.ones((640, 2), np.float32),
    }
    save_file(weights, peft / "adapter_model.safetensors")
    return peft, ["peft_lora", "modules_to_save"]


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "truncated",
        "not safetensors",
        "header too long",
        "another base",
        "nothing matches",
        "unsupported PEFT",
    ],
)
def test_bad_lora(comfyui, overlay, healthy, tmp_path, kind):
    path, words = bad_lora(kind, tmp_path)
    message = refused(comfyui, with_lora(overlay, path))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("styles:\n\tbroken: {name: x}\n", ["lora_registry.yaml:2", "tab"]),
        (
            "styles:\n  broken: {name: x}\n  broken: {name: y}\n",
            ["lora_registry.yaml:3", "twice"],
        ),
        (
            "styles:\n  broken:\n    name: x\n    default_weight: heavy\n",
            ["lora_registry.yaml:4", "default_weight", "'heavy'", "number"],
        ),
        ("styles:\n  brocken: {name: x}\n", ["'broken'", "brocken"]),
    ],
    ids=["tab", "duplicate key", "wrong type", "unknown entry"],
)
def test_bad_registry(comfyui, overlay, healthy, text, words):
    overlay("lora_registry.yaml", text)
    message = refused(comfyui, changed(bundled("luca_character"), LOADER, style="broken"))
    for word in words:
        assert word in message
    problems = comfyui.get_json("/animation_studio/problems")["problems"]
    assert bool(problems) == ("brocken" not in text), "an unknown entry is no fault of the file"


def test_unknown_character_of_a_strangers_workflow(comfyui, healthy):
    prompt = changed(bundled("luca_character"), LOADER, character="lucca")
    message = refused(comfyui, prompt)
    assert "'lucca'" in message
    assert "Did you mean 'luca'?" in message
    assert message.count("Did you mean") == 1


@pytest.mark.parametrize("weight", [math.nan, math.inf, 1000.0])
def test_weight_that_is_none(comfyui, healthy, weight):
    prompt = changed(bundled("luca_character"), LOADER, character_weight=weight)
    assert "character_weight" in refused(comfyui, prompt)


@pytest.mark.parametrize("is_map", [True, False])
def test_picture_of_one_pixel(comfyui, healthy, is_map):
    Image.new("RGB", (1, 1), "red").save(comfyui.input_dir / "one_pixel.png")
    prompt = changed(bundled("luca_depth"), "LoadImage", image="one_pixel.png")
    prompt = changed(prompt, CONTROL, control="canny", image_is_map=is_map)
    assert "1x1" in refused(comfyui, prompt, CONTROL)


def test_depth_without_its_weights_says_what_to_fetch(comfyui, healthy):
    message = refused(comfyui, bundled("luca_depth"), CONTROL)
    assert "controlnet_aux" in message or "annotators" in message


@pytest.mark.parametrize("prefix", ["../escape", "/tmp/escape", "a/../../escape"])
def test_prefix_outside_the_output_folder(comfyui, healthy, prefix):
    prompt = changed(bundled("luca_character"), "AnimStudio_SaveTake", filename_prefix=prefix)
    assert "output folder" in refused(comfyui, prompt, "AnimStudio_SaveTake")
    assert not list(comfyui.output_dir.parent.glob("escape*"))


def test_after_a_bad_lora_the_good_one_runs(comfyui, overlay, tmp_path):
    path, _ = bad_lora("truncated", tmp_path)
    refused(comfyui, with_lora(overlay, path))
    assert saved(comfyui, comfyui.run(bundled("luca_character")))


@pytest.mark.parametrize("name", ["../evil", "Evil", "", "a" * 200, "x/y"])
def test_pose_names_stay_in_their_folder(comfyui, healthy, name):
    prompt = {
        "1": {"class_type": "AnimStudio_Pose", "inputs": {**POSE, "pose": "standing"}},
        "2": {
            "class_type": "AnimStudio_SavePose",
            "inputs": {"keypoints": ["1", 1], "name": name, "replace": False},
        },
    }
    refused(comfyui, prompt, "AnimStudio_SavePose")
    assert "pose" in refused(
        comfyui,
        changed(bundled("luca_pose_scene"), "AnimStudio_Pose", pose=name),
        "AnimStudio_Pose",
    )


def test_a_saved_pose_is_offered_and_drawn(comfyui):
    prompt = {
        "1": {"class_type": "AnimStudio_Pose", "inputs": {**POSE, "pose": "jumping"}},
        "2": {
            "class_type": "AnimStudio_SavePose",
            "inputs": {"keypoints": ["1", 1], "name": "my_jump", "replace": True},
        },
    }
    comfyui.run(prompt)
    assert (comfyui.user_dir / "animation_studio" / "poses" / "my_jump.json").is_file()
    info = comfyui.get_json("/object_info/AnimStudio_Pose")["AnimStudio_Pose"]
    assert "my_jump" in info["input"]["required"]["pose"][1]["options"]
    assert saved(
        comfyui, comfyui.run(changed(bundled("luca_pose_scene"), "AnimStudio_Pose", pose="my_jump"))
    )
    prompt["2"]["inputs"]["replace"] = False
    assert "my_jump" in refused(comfyui, prompt, "AnimStudio_SavePose")
