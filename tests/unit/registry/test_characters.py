"""A character is a registry entry and its preset, in whichever of the two files it stands."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animation_studio.errors import ConfigError
from animation_studio.registry import (
    AUTO_WEIGHT,
    NONE,
    CharacterPreset,
    LookRequest,
    RegistryEntry,
    content_hash,
    load_registry,
    look_prompts,
    resolve_choices,
)

ENTRIES = """
characters:
  luca: {name: Luca, trigger_words: [luca], default_weight: 0.5}
  alberto: {name: Alberto}
  broken: {name: 1}
"""


def test_the_joins(load):
    registry = load(
        lora_registry=ENTRIES,
        character_presets="""
luca: {character_name: Luca Paguro, lora_weight: 0.25}
luca_sea: {lora_name: luca, base_prompt: sea monster}
ghost: {lora_name: nobody}
broken: {base_prompt: fine}
stand_in: {lora_name: broken}
""",
    )
    assert registry.names("character") == ["luca", "alberto", "luca_sea"]
    luca, alberto, sea = map(registry.character, registry.names("character"))
    assert (luca.name, luca.weight) == ("Luca Paguro", 0.25)
    assert (sea.id, sea.name, sea.weight) == ("luca_sea", "Luca", 0.5)
    assert sea.entry is luca.entry
    assert alberto.preset == CharacterPreset()
    with pytest.raises(
        ConfigError, match=r"presets.yaml:4: ghost.lora_name: no character 'nobody'"
    ):
        registry.character("ghost")
    for key in ("broken", "stand_in"):
        with pytest.raises(ConfigError, match=r"registry.yaml:5: characters.broken.name: is 1"):
            registry.character(key)
    assert [problem.key for problem in registry.problems] == [
        "characters.broken.name",
        "ghost.lora_name",
    ]


def test_a_broken_entry_does_not_matter_to_a_preset_that_names_another(load):
    registry = load(lora_registry=ENTRIES, character_presets="broken: {lora_name: luca}")
    assert registry.character("broken").entry.name == "Luca"


def test_a_broken_preset_does_not_fall_back_to_the_bare_entry(load):
    registry = load(lora_registry=ENTRIES, character_presets="luca: {lora_weight: 100}")
    assert "luca" not in registry.names("character")
    with pytest.raises(ConfigError, match=r"luca\.lora_weight: is 100"):
        registry.character("luca")


def test_choices_take_their_weights_from_node_preset_and_entry(load):
    registry = load(
        lora_registry=ENTRIES + "styles: {pixar: {name: P, default_weight: 0.7}}",
        character_presets="""
luca: {lora_weight: 0.25, base_prompt: "luca, boy", negative_prompt: "2d"}
""",
    )
    request = LookRequest({"style": "pixar", "character": "luca", "pose": NONE}, {"style": 0.0})
    luca, pixar = resolve_choices(registry, request)
    assert (luca.kind, luca.weight, pixar.kind, pixar.weight) == ("character", 0.25, "style", 0.0)
    auto = LookRequest({"character": "alberto"}, {"character": AUTO_WEIGHT})
    assert resolve_choices(registry, auto)[0].weight == 0.8
    prompts = look_prompts([luca, pixar], "on the beach, LUCA", "2D, blurry")
    assert prompts.positive == "luca, boy, on the beach"
    assert prompts.negative == "2d, blurry"


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 10.5, -11.0])
def test_a_weight_that_is_none_is_refused_by_name(load, weight):
    request = LookRequest({"character": "luca"}, {"character": weight})
    with pytest.raises(ConfigError, match="character_weight is"):
        resolve_choices(load(lora_registry=ENTRIES), request)


NAMES = st.text(alphabet="ab\n'\"\\é", max_size=6)
WEIGHTS = st.floats(-10, 10, allow_nan=False)
ENTRY = st.fixed_dictionaries(
    {"name": NAMES},
    optional={
        "lora_path": st.sampled_from(["a.safetensors", "b.safetensors"]),
        "default_weight": st.sampled_from([0.5, 0.8, 1.0]),
        "trigger_words": st.lists(NAMES, max_size=3),
        "description": NAMES,
    },
)


@given(ENTRY, ENTRY)
def test_the_hash_differs_exactly_when_the_entry_does(one, other):
    first, second = RegistryEntry.model_validate(one), RegistryEntry.model_validate(other)
    assert (content_hash(first) == content_hash(second)) == (first == second)


@given(st.lists(st.one_of(st.none(), NAMES, WEIGHTS), max_size=3))
def test_the_hash_keeps_its_parts_apart(parts):
    assert content_hash(*parts) != content_hash(*parts, "")
    assert content_hash(*parts) != content_hash(None, *parts)


@given(ENTRY, st.integers(-1000, 1000).map(lambda hundredths: hundredths / 100))
def test_what_yaml_brings_in_is_what_was_written(tmp_path_factory, entry, weight):
    folder = tmp_path_factory.mktemp("user")
    written = {**entry, "default_weight": weight}
    # JSON is YAML, and no text of the entry can break out of its quotes.
    (folder / "lora_registry.yaml").write_text(json.dumps({"styles": {"x": written}}))
    registry = load_registry([folder])
    assert registry.problems == ()
    assert registry.entry("style", "x") == RegistryEntry.model_validate(written)


def test_the_hash_of_a_character_follows_entry_and_preset_and_not_the_file(load):
    text = "luca: {lora_weight: 0.3}"
    one = load(lora_registry=ENTRIES, character_presets=text).character("luca").content_hash
    comment = load(lora_registry="# x\n" + ENTRIES, character_presets=text + "\nalberto: {}")
    assert comment.character("luca").content_hash == one
    preset = load(lora_registry=ENTRIES, character_presets="luca: {lora_weight: 0.4}")
    assert preset.character("luca").content_hash != one
    entry = load(lora_registry=ENTRIES.replace("[luca]", "[boy]"), character_presets=text)
    assert entry.character("luca").content_hash != one
