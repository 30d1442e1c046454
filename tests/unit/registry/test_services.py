"""services.yaml: the shipped example, layers, and everything that can be wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from animation_studio.errors import ConfigError
from animation_studio.registry import Registry, load_registry

ROOT = Path(__file__).parents[3]


@pytest.fixture
def services(tmp_path):
    """Load the shipped configuration with this services.yaml over it."""

    def load(text: str) -> Registry:
        (tmp_path / "services.yaml").write_text(text, encoding="utf-8")
        return load_registry([ROOT / "configs", tmp_path])

    return load


def own(text: str) -> str:
    """One service `mine` with these keys."""
    return "services:\n  mine:\n" + "".join(f"    {line}\n" for line in text.splitlines())


GOOD = 'kind: vllm\nbase_url: "http://127.0.0.1:8001"\n'


def test_the_shipped_example_is_three_models_one_at_a_time_and_a_voice():
    shipped = load_registry([ROOT / "configs"])

    assert shipped.problems == ()
    models = {key: entry for key, entry in shipped.services.items() if entry.role == "llm"}
    assert [entry.base_url[-4:] for entry in models.values()] == ["8000", "8001", "8002"]
    assert {entry.group for entry in models.values()} == {"llm"}
    assert shipped.service("gpt-sovits").role == "voice"
    assert shipped.gpu_settings().needs_gb.image == 12.0


def test_a_service_is_added_and_a_shipped_one_removed(services):
    registry = services(own(GOOD) + "  qwen2.5-14b: null\n")

    assert registry.problems == ()
    assert "mine" in registry.services
    assert "qwen2.5-14b" not in registry.services


def test_gpu_settings_are_laid_over_each_other_key_by_key(services):
    registry = services("gpu: {device: 1, needs_gb: {image: 9.5}}\n")

    settings = registry.gpu_settings()
    assert (settings.device, settings.needs_gb.image) == (1, 9.5)
    assert settings.after_crash == "resume"


def test_what_pictures_are_made_of_does_not_depend_on_services(services):
    shipped = load_registry([ROOT / "configs"])

    assert services(own(GOOD)).content_hash == shipped.content_hash


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("kind: vllm\n", "base_url"),
        (GOOD.replace("vllm", "vlm"), "kind"),
        (GOOD.replace("http://127.0.0.1:8001", "127.0.0.1:8001"), "such as http://127.0.0.1:8000"),
        (GOOD.replace("http:", "file:"), "such as http://127.0.0.1:8000"),
        (GOOD.replace("8001", "80000000"), "no valid port"),
        (GOOD.replace("127", "me:secret@127"), "api_key_env"),
        (GOOD.replace("8001", "8001/?a=1"), "without ?"),
        (GOOD + 'api_key_env: "sk-very secret"\n', "the name of an environment variable"),
        (GOOD + "sleep_level: 3\n", "sleep_level"),
        (GOOD + "sleep_level: true\n", "sleep_level"),
        (GOOD + "vram_gb: -1.0\n", "vram_gb"),
        (GOOD + "vram_gb: .inf\n", "vram_gb"),
        (GOOD + 'start: "systemctl start vllm"\n', "start"),
        (GOOD + "start: []\n", "start"),
        (GOOD + "start: [1, 2]\n", "start"),
        (GOOD + 'stop: ["true"]\n', "what is stopped must come back"),
        (GOOD + 'health: "health"\n', "a path that begins with /"),
        (GOOD + "timeouts: {sleep: 0}\n", "timeouts"),
        (GOOD + "timeouts: {sleep: 1e9}\n", "timeouts"),
    ],
)
def test_what_is_wrong_in_a_service_is_told_with_its_place(services, keys, said):
    registry = services(own(keys))

    assert any(said in str(problem) for problem in registry.problems), registry.problems
    assert all("services.yaml" in str(problem) for problem in registry.problems)
    with pytest.raises(ConfigError, match="mine"):
        registry.service("mine")
    assert "qwen2.5-14b" in registry.services
    assert "secret" not in "".join(map(str, registry.problems))


@pytest.mark.parametrize("name", ["none", "auto", "as needed"])
def test_words_of_the_nodes_are_no_names_of_services(services, name):
    registry = services(own(GOOD).replace("mine", f'"{name}"'))

    assert name not in registry.services
    assert "choice of the nodes" in str(registry.problems[0])


@pytest.mark.parametrize("text", ["gpu: {device: -1}\n", "gpu: {after_crash: maybe}\n", "gpu: 5\n"])
def test_broken_gpu_settings_are_refused_and_not_guessed(services, text):
    registry = services(text)

    with pytest.raises(ConfigError, match=r"services\.yaml"):
        registry.gpu_settings()


def test_a_file_that_cannot_be_read_hides_no_service_silently(services):
    registry = services("services: [\n")

    with pytest.raises(ConfigError, match=r"nothing from services\.yaml is used"):
        registry.gpu_settings()


def test_unknown_keys_are_a_warning_that_names_the_nearest(services):
    registry = services(own(GOOD + "vram_gib: 3.0\n") + "gpu: {devise: 1}\n")

    texts = [str(problem) for problem in registry.problems]
    assert any("vram_gb" in text for text in texts)
    assert any("device" in text for text in texts)
    assert "mine" in registry.services
