"""What the loader does to a picture: weights, words, and which edits repeat which nodes."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.support.pictures import pixels, saved
from tests.support.prompts import bundled, changed, node_id, plain

LOADER = "AnimStudio_CharacterLoraLoader"
KINDS = ("character", "background", "style", "pose", "expression")
OFF = {f"{kind}_weight": 0.0 for kind in KINDS}


@pytest.fixture
def edit_config(comfyui):
    """Change an overlay file of the running server; put it back afterwards."""
    before = {}

    def edit(name, change):
        path = comfyui.config_dir / name
        before.setdefault(path, path.read_bytes() if path.exists() else None)
        data = yaml.safe_load(path.read_text()) if path.exists() else {}
        change(data)
        path.write_text(yaml.safe_dump(data, sort_keys=False))

    yield edit
    for path, data in before.items():
        path.unlink() if data is None else path.write_bytes(data)


def record_of(comfyui, result):
    return json.loads(saved(comfyui, result, "records")[0].read_text())


def picture_of(comfyui, prompt):
    return pixels(saved(comfyui, comfyui.run(prompt))[0])


def test_weight_zero_is_the_plain_checkpoint_exactly(comfyui):
    prompt = changed(bundled("luca_portorosso"), LOADER, **OFF)
    result = comfyui.run(prompt)
    record = record_of(comfyui, result)
    sampling = record["sampling"]
    core = plain(
        record["positive"],
        record["negative"],
        seed=record["samplers"][0]["seed"],
        cfg=sampling["cfg"],
        steps=sampling["steps"],
        size=sampling["width"],
    )
    ours, theirs = pixels(saved(comfyui, result)[0]), picture_of(comfyui, core)
    assert (ours == theirs).all()


def test_each_weight_changes_the_picture(comfyui):
    prompt = changed(bundled("luca_portorosso"), LOADER, **OFF)
    settings = ({}, {"character": 0.5}, {"character": 1.0}, {"background": 1.0}, {"style": 1.0})
    pictures = [
        picture_of(comfyui, changed(prompt, LOADER, **{f"{k}_weight": w for k, w in some.items()}))
        for some in settings
    ]
    for first in range(len(pictures)):
        for second in range(first):
            assert abs(pictures[first] - pictures[second]).mean() > 0.5, (first, second)


def test_auto_weight_is_the_configured_one(comfyui):
    prompt = bundled("luca_portorosso")
    auto = comfyui.run(prompt)
    weights = {e["kind"]: e["weight"] for e in record_of(comfyui, auto)["entries"]}
    assert weights == {"character": 0.85, "background": 0.6, "style": 0.7, "expression": 0.8}
    given = {f"{kind}_weight": weight for kind, weight in weights.items()}
    explicit = picture_of(comfyui, changed(prompt, LOADER, **given))
    assert (pixels(saved(comfyui, auto)[0]) == explicit).all()


def test_trigger_words_change_the_picture(comfyui, edit_config):
    prompt = changed(bundled("luca_character"), LOADER, **OFF)
    before = comfyui.run(prompt)
    new = {"name": "Luca", "trigger_words": ["luca", "boy with a red scarf"]}
    edit_config("lora_registry.yaml", lambda d: d.update(characters={"luca": new}))
    after = comfyui.run(prompt)
    assert "red scarf" not in record_of(comfyui, before)["positive"]
    assert "boy with a red scarf" in record_of(comfyui, after)["positive"].split(", ")
    first, second = (pixels(saved(comfyui, result)[0]) for result in (before, after))
    assert abs(first - second).mean() > 0.5


def test_an_edit_repeats_just_what_it_touches(comfyui, edit_config):
    prompt = bundled("luca_portorosso")
    checkpoint, loader = node_id(prompt, "CheckpointLoaderSimple"), node_id(prompt, LOADER)
    comfyui.run(prompt)
    assert loader in comfyui.run(prompt).cached

    giulia = {"name": "Giulia", "trigger_words": ["giulia", "red hair"]}
    edit_config("lora_registry.yaml", lambda d: d.update(characters={"giulia": giulia}))
    assert loader in comfyui.run(prompt).cached, "another character's edit must not repeat this one"

    style = {"name": "Pixar", "lora_path": "pixar_style.safetensors", "default_weight": 0.4}
    edit_config("lora_registry.yaml", lambda d: d.update(styles={"pixar_3d": style}))
    result = comfyui.run(prompt)
    assert loader not in result.cached
    assert checkpoint in result.cached
    assert {e["weight"] for e in record_of(comfyui, result)["entries"]} >= {0.4}


def test_a_new_character_is_offered_without_restart(comfyui, edit_config):
    def offered():
        info = comfyui.get_json(f"/object_info/{LOADER}")[LOADER]
        return info["input"]["required"]["character"][1]["options"]

    assert offered() == ["none", "luca", "alberto", "giulia"]
    entry = {"name": "Ciccio", "lora_path": "luca_character.safetensors"}
    edit_config("lora_registry.yaml", lambda d: d.update(characters={"ciccio": entry}))
    assert offered() == ["none", "luca", "alberto", "giulia", "ciccio"]
    edit_config("lora_registry.yaml", lambda d: d.update(characters={"alberto": None}))
    edit_config("character_presets.yaml", lambda d: d.update(alberto=None))
    assert offered() == ["none", "luca", "giulia"]
