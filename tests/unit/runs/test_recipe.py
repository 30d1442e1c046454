"""A recipe is everything that makes a picture, and nothing else."""

from __future__ import annotations

import copy
import math

from animation_studio.runs.provenance import recipe_of

PROMPT = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "luca"}},
    "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}},
}
VALUES = {"model": ["1", 0], "positive": ["2", 0], "latent": ["3", 0], "steps": 4}


def recipe(prompt=PROMPT, values=VALUES, stamps=None):
    return recipe_of(prompt.__getitem__, values, lambda text: (stamps or {}).get(text, ""))


def changed(key, **inputs):
    prompt = copy.deepcopy(PROMPT)
    prompt[key]["inputs"].update(inputs)
    return prompt


def test_what_makes_the_picture_counts():
    seen = {
        recipe(),
        recipe(changed("2", text="alberto")),
        recipe(changed("3", width=128)),
        recipe(changed("2", clip=["1", 0])),
        recipe(values={**VALUES, "steps": 5}),
        recipe(values={**VALUES, "steps": "4"}),
        recipe(stamps={"sdxl.safetensors": "another file of that name"}),
        recipe({**PROMPT, "1": {**PROMPT["1"], "is_changed": ["registry edited"]}}),
    }
    assert len(seen) == 8
    assert all(len(one) == 32 for one in seen)


def test_what_does_not_make_it_does_not_count():
    renamed = {f"n{key}": copy.deepcopy(node) for key, node in PROMPT.items()}
    renamed["n2"]["inputs"]["clip"] = ["n1", 1]
    values = {"model": ["n1", 0], "positive": ["n2", 0], "latent": ["n3", 0], "steps": 4}
    assert recipe(renamed, values) == recipe()
    assert recipe(changed("9", filename_prefix="elsewhere")) == recipe()


def test_a_node_that_is_new_each_time_has_no_recipe():
    for mark in (math.nan, [math.nan], ["a", math.nan]):
        assert recipe({**PROMPT, "2": {**PROMPT["2"], "is_changed": mark}}) is None
    # ... but only where the picture comes from it.
    assert recipe({**PROMPT, "9": {**PROMPT["9"], "is_changed": math.nan}}) == recipe()
