"""Patched weights equal PEFT's own, for every form of LoRA file and for sums of several.

Equal to the rounding of 32-bit floats: within 1e-6 and 1e-5 of the value, for weights and updates
around 0.1. Both sides multiply the same matrices; the order of additions differs, and PEFT merges
several DoRA by dividing earlier ones out again.
"""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig

from animation_studio.lora import AdapterUse, compose, read_adapter
from tests.support import lora_files as forms
from tests.support import tiny_sdxl

# PEFT 0.21 asks transformers 5.23 for a property that the latter calls deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.usefixtures("one_thread"),
]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def lora(**options):
    options = {"r": 4, "lora_alpha": 10, "target_modules": forms.LINEAR} | options
    return LoraConfig(**options)


CONFIGS = {
    "plain": lora(),
    "rslora": lora(use_rslora=True),
    "rank pattern": lora(rank_pattern={"attn2.to_k": 8, r"down_blocks.*\.to_q": 2}),
    "alpha pattern": lora(
        alpha_pattern={
            "to_v": 3,
            r"up_blocks\.\d.*proj_in": 20,
            "^mid_block.attentions.0.proj_in": 7,
        }
    ),
    "both patterns, rslora": lora(
        use_rslora=True, rank_pattern={"to_out.0": 6}, alpha_pattern={"attn1.to_out.0": 1.5}
    ),
    "conv": lora(target_modules=[*forms.LINEAR, *forms.CONV]),
    "dora": lora(use_dora=True),
    "dora conv, rslora": lora(
        use_dora=True, use_rslora=True, target_modules=[*forms.LINEAR, *forms.CONV]
    ),
}
WRITERS = {
    "PEFT folder": forms.peft_folder,
    "PEFT folder, adapter's name in the keys": forms.raw_names,
    "diffusers": forms.diffusers_file,
    "diffusers, up and down": forms.diffusers_up_down,
    "diffusers, no prefix": forms.without_prefix,
}


@pytest.fixture
def patch(tiny):
    """Load files through the lora room: (path, strength) each -> model, clip, reports."""
    from animation_studio.bridge.patching import ComfyTarget

    def load(*uses):
        found = [AdapterUse(read_adapter(path), s, s, label=path.name) for path, s in uses]
        (model, clip), reports = compose(ComfyTarget(tiny.model, tiny.clip), found)
        assert [report.matched for report in reports] == [report.total for report in reports]
        assert not [report.warning for report in reports if report.warning]
        return model, clip

    return load


def assert_equal(tiny, patcher, side, expected, base):
    """Compare every weight of a side with PEFT's, and see that the adapters changed some."""
    changed, before = 0, base.state_dict()
    for name, key in tiny.keys[side].items():
        ours = tiny_sdxl.patched_weight(patcher, key)
        torch.testing.assert_close(
            ours, expected[name], **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )
        changed += (expected[name] - before[name]).abs().max() > 1e-3
    assert changed >= 10


# Every configuration in the two forms that carry one; the richest ones in the others.
CASES = [
    *((form, config) for form in ("PEFT folder", "diffusers") for config in CONFIGS),
    *(
        (form, config)
        for form in WRITERS.keys() - {"PEFT folder", "diffusers"}
        for config in ("both patterns, rslora", "dora conv, rslora")
    ),
]


@pytest.mark.parametrize(("form", "config"), sorted(CASES))
def test_each_form_equals_peft(tiny, patch, tmp_path, form, config):
    wrapped = forms.trained(tiny.unet, CONFIGS[config])
    model, _ = patch((WRITERS[form](wrapped, tmp_path), 1.0))
    assert_equal(tiny, model, "unet", forms.merged(wrapped), tiny.unet)


@pytest.mark.parametrize("naming", ["kohya", "sgm", "lycoris", "diffusion_model"])
@pytest.mark.parametrize("config", ["both patterns, rslora", "conv"])
def test_forms_that_core_takes_stay_as_they_are(tiny, patch, tmp_path, naming, config):
    def sgm(module):
        return tiny.keys["unet"][f"{module}.weight"].removesuffix(".weight")

    rename = {
        "kohya": lambda module: "lora_unet_" + module.replace(".", "_"),
        "sgm": lambda module: (
            "lora_unet_" + sgm(module).removeprefix("diffusion_model.").replace(".", "_")
        ),
        "lycoris": lambda module: "lycoris_" + module.replace(".", "_"),
        "diffusion_model": sgm,
    }[naming]
    wrapped = forms.trained(tiny.unet, CONFIGS[config])
    path = forms.renamed(rename)(wrapped, tmp_path)
    model, _ = patch((path, 1.0))
    assert_equal(tiny, model, "unet", forms.merged(wrapped), tiny.unet)


