"""The user's own files load as they stand, and so do the shipped ones."""

from pathlib import Path

import pytest

from animation_studio.registry import (
    ENTRY_KINDS,
    CannySettings,
    DepthSettings,
    OpenposeSettings,
    Registry,
    assemble_prompt,
    load_registry,
    resolve_scheduler,
    sampling_for,
)

USERS = Path(__file__).parent / "users_files"
SHIPPED = Path(__file__).parents[3] / "configs"


@pytest.fixture(scope="module")
def users() -> Registry:
    return load_registry([USERS])


@pytest.fixture(scope="module")
def shipped() -> Registry:
    return load_registry([SHIPPED])


def test_the_users_files_have_no_problem(users):
    assert [str(problem) for problem in users.problems] == []
    assert load_registry([SHIPPED, USERS]).problems == ()


def test_the_users_cast_has_the_users_values(users):
    assert users.names("character") == ["luca", "alberto", "giulia"]
    assert users.names("background") == ["portorosso"]
    assert users.names("style") == ["pixar_3d"]
    luca = users.character("luca")
    assert luca.name == "Luca Paguro"
    assert luca.weight == 0.85
    assert luca.entry.default_weight == 0.8
    assert luca.entry.lora_path == (
        "/mnt/c/AI_LLM_projects/3d-animation-lora-pipeline/outputs/loras/luca_character.safetensors"
    )
    assert luca.entry.trigger_words == ["luca", "boy", "brown hair", "green eyes"]
    assert luca.preset.negative_prompt == "2d, flat, anime, low quality, blurry, distorted"
    assert luca.preset.reference_embeddings == [
        ".../references/luca_face_1.npy",
        ".../references/luca_face_2.npy",
    ]
    assert luca.preset.generation_params.size == (1024, 1024)
    assert users.character("giulia").preset.consistency_threshold == 0.60
    assert users.character("alberto").entry.lora_path == ".../alberto_character.safetensors"
    assert users.entry("background", "portorosso").default_weight == 0.6


def test_the_users_quality_and_controls_have_the_users_values(users):
    figures = {key: (q.steps, q.cfg_scale) for key, q in users.quality.items()}
    assert figures == {"draft": (20, 7.0), "standard": (30, 7.5), "high": (40, 8.0)}
    assert users.defaults.size == (1024, 1024)
    assert users.defaults.scheduler == "DPMSolverMultistepScheduler"
    strengths = {key: control.default_strength for key, control in users.controls.items()}
    assert strengths == {"openpose": 1.0, "depth": 0.8, "canny": 0.7}
    assert users.control("openpose").model == "thibaud/controlnet-openpose-sdxl-1.0"
    assert users.control("depth").preprocessor == "depth_midas"
    assert users.preprocessors == {
        "openpose": OpenposeSettings(detect_hands=True, detect_face=True),
        "depth": DepthSettings(model_type="DPT_Large"),
        "canny": CannySettings(low_threshold=100, high_threshold=200),
    }


def test_the_shipped_files_have_no_problem_and_every_kind_has_an_entry(shipped):
    assert [str(problem) for problem in shipped.problems] == []
    assert all(shipped.names(kind) for kind in ENTRY_KINDS)


def test_ultra_takes_more_steps_than_high(shipped):
    steps = [shipped.quality_preset(k).steps for k in ("draft", "standard", "high", "ultra")]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("layers", [[USERS], [SHIPPED], [SHIPPED, USERS]])
def test_every_character_can_be_sampled_and_prompted(layers):
    registry = load_registry(layers)
    for key in registry.names("character"):
        character = registry.character(key)
        values = sampling_for(registry, character=character)
        assert (values.sampler, values.scheduler) == resolve_scheduler(registry.defaults.scheduler)
        prompt = assemble_prompt(
            base=character.preset.base_prompt, character_words=character.entry.trigger_words
        )
        assert set(character.entry.trigger_words) <= set(prompt.split(", "))


def test_the_users_layer_replaces_paths_and_keeps_the_shipped_rest():
    registry = load_registry([SHIPPED, USERS])
    assert registry.character("giulia").entry.lora_path == ".../giulia_character.safetensors"
    assert registry.quality_preset("ultra").steps == 50
    assert "running" in registry.names("pose")
