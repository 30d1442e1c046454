"""What is wrong in a file is said with file, line, key, value and what was expected."""

import pytest

from animation_studio.errors import ConfigError
from animation_studio.registry import Problem, SamplerVocabulary, load_registry, nearest

LUCA = "characters: {luca: {name: Luca}}\n"


def found(registry, severity: str = "error") -> list[tuple[int, str, str]]:
    return [(p.line, p.key, p.message) for p in registry.problems if p.severity == severity]


@pytest.mark.parametrize(
    ("file", "text", "line", "key", "hint"),
    [
        ("lora_registry", "characters: {}\n\nstyls:\n  a: {name: a}\n", 3, "styls", "'styles'"),
        (
            "lora_registry",
            "characters:\n  luca:\n    name: Luca\n    lora_pth: a.safetensors\n",
            4,
            "characters.luca.lora_pth",
            "'lora_path'",
        ),
        (
            "character_presets",
            "luca:\n  base_prompt: luca\n  generation_params:\n    steps: 3\n    cfg: 7\n",
            5,
            "luca.generation_params.cfg",
            "'cfg_scale'",
        ),
        (
            "sdxl_config",
            "generation:\n  default_sise: [8, 8]",
            2,
            "generation.default_sise",
            "size",
        ),
        ("sdxl_config", "generatoin: {}\n", 1, "generatoin", "'generation'"),
        (
            "sdxl_config",
            "generation:\n  quality_presets:\n    a: {steps: 1, cfg_scale: 1, stepz: 2}\n",
            3,
            "generation.quality_presets.a.stepz",
            "'steps'",
        ),
        ("controlnet_config", "preprocessing:\n  cany: {}\n", 2, "preprocessing.cany", "'canny'"),
        (
            "controlnet_config",
            "preprocessing:\n  canny:\n    low_treshold: 3\n",
            3,
            "preprocessing.canny.low_treshold",
            "'low_threshold'",
        ),
    ],
)
def test_an_unknown_key_warns_with_its_place_and_the_nearest(load, file, text, line, key, hint):
    registry = load(**{"lora_registry": LUCA, file: text})
    assert [p for p in registry.problems if p.severity == "error"] == []
    ((at, where, message),) = found(registry, "warning")
    assert (at, where) == (line, key)
    assert "unknown key" in message
    assert hint in message


WRONG = [
    ("lora_registry", "characters.luca.default_weight", "'0.8'", "number"),
    ("lora_registry", "characters.luca.default_weight", ".nan", "nan"),
    ("lora_registry", "characters.luca.default_weight", "-.inf", "inf"),
    ("lora_registry", "characters.luca.default_weight", "true", "number"),
    ("lora_registry", "characters.luca.default_weight", "100", "less than or equal to 10"),
    ("lora_registry", "characters.luca.name", "[Luca]", "string"),
    ("lora_registry", "characters.luca.name", "1984", "in quotes"),
    ("lora_registry", "characters.luca.lora_path", "''", "at least 1 character"),
    ("lora_registry", "characters.luca.lora_path", r'"C:\new\table.safetensors"', "backslash"),
    ("lora_registry", "characters.luca.trigger_words", "{a: 1}", "list"),
    ("lora_registry", "characters.luca.trigger_words.1", "[luca, no]", "in quotes"),
    ("lora_registry", "characters.luca", "[name, Luca]", "mapping"),
    ("character_presets", "luca.generation_params", "[35]", "dictionary"),
    ("character_presets", "luca.generation_params.steps", "-3", "greater than or equal to 1"),
    ("character_presets", "luca.generation_params.steps", "30.5", "integer"),
    ("character_presets", "luca.generation_params.steps", "9" * 5000, "integer"),
    ("character_presets", "luca.generation_params.cfg_scale", ".nan", "nan"),
    ("character_presets", "luca.generation_params.size", "[1000, 1001]", "multiple of 8"),
    ("character_presets", "luca.generation_params.size", "[1024, 1024, 3]", "two whole"),
    ("character_presets", "luca.generation_params.size", "1024", "[width, height]"),
    ("character_presets", "luca.generation_params.scheduler", "Eulr", "Did you mean 'Euler'"),
    ("character_presets", "luca.consistency_threshold", "65", "less than or equal to 1"),
    ("character_presets", "luca.lora_weight", "100", "less than or equal to 10"),
    ("sdxl_config", "generation.quality_presets.high.steps", "0", "greater than or equal to 1"),
    ("sdxl_config", "generation.quality_presets.high.cfg_scale", "yes", "number"),
    ("sdxl_config", "generation.quality_presets.high.size", "[8, 8]", "from 16"),
    ("sdxl_config", "generation.default_size", "[1024, '1024']", "integer"),
    ("sdxl_config", "generation.scheduler", "Nope", "DPMSolverMultistepScheduler"),
    ("controlnet_config", "controlnets.canny.default_strength", "-0.1", "greater than"),
    ("controlnet_config", "controlnets.canny.default_strength", ".inf", "10"),
    ("controlnet_config", "preprocessing.canny.low_threshold", ".inf", "finite"),
    ("controlnet_config", "preprocessing.openpose.detect_face", "1", "boolean"),
]


