"""Reading LoRA files: what is taken, and one clear LoraError for everything else."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from animation_studio.errors import LoraError
from animation_studio.lora import KeySpace, files_of, read_adapter
from animation_studio.lora.matching import match

TO_K = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
KOHYA = "lora_unet_" + TO_K.replace(".", "_")
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


def pair(module, width=2048, out=64, up="lora_up.weight", down="lora_down.weight"):
    return {f"{module}.{down}": torch.ones(2, width), f"{module}.{up}": torch.ones(out, 2)}


def peft_state(module=TO_K, **options):
    names = {"up": "lora_B.weight", "down": "lora_A.weight"}
    return pair(f"base_model.model.{module}", **names, **options)


@pytest.fixture
def file(tmp_path):
    def write(content, name="luca.safetensors"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else save(content))
        return path

    return write


@pytest.fixture
def folder(tmp_path):
    def write(config, state=None, name="luca_peft"):
        path = tmp_path / name
        path.mkdir(parents=True)
        save_file(peft_state() if state is None else state, path / "adapter_model.safetensors")
        text = config if isinstance(config, str) else json.dumps(config)
        (path / "adapter_config.json").write_text(text)
        return path

    return write


def error_of(path):
    with pytest.raises(LoraError) as error:
        read_adapter(path)
    message = str(error.value)
    assert path.name in message
    return message


def header(**entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


WHOLE = save(pair(KOHYA))
BAD_FILES = {
    "empty": (b"", "it has only 0 bytes"),
    "short": (b"1234567", "it has only 7 bytes"),
    "noise": (bytes(range(1, 255)), "not a safetensors file"),
    "truncated in the weights": (WHOLE[:-100], "is truncated: its header describes"),
    "truncated in the header": (WHOLE[:60], "is truncated: its header alone takes"),
    "longer than described": (WHOLE + b"more", "4 bytes more than its header describes"),
    "web page": (b"<!DOCTYPE html><html>" + b" " * 100, "is a web page"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "renamed zip": (b"PK\x03\x04" + b"\0" * 99, "only renamed"),
    "renamed pickle": (b"\x80\x02}q\x01." + b"\0" * 99, "only renamed"),
    "JSON garbage": (struct.pack("<Q", 9) + b"{'a': 1}}", "header is damaged"),
    "JSON that is a list": (struct.pack("<Q", 2) + b"[]", "header is not a mapping"),
    "deep JSON": (struct.pack("<Q", 200_000) + b"[" * 200_000, "not a safetensors file"),
    "header of an absurd length": (struct.pack("<Q", 1 << 60) + b"{}", "would mean a header of"),
    "no tensor": (header(), "holds no tensor at all"),
    "unknown dtype": (
        header(a={"dtype": "F7", "shape": [1], "data_offsets": [0, 1]}),
        "tensors of type 'F7' are not known",
    ),
    "offsets that do not fit": (
        header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}) + b"1234",
        "4 bytes do not hold the shape [2]",
    ),
    "negative shape": (
        header(a={"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}) + b"1234",
        "not given in numbers",
    ),
    "a full checkpoint": (
        save({"model.diffusion_model.out.2.weight": torch.ones(4)}),
        "this is a full checkpoint, not a LoRA",
    ),
    "an embedding": (save({"emb_params": torch.ones(1, 768)}), "a textual-inversion embedding"),
    "no LoRA": (save({"something": torch.ones(4)}), "no LoRA layers in 1 tensors"),
    "half a module": (
        save({f"{KOHYA}.lora_up.weight": torch.ones(4, 2)}),
        "has no 'down' tensor",
    ),
    "NaN": (
        save({**pair(KOHYA), f"{KOHYA}.lora_up.weight": torch.tensor([[1.0, torch.nan]])}),
        f"tensor '{KOHYA}.lora_up.weight' holds NaN",
    ),
    "a DoRA magnitude of another width": (
        save({**pair(KOHYA), f"{KOHYA}.lora_magnitude_vector": torch.ones(3)}),
        "does not have one number per output",
    ),
    "alpha of two numbers": (
        save({**pair(KOHYA), f"{KOHYA}.alpha": torch.ones(2)}),
        "is not one number",
    ),
    "the same layer twice": (
        save({**pair(f"unet.{TO_K}", up="lora_B.weight", down="lora_A.weight"), **pair(KOHYA)}),
        "mean the same layer",
    ),
    "diffusers with a bias": (
        save(
            {
                **pair(f"unet.{TO_K}", up="lora_B.weight", down="lora_A.weight"),
                f"unet.{TO_K}.lora_B.bias": torch.ones(64),
            }
        ),
        "are no part of a LoRA, for example",
    ),
}


@pytest.mark.parametrize(("content", "expected"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_get_one_clear_message(file, content, expected):
    assert expected in error_of(file(content))


def test_a_missing_file_and_a_folder_of_other_things(tmp_path):
    assert "there is no such LoRA file" in error_of(tmp_path / "nowhere.safetensors")
    assert "is not a PEFT adapter" in error_of(tmp_path)
    with pytest.raises(LoraError):
        files_of(tmp_path)


@pytest.mark.parametrize("name", ["luca.ckpt", "luca.pt", "luca.bin", "LUCA.PTH"])
def test_pickles_are_refused_unread(file, name):
    message = error_of(file(b"never read", name))
    assert "can run code" in message
    assert "safetensors.torch.save_file" in message


UNSUPPORTED = {
    "modules_to_save": (["conv_out"], "modules_to_save"),
    "bias": ("lora_only", "it trains biases"),
    "lora_bias": (True, "lora_bias"),
    "target_parameters": (["experts"], "target_parameters"),
    "trainable_token_indices": ([1, 2], "trainable_token_indices"),
    "layer_replication": ([[0, 4], [2, 5]], "layer_replication"),
    "use_qalora": (True, "QA-LoRA"),
    "use_bdlora": ({"nblocks": 2}, "block-diagonal"),
    "alora_invocation_tokens": ([7], "activated LoRA"),
    "arrow_config": ({"top_k": 3}, "router"),
    "monteclora_config": ({"num_samples": 4}, "MonteCLoRA"),
    "kasa_config": ({"beta": 1}, "KaSA"),
    "peft_type": ("LOHA", "peft_type 'LOHA'"),
    "init_lora_weights": ("pissa_niter_4", "changes the base weights"),
    "use_something_new": (True, "newer PEFT"),
    "something_config": ({"on": True}, "newer PEFT"),
    "r": (0, "r must be a whole number above 0"),
    "lora_alpha": ("many", "lora_alpha must be a number"),
    "rank_pattern": ({"to_k": "x"}, "must be a number"),
    "alpha_pattern": ({"(": 1}, "is no valid pattern"),
    "use_dora": (True, "no lora_magnitude_vector"),
}


@pytest.mark.parametrize(("option", "case"), UNSUPPORTED.items(), ids=UNSUPPORTED)
def test_unsupported_parts_of_peft_are_refused(folder, option, case):
    value, expected = case
    path = folder({**CONFIG, option: value})
    with pytest.raises(LoraError) as error:
        read_adapter(path)
    assert expected in str(error.value)
    assert "luca_peft" in str(error.value)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|aa)*b", ".*.*.*.*x", "a" * 300])
def test_patterns_that_could_run_for_ever_are_refused(folder, pattern):
    message = error_of(folder({**CONFIG, "rank_pattern": {pattern: 2}}).parent / "luca_peft")
    assert "matched safely" in message


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"r": NaN}'])
def test_a_broken_peft_configuration(folder, text):
    with pytest.raises(LoraError, match=r"adapter_config\.json"):
        read_adapter(folder(text))


@pytest.mark.parametrize(
    "extra",
    [
        "base_model.model.text_model.embeddings.token_embedding.lora_embedding_A",
        f"base_model.model.{TO_K}.lora_B.bias",
        "base_model.model.conv_out.weight",
    ],
)
def test_tensors_beside_the_lora_are_refused(folder, extra):
    path = folder(CONFIG, {**peft_state(), extra: torch.ones(4)})
    with pytest.raises(LoraError, match=r"1 of its tensors are no part of a LoRA"):
        read_adapter(path)


def test_a_configuration_of_another_rank_is_refused(folder):
    with pytest.raises(LoraError, match="do not belong together"):
        read_adapter(folder({**CONFIG, "r": 16}))


def test_half_a_peft_folder_names_what_is_missing(folder):
    path = folder(CONFIG)
    (path / "adapter_config.json").unlink()
    assert "no adapter_config.json" in error_of(path)
    (path / "adapter_config.json").write_text(json.dumps(CONFIG))
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    assert "no adapter_model.safetensors (a .bin there is not read" in error_of(path)


def test_the_file_of_a_peft_folder_takes_the_configuration_beside_it(folder):
    path = folder(CONFIG)
    adapter = read_adapter(path / "adapter_model.safetensors")
    assert adapter.tensors[f"{KOHYA}.alpha"].item() == 4
    assert adapter.notes == ()


def test_a_peft_file_alone_says_that_its_strength_is_assumed(file):
    adapter = read_adapter(file(peft_state()))
    assert f"{KOHYA}.alpha" not in adapter.tensors
    assert "alpha = rank is assumed" in adapter.notes[0]


@pytest.mark.parametrize(
    ("modules", "base"),
    [
        ([(KOHYA, 768, 64)], "SD 1.5"),
        ([(KOHYA, 1024, 64)], "SD 2"),
        ([(KOHYA, 2048, 64)], "SDXL"),
        ([("lora_unet_down_blocks_0_attentions_0_proj_in", 320, 320)], "SD 1.5"),
        ([("lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280, 64)], "SDXL"),
        ([("lora_unet_single_blocks_0_linear1", 3072, 64)], "Flux"),
        ([("lora_unet_joint_blocks_0_x_block_attn_qkv", 1536, 64)], "SD 3"),
        ([("lora_unet_mid_block_attentions_0_proj_in", 1280, 1280)], None),
    ],
)
def test_the_base_is_told_from_widths_and_names(file, modules, base):
    state = {}
    for module in modules:
        state |= pair(*module)
    assert read_adapter(file(state)).base == base


def test_the_base_is_told_from_metadata_where_weights_do_not_say(tmp_path):
    path = tmp_path / "x.safetensors"
    state = pair("lora_unet_mid_block_attentions_0_proj_in", 1280, 1280)
    save_file(state, path, metadata={"modelspec.architecture": "stable-diffusion-v1/lora"})
    assert read_adapter(path).base == "SD 1.5"
    save_file(pair(KOHYA), path, metadata={"ss_base_model_version": "sd_v1"})
    assert read_adapter(path).base == "SDXL"


def test_weights_are_read_as_they_are_and_do_not_hang_on_the_file(file):
    state = {**pair(KOHYA), f"{KOHYA}.alpha": torch.tensor(1.0, dtype=torch.bfloat16)}
    state = {key: tensor.half() if tensor.ndim else tensor for key, tensor in state.items()}
    path = file(state)
    adapter = read_adapter(path)
    path.write_bytes(b"\0" * 10)
    for key, tensor in state.items():
        assert adapter.tensors[key].dtype == tensor.dtype
        assert torch.equal(adapter.tensors[key], tensor)
    assert adapter.nbytes == sum(tensor.nbytes for tensor in state.values())
    assert adapter.total_keys == 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_one_wrong_weight_among_many_is_found(file, dtype, wrong):
    if dtype == "float8_e4m3fn":
        wrong = float("nan")  # it has no infinity
    state = pair(KOHYA)
    state[f"{KOHYA}.lora_up.weight"][40, 1] = wrong
    state = {key: tensor.to(getattr(torch, dtype)) for key, tensor in state.items()}
    assert "lora_up.weight' holds NaN or infinite" in error_of(file(state))


def test_weights_that_do_not_lie_on_multiples_of_their_size(file):
    up, down = torch.randn(4, 2), torch.randn(2, 3)
    entries = {
        f"{KOHYA}.pad": ("U8", [1], b"x"),
        f"{KOHYA}.lora_up.weight": ("F32", [4, 2], up.numpy().tobytes()),
        f"{KOHYA}.lora_down.weight": ("F32", [2, 3], down.numpy().tobytes()),
    }
    described, data = {}, b""
    for name, (dtype, shape, raw) in entries.items():
        offsets = [len(data), len(data) + len(raw)]
        described[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += raw
    tensors = read_adapter(file(header(**described) + data)).tensors
    assert torch.equal(tensors[f"{KOHYA}.lora_up.weight"], up)
    assert torch.equal(tensors[f"{KOHYA}.lora_down.weight"], down)


FUZZ = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def reads_or_says_why(path):
    try:
        adapter = read_adapter(path)
    except LoraError as refused:
        error = refused
    else:
        space = KeySpace("model", {KOHYA: "weight"}, {"weight": (64, 64 * 2048)})
        found = match(adapter.tensors, (space,))
        assert len(found.matched) + len(found.wrong_size) <= found.total
        return
    assert path.name in str(error)


@FUZZ
@given(content=st.binary(max_size=400))
def test_random_bytes_never_raise_anything_else(file, content):
    reads_or_says_why(file(content))


@FUZZ
@given(
    at=st.integers(0, len(WHOLE) - 1),
    insert=st.binary(max_size=12),
    removed=st.integers(0, 12),
)
def test_mutated_files_never_raise_anything_else(file, at, insert, removed):
    reads_or_says_why(file(WHOLE[:at] + insert + WHOLE[at + removed :]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
entry = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BOOL", "F8_E4M3"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(-1, 64), min_size=2, max_size=2) | json_values,
    },
)
names = st.sampled_from(
    [
        f"{KOHYA}.{end}"
        for end in (
            "lora_up.weight",
            "lora_down.weight",
            "alpha",
            "dora_scale",
            "hada_w1_a",
            "diff",
        )
    ]
    + [f"unet.{TO_K}.lora_A.weight", "text_model.x.lora_B.weight", "__metadata__"]
)


@FUZZ
@given(entries=st.dictionaries(names, entry | json_values, max_size=4), data=st.binary(max_size=64))
def test_random_headers_never_raise_anything_else(file, entries, data):
    reads_or_says_why(file(header(**entries) + data))


@FUZZ
@given(
    config=st.dictionaries(
        st.sampled_from([*CONFIG, *UNSUPPORTED]) | st.text(max_size=8), json_values
    )
)
def test_random_configurations_never_raise_anything_else(tmp_path, config):
    save_file(peft_state(), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    reads_or_says_why(tmp_path)
