"""Names of schedulers become pairs that the real ComfyUI has."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from animation_studio.errors import ConfigError
from animation_studio.registry import (
    OWN,
    SamplerPair,
    SamplerVocabulary,
    resolve_scheduler,
    sampling_for,
)
from animation_studio.registry.samplers import known_scheduler_names


@pytest.fixture(scope="module")
def vocabulary(comfyui_root: Path) -> SamplerVocabulary:
    """What the checkout's comfy/samplers.py lists, read without running it."""
    tree = ast.parse((comfyui_root / "comfy" / "samplers.py").read_text())
    values = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    samplers, handlers = values["SAMPLER_NAMES"], values["SCHEDULER_HANDLERS"]
    assert isinstance(samplers, ast.BinOp)
    assert isinstance(handlers, ast.Dict)
    names = ast.literal_eval(values["KSAMPLER_NAMES"]) + ast.literal_eval(samplers.right)
    return SamplerVocabulary(names, [ast.literal_eval(key) for key in handlers.keys if key])


@pytest.mark.parametrize("name", known_scheduler_names())
def test_every_known_name_is_a_pair_that_comfyui_has(vocabulary, name):
    pair = resolve_scheduler(name, vocabulary)
    assert pair.sampler in vocabulary.samplers
    assert pair.scheduler in vocabulary.schedulers
    assert resolve_scheduler(f" {name.upper()} ") == pair


def test_the_names_of_the_brief():
    assert resolve_scheduler("DPMSolverMultistepScheduler") == ("dpmpp_2m", "normal")
    assert resolve_scheduler("DPM++ 2M") == ("dpmpp_2m", "normal")
    assert resolve_scheduler("Euler") == resolve_scheduler("EulerDiscreteScheduler")
    assert resolve_scheduler("DDIM") == ("ddim", "ddim_uniform")


def test_every_name_of_diffusers_exists_there(dev_diffusers_schedulers):
    ours = {name for name in known_scheduler_names() if name.endswith("Scheduler")}
    assert ours <= dev_diffusers_schedulers


@pytest.fixture(scope="module")
def dev_diffusers_schedulers() -> set[str]:
    """The scheduler classes that the installed diffusers exports, from its source."""
    from importlib.util import find_spec

    spec = find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.endswith("Scheduler")
    }


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("euler", ("euler", "normal")),
        ("dpmpp_2m/karras", ("dpmpp_2m", "karras")),
        (" dpmpp_2m / karras ", ("dpmpp_2m", "karras")),
        ("res_multistep/", ("res_multistep", "normal")),
    ],
)
def test_comfyuis_own_names_are_taken_with_and_without_its_lists(vocabulary, name, pair):
    assert resolve_scheduler(name, vocabulary) == pair
    assert resolve_scheduler(name) == pair


def test_a_sampler_alone_needs_comfyuis_list(vocabulary):
    assert resolve_scheduler("dpmpp_3m_sde", vocabulary) == ("dpmpp_3m_sde", "normal")
    with pytest.raises(ConfigError, match="dpmpp_2m/karras"):
        resolve_scheduler("dpmpp_3m_sde")


@pytest.mark.parametrize("name", ["", "/", "/karras", "dpmpp_2m/karas", "PNDMScheduler", "a/b/c"])
def test_an_unknown_name_lists_the_known(vocabulary, name):
    with pytest.raises(ConfigError, match="DPMSolverMultistepScheduler") as error:
        resolve_scheduler(name, vocabulary)
    assert "sgm_uniform" in str(error.value)


def test_a_known_name_that_this_comfyui_lacks_says_so():
    old = SamplerVocabulary(["euler"], ["normal"])
    with pytest.raises(ConfigError, match="dpmpp_2m/karras in ComfyUI"):
        resolve_scheduler("DPM++ 2M Karras", old)


QUALITY = """
generation:
  quality_presets:
    standard: {steps: 30, cfg_scale: 7.5}
    tall: {steps: 4, cfg_scale: 0.0, size: [832, 1216], scheduler: LCM}
  default_size: [768, 512]
  scheduler: Euler a
"""
CAST = "characters: {luca: {name: L}, giulia: {name: G}}"
PRESETS = """
luca: {generation_params: {steps: 35, cfg_scale: 0.0, size: [640, 640], scheduler: DDIM}}
giulia: {generation_params: {cfg_scale: 6.0}}
"""


@pytest.fixture
def registry(load):
    return load(lora_registry=CAST, character_presets=PRESETS, sdxl_config=QUALITY)


def figures(values):
    return (*values.model_dump(exclude={"source"}).values(),)


def test_a_characters_own_values_are_all_taken(registry):
    values = sampling_for(registry, character=registry.character("luca"))
    assert figures(values) == (35, 0.0, "ddim", "ddim_uniform", 640, 640)
    assert values.source == OWN


def test_the_gaps_come_from_standard_and_the_defaults(registry):
    values = sampling_for(registry, character=registry.character("giulia"))
    assert figures(values) == (30, 6.0, "euler_ancestral", "normal", 768, 512)
    assert figures(sampling_for(registry)) == (30, 7.5, "euler_ancestral", "normal", 768, 512)


def test_a_quality_preset_keeps_the_characters_size_and_scheduler(registry):
    own = sampling_for(registry, character=registry.character("luca"))
    values = sampling_for(registry, quality="standard", own=own)
    assert figures(values) == (30, 7.5, "ddim", "ddim_uniform", 640, 640)
    assert values.source == "standard"


def test_a_quality_preset_with_size_and_scheduler_of_its_own_says_them(registry):
    own = sampling_for(registry, character=registry.character("luca"))
    values = sampling_for(registry, quality="tall", own=own)
    assert figures(values) == (4, 0.0, "lcm", "sgm_uniform", 832, 1216)


def test_an_unknown_quality_preset_and_a_scheduler_that_is_not_there(registry):
    with pytest.raises(ConfigError, match=r"quality preset 'standart'.*Did you mean 'standard'"):
        sampling_for(registry, quality="standart")
    with pytest.raises(ConfigError, match="does not have it"):
        sampling_for(registry, quality="tall", vocabulary=SamplerVocabulary(["euler"], ["normal"]))


def test_a_pair_is_a_plain_tuple_of_names():
    assert SamplerPair("euler", "normal") == ("euler", "normal")
