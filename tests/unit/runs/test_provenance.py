"""What a prompt says about the picture that came out of it."""

from __future__ import annotations

from animation_studio.runs.provenance import PromptGraph
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
    known = {("AnimStudio_QualityPreset", 0): 40}
    assert PromptGraph(PROMPT, "5", known).samplers()[0]["steps"] == 40


def test_a_loop_or_a_missing_node_ends_the_walk():
    loop = {"1": {"class_type": "A", "inputs": {"x": ["2", 0]}}}
    loop["2"] = {"class_type": "B", "inputs": {"x": ["1", 0], "y": ["9", 0]}}
    assert [node.key for node in PromptGraph(loop, "1").nodes] == ["1", "2", "9"]
    assert PromptGraph({}, "5").samplers() == []


def test_a_list_widget_is_no_link():
    prompt = {"1": {"class_type": "A", "inputs": {"seed": 3, "cfg": [1.5, 2.5], "denoise": [1]}}}
    [sampler] = PromptGraph(prompt, "1").samplers()
    assert sampler["cfg"] == [1.5, 2.5]


def test_bundled_pose_scene_names_its_control_and_pose():
    prompt = bundled("luca_pose_scene")
    graph = PromptGraph(prompt, node_id(prompt, "AnimStudio_SaveTake"))
    [control] = graph.of_class("AnimStudio_Control")
    assert control["control"] == "openpose"
    assert control["image_is_map"] is True
    assert "positive" not in control
    assert graph.of_class("AnimStudio_Pose")[0]["pose"] == "running"
