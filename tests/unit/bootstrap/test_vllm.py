"""The vLLM for tests: where there is one, and that damaged parts of it are made again."""

from __future__ import annotations

import shutil

import pytest

from scripts.bootstrap.environment import look_at, python_in
from scripts.bootstrap.say import Problem, Steps
from scripts.bootstrap.stamps import digest_of_file
from scripts.bootstrap.vllm import ensure_torchvision, ensure_vllm, why_no_vllm


@pytest.mark.parametrize("python", [(3, 11), (3, 14)])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_where_there_is_one(machine, python):
    assert why_no_vllm("linux", machine, python) is None


@pytest.mark.parametrize(
    ("system", "machine", "python", "said"),
    [
        ("win32", "AMD64", (3, 12), "this is win32 on AMD64"),
        ("darwin", "arm64", (3, 12), "this is darwin on arm64"),
        ("linux", "riscv64", (3, 12), "this is linux on riscv64"),
        ("linux", "x86_64", (3, 10), "this is 3.10"),
        ("linux", "x86_64", (3, 15), "this is 3.15"),
    ],
)
def test_where_there_is_none(system, machine, python, said):
    assert said in str(why_no_vllm(system, machine, python))


@pytest.mark.parametrize("kind", ["language_model", "vision_model"])
def test_a_damaged_model_is_made_again_as_it_was(
    home, folder, steps: Steps, vllm_parts, vision_parts, kind
):
    for there, here in (
        (home.vllm, folder.vllm),
        (vision_parts.torchvision, folder.torchvision),
    ):
        here.symlink_to(there, target_is_directory=True)
    shutil.copytree(vllm_parts.model, folder.language_model)
    shutil.copytree(vision_parts.model, folder.vision_model)
    model = getattr(folder, kind)
    weights = model / "model.safetensors"
    made = weights.stat().st_mtime_ns
    ensure_vllm(folder, steps)
    assert weights.stat().st_mtime_ns == made

    whole = {path.name: digest_of_file(path) for path in model.iterdir()}
    weights.write_bytes(weights.read_bytes()[:-1])
    ensure_vllm(folder, steps)
    assert {path.name: digest_of_file(path) for path in model.iterdir()} == whole


def test_a_damaged_torchvision_is_fetched_again(
    home, folder, steps: Steps, vision_parts, monkeypatch
):
    shutil.copytree(vision_parts.torchvision, folder.torchvision)
    interpreter = look_at(python_in(home.vllm))
    assert interpreter is not None
    ensure_torchvision(folder, interpreter, steps)

    # No index: what pip says shows that it was asked.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder.downloads))
    (folder.torchvision / "torchvision" / "ops" / "__init__.py").unlink()
    with pytest.raises(Problem, match=r"no torchvision==0\.28\.0"):
        ensure_torchvision(folder, interpreter, steps)
