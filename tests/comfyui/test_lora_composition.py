"""Composition on ComfyUI's own objects: what is cloned, cached, counted, refused."""

from __future__ import annotations

import math

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from animation_studio.errors import LoraBaseError, LoraError
from animation_studio.lora import AdapterUse, compose, read_adapter
from tests.support import lora_files as forms
from tests.support import tiny_sdxl

pytestmark = pytest.mark.usefixtures("one_thread")
ATTENTION = {"r": 2, "lora_alpha": 2, "target_modules": forms.ATTENTION}


@pytest.fixture
def target(tiny):
    from animation_studio.bridge.patching import ComfyTarget

    return lambda: ComfyTarget(tiny.model, tiny.clip)


@pytest.fixture
def luca(tiny, tmp_path):
    wrapped = forms.trained(tiny.unet, LoraConfig(**ATTENTION))
    return read_adapter(forms.diffusers_file(wrapped, tmp_path))


@pytest.fixture
def kohya(tmp_path):
    """Write a LoRA of given (module, in, out) under kohya's names and read it."""

    def write(name, *modules):
        state = {}
        for module, width, out in modules:
            state[f"{module}.lora_down.weight"] = torch.randn(2, width)
            state[f"{module}.lora_up.weight"] = torch.randn(out, 2)
        save_file(state, tmp_path / name)
        return read_adapter(tmp_path / name)

    return write


def use(adapter, model=1.0, clip=1.0, label="Luca"):
    return AdapterUse(adapter, model, clip, label)


TO_K = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
TO_Q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q"


def test_nothing_to_do_returns_the_same_objects(tiny, target, luca):
    for uses in ([], [use(luca, 0.0, 0.0)], [use(luca, 0.0, -0.0), use(luca, 0.0, 0.0)]):
        (model, clip), reports = compose(target(), uses)
        assert model is tiny.model
        assert clip is tiny.clip
        assert reports == []


def test_the_model_that_came_in_stays_as_it_was(tiny, target, luca):
    before = tiny.model.patches_uuid
    (model, clip), _ = compose(target(), [use(luca)] * 3)
    assert tiny.model.patches == {}
    assert tiny.model.patches_uuid == before
    assert model.parent is tiny.model  # one clone, not a chain of three
    assert clip.patcher.parent is tiny.clip.patcher
    assert {len(patches) for patches in model.patches.values()} == {3}


def test_a_second_composition_does_no_tensor_work_and_copies_nothing(tiny, target, luca):
    first, second = target(), target()
    assert first.spaces[0] is second.spaces[0]
    assert first.spaces[1] is second.spaces[1]
    ((one, _), _), ((two, _), _) = (compose(t, [use(luca)]) for t in (first, second))
    owned = {tensor.data_ptr() for tensor in luca.tensors.values()}
    for key, patches in one.patches.items():
        assert patches[0][1] is two.patches[key][0][1]
        matrices = [weight for weight in patches[0][1].weights if torch.is_tensor(weight)]
        assert {matrix.data_ptr() for matrix in matrices} <= owned


def test_patches_of_a_lora_below_are_kept(tiny, target, luca):
    import comfy.sd

    below, _ = comfy.sd.load_lora_for_models(tiny.model, None, dict(luca.tensors), 0.5, 0.0)
    target = type(target())(below, tiny.clip)
    (model, _), _ = compose(target, [use(luca, 0.25)])
    both, _ = compose(type(target)(tiny.model, tiny.clip), [use(luca, 0.75)])
    for key in model.patches:
        torch.testing.assert_close(
            tiny_sdxl.patched_weight(model, key), tiny_sdxl.patched_weight(both[0], key)
        )


def test_strengths_of_model_and_clip_are_apart(tiny, target, kohya):
    text = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    adapter = kohya("both.safetensors", (TO_K, 2048, 64), (text, 768, 64))
    (model, clip), _ = compose(target(), [use(adapter, 0.0, 0.7)])
    assert model.patches == {}
    assert [patches[0][0] for patches in clip.patcher.patches.values()] == [0.7]
    (model, clip), _ = compose(target(), [use(adapter, 0.3, 0.0)])
    assert [patches[0][0] for patches in model.patches.values()] == [0.3]
    assert clip.patcher.patches == {}


@pytest.mark.parametrize("strength", [math.nan, math.inf, -math.inf, 10.5, -11.0])
def test_strengths_that_cannot_be_used(target, luca, strength):
    for model, clip in ((strength, 1.0), (1.0, strength)):
        with pytest.raises(LoraError, match=r"Luca: a strength of .* from -10 to 10"):
            compose(target(), [use(luca, model, clip)])