def test_the_old_attention_processor_form(tiny, patch, tmp_path):
    wrapped = forms.trained(tiny.unet, lora(target_modules=forms.ATTENTION))
    model, _ = patch((forms.processors(wrapped, tmp_path), 1.0))
    assert_equal(tiny, model, "unet", forms.merged(wrapped), tiny.unet)


def test_a_diffusers_file_without_metadata_has_scale_one(tiny, patch, tmp_path):
    wrapped = forms.trained(tiny.unet, lora(r=4, lora_alpha=4))
    forms.StableDiffusionXLLoraLoaderMixin.save_lora_weights(
        tmp_path, unet_lora_layers=forms.layers(wrapped, "a0")
    )
    model, _ = patch((tmp_path / "pytorch_lora_weights.safetensors", 1.0))
    assert_equal(tiny, model, "unet", forms.merged(wrapped), tiny.unet)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_sum_of_several_equals_peft(tiny, patch, tmp_path, count):
    kinds = ["plain", "conv", "rslora", "alpha pattern", "rank pattern"]
    strengths = [0.8, -0.4, 1.3, 0.05, 1.0][:count]
    writers = list(WRITERS.values())
    wrapped = forms.trained(tiny.unet, *(CONFIGS[kind] for kind in kinds[:count]))
    uses = [
        (writers[index](wrapped, tmp_path / str(index), f"a{index}"), strength)
        for index, strength in enumerate(strengths)
    ]
    model, _ = patch(*uses)
    named = {f"a{index}": strength for index, strength in enumerate(strengths)}
    expected = forms.merged(forms.active(wrapped, named))
    assert_equal(tiny, model, "unet", expected, tiny.unet)


