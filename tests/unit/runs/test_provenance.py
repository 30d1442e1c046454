"""What a prompt says about the picture that came out of it."""

from __future__ import annotations

from animation_studio.runs.provenance import PromptGraph, linked_node
from tests.support.prompts import bundled, node_id

PROMPT = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "2": {"class_type": "PrimitiveInt", "inputs": {"value": 77}},
    "3": {"class_type": "AnimStudio_QualityPreset", "inputs": {"preset": "high"}},
    "4": {
        "class_type": "KSampler",
        "inputs": {"model": ["1", 0], "seed": ["2", 0], "steps": ["3", 0], "cfg": 5.5},
    },
    "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0]}},
    "6": {"class_type": "KSampler", "inputs": {"seed": 1}},
}


def test_only_what_stands_upstream_counts():
    graph = PromptGraph(PROMPT, "5")
    assert [node.key for node in graph.nodes] == ["5", "4", "1", "2", "3"]
    assert graph.models() == [
        {"node": "1", "class": "CheckpointLoaderSimple", "ckpt_name": "a.safetensors"}
    ]


def test_linked_values_are_followed_or_named():
    [sampler] = PromptGraph(PROMPT, "5").samplers()
    assert sampler == {
        "node": "4",
        "class": "KSampler",
        "seed": 77,
        "steps": "3.0 (AnimStudio_QualityPreset)",
        "cfg": 5.5,
    }
    known = {("3", 0): 40}
    assert PromptGraph(PROMPT, "5", known).samplers()[0]["steps"] == 40


def test_a_loop_or_a_missing_node_ends_the_walk():
    loop = {"1": {"class_type": "A", "inputs": {"x": ["2", 0]}}}
    loop["2"] = {"class_type": "B", "inputs": {"x": ["1", 0], "y": ["9", 0]}}
    assert [node.key for node in PromptGraph(loop, "1").nodes] == ["1", "2", "9"]
    assert PromptGraph({}, "5").samplers() == []


def test_a_list_widget_is_no_link():
    inputs = {"seed": 3, "cfg": [1.5, 2.5], "denoise": [1], "size": [512, 512], "x": ["1", True]}
    prompt = {"1": {"class_type": "A", "inputs": inputs}, "512": {"class_type": "B", "inputs": {}}}
    graph = PromptGraph(prompt, "1")
    assert graph.samplers()[0]["cfg"] == [1.5, 2.5]
    assert [node.key for node in graph.nodes] == ["1"]


def test_two_quality_presets_are_told_apart():
    prompt = {
        "1": {"class_type": "AnimStudio_QualityPreset", "inputs": {"preset": "draft"}},
        "2": {"class_type": "AnimStudio_QualityPreset", "inputs": {"preset": "high"}},
        "3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": ["1", 0]}},
        "4": {"class_type": "KSampler", "inputs": {"seed": 2, "steps": ["2", 0], "x": ["3", 0]}},
        "5": {"class_type": "S", "inputs": {"images": ["4", 0], "sampling": ["2", 6]}},
    }
    assert linked_node(prompt, "5", "sampling").key == "2"
    assert linked_node(prompt, "5", "look") is None
    steps = {s["node"]: s["steps"] for s in PromptGraph(prompt, "5", {("2", 0): 40}).samplers()}
    assert steps == {"4": 40, "3": "1.0 (AnimStudio_QualityPreset)"}


def test_the_parts_of_a_custom_sampler_are_all_named():
    prompt = {
        "1": {"class_type": "RandomNoise", "inputs": {"noise_seed": 9}},
        "2": {"class_type": "BasicScheduler", "inputs": {"steps": 12, "scheduler": "beta"}},
        "3": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "4": {"class_type": "S", "inputs": {"n": ["1", 0], "s": ["2", 0], "k": ["3", 0]}},
    }
    values = {}
    for sampler in PromptGraph(prompt, "4").samplers():
        values |= {k: v for k, v in sampler.items() if k not in ("node", "class")}
    assert values == {"seed": 9, "steps": 12, "scheduler": "beta", "sampler_name": "euler"}


def test_bundled_pose_scene_names_its_control_and_pose():
    prompt = bundled("luca_pose_scene")
    graph = PromptGraph(prompt, node_id(prompt, "AnimStudio_SaveTake"))
    [control] = graph.of_class("AnimStudio_Control")
    assert control["control"] == "openpose"
    assert control["image_is_map"] is True
    assert "positive" not in control
    assert graph.of_class("AnimStudio_Pose")[0]["pose"] == "running"