def test_another_base_is_refused_by_name_before_anything_is_patched(tiny, target, luca, kohya):
    other = kohya("luca_sd15.safetensors", (TO_K, 768, 64), (TO_Q, 64, 64))
    assert other.base == "SD 1.5"
    with pytest.raises(LoraBaseError) as error:
        compose(target(), [use(luca), use(other, label="luca")])
    assert "luca_sd15.safetensors was trained for SD 1.5; the checkpoint is SDXL" in str(
        error.value
    )
    assert tiny.model.patches == {}


def test_a_lora_that_fits_nothing_is_refused_by_name_and_format(target, kohya):
    alien = kohya("alien.safetensors", ("lora_unet_blocks_0_attn_q", 64, 64), (TO_Q, 320, 320))
    with pytest.raises(LoraError) as error:
        compose(target(), [use(alien)])
    message = str(error.value)
    assert "alien.safetensors (kohya format" in message
    assert "lora_unet_blocks_0_attn_q" in message
    assert "1 modules have another size" in message


def test_a_lora_that_fits_in_part_warns_with_numbers(tiny, target, kohya):
    odd = [(f"lora_unet_blocks_{index}_q", 64, 64) for index in range(2)]
    adapter = kohya("part.safetensors", (TO_K, 2048, 64), (TO_Q, 320, 64), *odd)
    (model, _), (report,) = compose(target(), [use(adapter)])
    assert (report.total, report.matched, report.wrong_size, report.level) == (4, 1, 1, "few")
    assert "only 1 of 4 modules fit" in report.warning
    assert "lora_unet_blocks_0_q" in report.warning
    assert len(model.patches) == 1


def test_a_report_says_what_was_loaded(target, luca):
    _, (report,) = compose(target(), [use(luca)])
    assert report.level == "ok"
    assert report.warning is None
    total = len(luca.tensors) // 3
    assert report.summary == (
        f"Luca: pytorch_lora_weights.safetensors (diffusers for SDXL), {total} of {total} modules"
    )


@pytest.mark.parametrize(
    ("kind", "config", "name"),
    [
        ("SD15", {"context_dim": 768}, "SD 1.5"),
        ("SD20", {"context_dim": 1024, "adm_in_channels": None}, "SD 2"),
        ("SDXL", {"context_dim": 2048}, "SDXL"),
        ("SDXLRefiner", {"context_dim": 1280}, "SDXL refiner"),
        ("SVD_img2vid", {"context_dim": 1024}, "SVD_img2vid"),
    ],
)
def test_base_names(comfyui_modules, kind, config, name):
    import comfy.model_patcher
    import comfy.supported_models

    from animation_studio.bridge.patching import base_name

    config = {"in_channels": 4, **config, "disable_unet_model_creation": True}
    network = getattr(comfy.supported_models, kind)(config).get_model({})
    cpu = torch.device("cpu")
    assert base_name(comfy.model_patcher.ModelPatcher(network, cpu, cpu)) == name


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("locon", {}),
        ("locon", {"dora_wd": True}),
        ("loha", {}),
        ("loha", {"dora_wd": True}),
        ("lokr", {"factor": 4}),
        ("lokr", {"factor": 4, "decompose_both": True}),
        ("diag-oft", {}),
        ("full", {}),
    ],
    ids=str,
)
def test_lycoris_is_what_core_makes_of_it(tiny, target, tmp_path, algorithm, options):
    import comfy.sd
    from lycoris import create_lycoris

    unet = tiny_sdxl.copied(tiny.unet)
    network = create_lycoris(unet, 1.0, linear_dim=4, linear_alpha=2, algo=algorithm, **options)
    network.apply_to()
    state = {}
    for index, (key, tensor) in enumerate(network.state_dict().items()):
        drawn = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(index))
        state[key] = tensor if key.endswith("alpha") else (tensor + 0.05 * drawn).contiguous()
    path = tmp_path / "lycoris.safetensors"
    save_file(state, path)
    adapter = read_adapter(path)
    assert adapter.format == "LyCORIS"
    core, _ = comfy.sd.load_lora_for_models(tiny.model, None, load_file(path), 0.7, 0.0)
    (model, _), (report,) = compose(target(), [use(adapter, 0.7)])
    assert report.level == "ok"
    assert model.patches.keys() == core.patches.keys()
    changed = 0
    for key in core.patches:
        expected = tiny_sdxl.patched_weight(core, key)
        assert torch.equal(tiny_sdxl.patched_weight(model, key), expected)
        changed += not torch.equal(expected, tiny_sdxl.patched_weight(tiny.model, key))
    assert changed >= 50