def nested(key: str, value: str) -> tuple[str, int]:
    """YAML that puts `value` at the dotted `key`, one level a line, with the line it stands on."""
    required = {
        "luca": "name: Luca",
        "high": "cfg_scale: 8.0\nsteps: 40",
        "canny": "model: m",
    }
    lines: list[str] = []
    parts = [part for part in key.split(".") if not part.isdigit()]
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        lines.append(f"{'  ' * depth}{part}:{' ' + value if last else ''}")
        place = len(lines)
        if not last:
            lines += [
                f"{'  ' * (depth + 1)}{line}"
                for line in required.get(part, "").splitlines()
                if not line.startswith(f"{parts[depth + 1]}:")
            ]
    return "\n".join(lines) + "\n", place


@pytest.mark.parametrize(("file", "key", "value", "expected"), WRONG)
def test_a_wrong_value_is_a_problem_with_place_value_and_expectation(
    load, file, key, value, expected
):
    text, line = nested(key, value)
    registry = load(**{"lora_registry": LUCA, file: text})
    problems = [p for p in registry.problems if p.severity == "error" and p.key.startswith(key)]
    assert problems, registry.problems
    assert {problem.file.name for problem in problems} == {f"{file}.yaml"}
    assert {problem.line for problem in problems} == {line}
    assert any(expected in problem.message for problem in problems)
    assert all(len(problem.message) < 1000 for problem in problems)
    assert str(problems[0]).startswith(f"{problems[0].file}:{line}: {key}")


def test_a_missing_key_is_reported_at_its_entry(load):
    registry = load(lora_registry="characters:\n  luca:\n    trigger_words: [luca]\n")
    assert found(registry)[0][:2] == (2, "characters.luca.name")


def test_one_broken_entry_hides_no_other_and_says_why_when_asked_for(load):
    registry = load(
        lora_registry="""
characters:
  luca: {name: 3}
  alberto: {name: Alberto}
backgrounds: [portorosso]
styles:
  pixar_3d: {name: Pixar}
""",
        sdxl_config="""
generation:
  quality_presets: {draft: {steps: zero, cfg_scale: 7}, high: {steps: 40, cfg_scale: 8}}
  default_size: [1000, 1001]
  scheduler: Euler
""",
        controlnet_config="controlnets: {depth: 1, canny: {model: m}}",
    )
    assert registry.names("character") == ["alberto"]
    assert registry.names("style") == ["pixar_3d"]
    assert list(registry.quality) == ["high"]
    assert registry.control("canny").model == "m"
    assert registry.defaults.scheduler == "Euler", "a wrong size must not hide the scheduler"
    assert registry.defaults.size == (1024, 1024)
    for ask, name in [
        (lambda: registry.character("luca"), r"lora_registry.yaml:3: characters.luca.name: is 3"),
        (lambda: registry.quality_preset("draft"), r"sdxl_config.yaml:3: .*draft.steps: is 'zero'"),
        (lambda: registry.control("depth"), r"controlnet_config.yaml:1: controlnets.depth: "),
    ]:
        with pytest.raises(ConfigError, match=name):
            ask()


def test_an_entry_with_hundreds_of_problems_still_gives_one_readable_message(load):
    words = ", ".join(str(number) for number in range(500))
    registry = load(lora_registry=f"characters: {{luca: {{name: a, trigger_words: [{words}]}}}}")
    with pytest.raises(ConfigError, match="and 496 more") as error:
        registry.character("luca")
    assert len(str(error.value)) < 1500