@pytest.mark.parametrize(
    "kinds",
    [
        ["dora", "plain"],
        ["plain", "dora"],
        ["dora", "dora conv, rslora"],
        ["conv", "dora conv, rslora", "plain", "dora", "rslora"],
    ],
    ids=" + ".join,
)
def test_sums_with_dora_equal_peft(tiny, patch, tmp_path, kinds):
    wrapped = forms.trained(tiny.unet, *(CONFIGS[kind] for kind in kinds))
    names = [f"a{index}" for index in range(len(kinds))]
    model, _ = patch(*((forms.peft_folder(wrapped, tmp_path, name), 1.0) for name in names))
    active = forms.active(wrapped, dict.fromkeys(names, 1.0))
    assert_equal(tiny, model, "unet", forms.merged(active), tiny.unet)
    # PEFT merges one after the other; its forward pass takes another way. Both are met.
    inputs = tiny_sdxl.inputs(tiny.unet)
    ours = tiny_sdxl.comfy_forward(model, inputs)
    theirs = tiny_sdxl.diffusers_forward(active, inputs)
    plain = tiny_sdxl.diffusers_forward(tiny.unet, inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (theirs - plain).abs().max() > 0.05


def test_dora_between_strengths_is_between_base_and_peft(tiny, patch, tmp_path):
    wrapped = forms.trained(tiny.unet, CONFIGS["dora conv, rslora"])
    model, _ = patch((forms.peft_folder(wrapped, tmp_path), 0.25))
    whole, base = forms.merged(wrapped), tiny.unet.state_dict()
    expected = {name: torch.lerp(base[name], whole[name], 0.25) for name in tiny.keys["unet"]}
    assert_equal(tiny, model, "unet", expected, tiny.unet)


def test_a_patched_pass_equals_pefts(tiny, patch, tmp_path):
    wrapped = forms.trained(tiny.unet, CONFIGS["conv"])
    model, _ = patch((forms.diffusers_file(wrapped, tmp_path), 1.0))
    inputs = tiny_sdxl.inputs(tiny.unet)
    torch.testing.assert_close(
        tiny_sdxl.comfy_forward(tiny.model, inputs), tiny_sdxl.diffusers_forward(tiny.unet, inputs)
    )
    torch.testing.assert_close(
        tiny_sdxl.comfy_forward(model, inputs),
        tiny_sdxl.diffusers_forward(wrapped, inputs),
        rtol=1e-4,
        atol=1e-5,
    )


TEXT_CONFIGS = {
    "plain": lora(target_modules=forms.TEXT),
    "rslora, alpha pattern": lora(
        target_modules=forms.TEXT, use_rslora=True, alpha_pattern={"layers.1.mlp.fc1": 3}
    ),
    "dora": lora(target_modules=forms.TEXT, use_dora=True),
}


@pytest.mark.parametrize("config", TEXT_CONFIGS.values(), ids=TEXT_CONFIGS)
@pytest.mark.parametrize("old_level", [False, True], ids=["", "text_model level"])
def test_text_encoders_in_diffusers_files(tiny, patch, tmp_path, config, old_level):
    parts = {"text_encoder": tiny.text_encoder, "text_encoder_2": tiny.text_encoder_2}
    wrapped = {name: forms.trained(part, config, seed=len(name)) for name, part in parts.items()}

    def written(name):
        found = forms.layers(wrapped[name], "a0")
        bare = {key.removeprefix("text_model."): tensor for key, tensor in found.items()}
        return {f"text_model.{key}": value for key, value in bare.items()} if old_level else bare

    forms.StableDiffusionXLLoraLoaderMixin.save_lora_weights(
        tmp_path,
        **{f"{name}_lora_layers": written(name) for name in parts},
        **{f"{name}_lora_adapter_metadata": forms.options(wrapped[name], "a0") for name in parts},
    )
    model, clip = patch((tmp_path / "pytorch_lora_weights.safetensors", 1.0))
    assert model.patches == {}
    for name, part in parts.items():
        assert_equal(tiny, clip.patcher, name, forms.merged(wrapped[name]), part)


def test_a_peft_folder_per_part(tiny, patch, tmp_path):
    wrapped = {
        "unet": forms.trained(tiny.unet, CONFIGS["rank pattern"]),
        "text_encoder": forms.trained(tiny.text_encoder, TEXT_CONFIGS["plain"]),
        "text_encoder_2": forms.trained(tiny.text_encoder_2, TEXT_CONFIGS["dora"]),
    }
    for name, part in wrapped.items():
        forms.peft_folder(part, tmp_path).rename(tmp_path / name)
    model, clip = patch((tmp_path, 1.0))
    for name, patcher in (
        ("unet", model),
        ("text_encoder", clip.patcher),
        ("text_encoder_2", clip.patcher),
    ):
        assert_equal(tiny, patcher, name, forms.merged(wrapped[name]), getattr(tiny, name))


@pytest.mark.parametrize("name", ["text_encoder", "text_encoder_2"])
def test_text_encoders_are_told_by_their_width(tiny, patch, tmp_path, name):
    wrapped = forms.trained(getattr(tiny, name), TEXT_CONFIGS["rslora, alpha pattern"])
    _, clip = patch((forms.peft_folder(wrapped, tmp_path), 1.0))
    assert_equal(tiny, clip.patcher, name, forms.merged(wrapped), getattr(tiny, name))


def test_adapters_can_be_rebuilt_as_newer_cores_do(comfyui_modules):
    """Dynamic VRAM makes `type(adapter)(adapter.loaded_keys, weights)` of copied weights."""
    from animation_studio.bridge.dora import PatchSequence, PeftDora

    generator = torch.Generator().manual_seed(1)
    weight, up, down = (torch.randn(*s, generator=generator) for s in ((6, 5), (6, 2), (2, 5)))
    dora = PeftDora(set(), (up, down, weight.norm(dim=1) * 1.1, 3.0))
    sequence = PatchSequence(set(), [(0.7, dora), (0.4, dora)])
    for adapter in (dora, sequence):
        rebuilt = type(adapter)(adapter.loaded_keys, adapter.weights)
        first = adapter.calculate_weight(weight.clone(), "key", 0.8)
        second = rebuilt.calculate_weight(weight.clone(), "key", 0.8)
        assert torch.equal(first, second)
        assert not torch.equal(first, weight)