def test_an_unknown_entry_names_the_nearest_and_the_known(load):
    registry = load(lora_registry="characters: {luca: {name: a}, giulia: {name: b}}")
    with pytest.raises(ConfigError, match=r"Did you mean 'giulia'\? Known: luca, giulia"):
        registry.character("Guilia")
    with pytest.raises(ConfigError, match=r"Known: none"):
        registry.entry("style", "pixar_3d")


def test_a_word_of_the_widgets_cannot_be_an_id(load):
    registry = load(
        lora_registry="styles:\n  none: {name: Nothing}\n",
        sdxl_config="""
generation: {quality_presets: {"character's own": {steps: 1, cfg_scale: 1}}}
""",
    )
    assert registry.names("style") == []
    assert registry.quality == {}
    assert ["rename the entry" in message for _, _, message in found(registry)] == [True, True]


def test_a_configured_scheduler_that_this_comfyui_lacks_breaks_its_preset(write):
    folder = write(
        sdxl_config="generation: {quality_presets: {a: {steps: 1, cfg_scale: 1, "
        "scheduler: DPMSolverMultistepScheduler}, b: {steps: 1, cfg_scale: 1}}}"
    )
    registry = load_registry([folder], SamplerVocabulary(["euler"], ["normal"]))
    assert list(registry.quality) == ["b"]
    with pytest.raises(ConfigError, match="dpmpp_2m/normal"):
        registry.quality_preset("a")


def test_a_shown_value_is_short_and_cheap_however_large(load):
    text = f"big: &big {'x' * 100_000}\nstyles:\n  a: {{name: [{', '.join(['*big'] * 5000)}]}}\n"
    (_, _, message), *_ = found(load(lora_registry=text))
    assert len(message) < 300


def test_nearest_ignores_case_and_stays_silent_for_the_unlike():
    assert nearest("LUCCA", ["luca", "giulia"]) == " Did you mean 'luca'?"
    assert nearest("xyz", ["luca"]) == ""


def test_a_problem_without_line_is_still_a_place(tmp_path):
    assert str(Problem("error", tmp_path / "a.yaml", 0, "", "gone")) == f"{tmp_path}/a.yaml: gone"


def test_a_broken_entry_stays_in_the_combo_and_says_why_when_used(tmp_path):
    text = "styles:\n  good: {name: g}\n  bad: {name: b, default_weight: heavy}\n"
    (tmp_path / "lora_registry.yaml").write_text(text)
    registry = load_registry([tmp_path])
    assert registry.names("style") == ["good"]
    assert registry.choices("style") == ["good", "bad"]
    with pytest.raises(ConfigError, match=r"lora_registry.yaml:3.*'heavy'"):
        registry.entry("style", "bad")


def test_broken_preprocessing_is_not_passed_over(tmp_path):
    text = "preprocessing:\n  canny: {low_threshold: low}\n  depth: {model_type: DPT_Hybrid}\n"
    (tmp_path / "controlnet_config.yaml").write_text(text)
    registry = load_registry([tmp_path])
    with pytest.raises(ConfigError, match=r"controlnet_config.yaml:2.*'low'"):
        registry.preprocessing("canny")
    assert registry.preprocessing("depth").model_type == "DPT_Hybrid"
    assert registry.preprocessing("openpose").detect_hands is True
    assert registry.preprocessing("seg") is None


def test_the_whole_hash_changes_with_anything_usable(tmp_path):
    file = tmp_path / "sdxl_config.yaml"
    hashes = set()
    for text in (
        "generation: {quality_presets: {a: {steps: 1, cfg_scale: 1}}}",
        "generation: {quality_presets: {b: {steps: 1, cfg_scale: 1}}}",
        "generation: {quality_presets: {b: {steps: 1, cfg_scale: 1}}, default_size: [512, 512]}",
    ):
        file.write_text(text)
        hashes.add(load_registry([tmp_path]).content_hash)
    (tmp_path / "controlnet_config.yaml").write_text("preprocessing: {canny: {low_threshold: 5}}")
    hashes.add(load_registry([tmp_path]).content_hash)
    assert len(hashes) == 4
