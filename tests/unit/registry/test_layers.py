"""Layers over each other: add, replace, remove; and what happens when one of them is unreadable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from animation_studio.errors import ConfigError
from animation_studio.registry import load_registry

ROOT = Path(__file__).parents[3]
BASE = """
characters:
  luca: {name: Luca, trigger_words: [luca, boy], default_weight: 0.5}
  alberto: {name: Alberto}
  giulia: {name: Giulia}
styles:
  pixar_3d: {name: Pixar}
"""


def test_a_later_layer_adds_replaces_whole_entries_and_removes(write):
    base = write("base", lora_registry=BASE)
    user = write(
        "user",
        lora_registry="""
characters:
  ciccio: {name: Ciccio}
  luca: {name: Luca P}
  alberto: null
styles:
""",
    )
    third = write("third", lora_registry="characters: {alberto: {name: Alberto S}, ciccio: ~}")
    two, three = load_registry([base, user]), load_registry([base, user, third])
    assert two.names("character") == ["luca", "giulia", "ciccio"]
    assert two.character("luca").entry.trigger_words == [], "an entry is replaced whole"
    assert two.character("luca").weight == 0.8
    assert two.names("style") == ["pixar_3d"], "an empty section removes nothing"
    assert three.names("character") == ["luca", "giulia", "alberto"]
    assert two.problems == three.problems == ()
    with pytest.raises(ConfigError, match="not in the configuration"):
        two.character("alberto")


def test_every_table_is_overlaid(write):
    quality = "generation: {{quality_presets: {{{}}}}}"
    control = "controlnets: {{{}}}"
    base = write(
        "base",
        sdxl_config=quality.format("a: {steps: 1, cfg_scale: 1}, b: {steps: 2, cfg_scale: 2}"),
        controlnet_config=control.format("x: {model: x}, y: {model: y}")
        + "\npreprocessing: {canny: {low_threshold: 1, high_threshold: 2}}",
    )
    user = write(
        "user",
        sdxl_config=quality.format("b: ~, a: {steps: 9, cfg_scale: 1}"),
        controlnet_config=control.format("x: ~, y: {model: other}")
        + "\npreprocessing: {openpose: {detect_face: false}}",
    )
    registry = load_registry([base, user])
    assert {key: preset.steps for key, preset in registry.quality.items()} == {"a": 9}
    assert {key: kind.model for key, kind in registry.controls.items()} == {"y": "other"}
    assert registry.preprocessors["canny"].low_threshold == 1
    assert registry.preprocessors["openpose"].detect_face is False


def test_a_broken_entry_over_a_good_one_is_not_used_and_a_later_layer_mends_it(write):
    base = write("base", lora_registry=BASE)
    user = write("user", lora_registry="characters: {luca: {name: 1}}")
    third = write("third", lora_registry="characters: {luca: {name: Again}}")
    registry = load_registry([base, user])
    assert "luca" not in registry.names("character")
    with pytest.raises(ConfigError, match=r"user/lora_registry.yaml:1: characters.luca.name"):
        registry.character("luca")
    assert load_registry([base, user, third]).character("luca").name == "Again"


PRESETS = "luca: {lora_weight: 0.3}\nalberto: {}\n"


def test_removing_a_shipped_character_leaves_no_problem_about_its_shipped_preset(write):
    base = write("base", lora_registry=BASE, character_presets=PRESETS)
    registry = load_registry([base, write("user", lora_registry="characters: {luca: ~}")])
    assert registry.names("character") == ["alberto", "giulia"]
    assert registry.problems == ()


def test_a_users_preset_for_a_removed_entry_is_a_problem(write):
    base = write("base", lora_registry=BASE)
    user = write("user", lora_registry="characters: {luca: ~}", character_presets="luca: {}\n")
    (problem,) = load_registry([base, user]).problems
    assert "no character 'luca'" in problem.message


UNREADABLE = {
    "tab": (b"characters:\n\tluca: {name: x}\n", 2, "a tab stands"),
    "truncated": (b"characters:\n  luca: {name: x, trigger", 2, "not valid YAML"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 1, "not UTF-8"),
    "latin-1": ("characters:\n  luca: {name: Caffè}\n".encode("latin-1"), 2, "save it as UTF-8"),
    "utf-16 without its mark": ("characters: {}\n".encode("utf-16-le"), 1, "U+0000"),
    "utf-16 cut short": ("characters: {}\n".encode("utf-16")[:-1], 1, "not UTF-16"),
    "list": (b"# cast\n- luca\n", 2, "mapping of keys to values"),
    "text": (b"luca\n", 1, "mapping of keys to values"),
    "two documents": (b"characters: {}\n---\nstyles: {}\n", 2, "another document"),
    "windows path": (b'characters:\n  luca: {name: L, lora_path: "C:\\luca"}\n', 2, "quotes"),
    "unknown alias": (b"characters: *cast\n", 1, "undefined alias"),
    "deep lists": (b"characters: " + b"[" * 100_000, 1, "levels"),
    "deep mappings": (b"characters: " + b"{a: " * 5_000, 1, "levels"),
    "deep block": (b"characters:\n" + b"- " * 5_000 + b"x\n", 2, "levels"),
    "recursive alias": (b"characters: &c\n  luca: *c\n", 1, "levels"),
    "huge": (b"# " + b"x" * (4 << 20), 0, "at most 4,194,304"),
}
LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
UNREADABLE["billion laughs"] = (LAUGHS.encode(), 1, "100,000 values")
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)
)
UNREADABLE["billion merges"] = (MERGES.encode(), None, "100,000 values")
UNREADABLE["empty merges"] = (MERGES.replace("{x: 1}", "{}").encode(), None, "100,000 values")
UNREADABLE["many values"] = (("x: [" + "1, " * 120_000 + "]").encode(), 1, "100,000 values")


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_file_blocks_its_lookups_with_the_reason_and_names_still_list(write, name):
    data, line, reason = UNREADABLE[name]
    base = write("base", lora_registry=BASE, character_presets="luca: {base_prompt: luca}")
    user = write("user", lora_registry=data, character_presets="mine: {lora_name: luca2}")
    registry = load_registry([base, user])
    (problem,) = registry.problems  # and no second one about what that file would have defined
    assert problem.severity == "error"
    assert problem.file == user / "lora_registry.yaml"
    assert line is None or problem.line == line
    assert reason in problem.message
    assert registry.names("character") == ["luca", "alberto", "giulia"]
    for ask in (lambda: registry.character("luca"), lambda: registry.entry("style", "pixar_3d")):
        with pytest.raises(ConfigError, match="Until that file can be read") as error:
            ask()
        assert str(problem) in str(error.value)


def test_an_unreadable_presets_file_blocks_characters_and_nothing_else(write):
    base = write("base", lora_registry=BASE)
    registry = load_registry([base, write(character_presets="luca:\n\t- x")])
    assert registry.entry("style", "pixar_3d").name == "Pixar"
    with pytest.raises(ConfigError, match=r"character_presets.yaml:2: a tab"):
        registry.character("luca")


def test_what_stands_in_a_files_place_is_a_problem_and_never_waited_for(write, tmp_path):
    base = write("base", lora_registry=BASE)
    folder, link, pipe = tmp_path / "folder", tmp_path / "link", tmp_path / "pipe"
    for place in (folder, link, pipe):
        place.mkdir()
    (folder / "lora_registry.yaml").mkdir()
    (link / "lora_registry.yaml").symlink_to(tmp_path / "unmounted" / "lora_registry.yaml")
    os.mkfifo(pipe / "lora_registry.yaml")
    for layer, reason in ((folder, "not a file"), (link, "No such file"), (pipe, "not a file")):
        registry = load_registry([base, layer])
        with pytest.raises(ConfigError, match=reason):
            registry.character("luca")


def test_layers_that_are_not_there_are_skipped(write, tmp_path):
    base = write("base", lora_registry=BASE)
    a_file = tmp_path / "file"
    a_file.write_text("x")
    registry = load_registry([tmp_path / "nowhere", base, a_file])
    assert registry.problems == ()
    assert registry.character("luca").name == "Luca"


# Root may read everything, so the script gives that up first (after it imported what it needs).
WITHOUT_PERMISSION = """
import os, sys, tempfile
from pathlib import Path
from animation_studio.registry import RegistryStore, load_registry

load_registry([Path("configs")])
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
with tempfile.TemporaryDirectory() as name:
    folder = Path(name) / "user"
    folder.mkdir()
    file = folder / "lora_registry.yaml"
    file.write_text("characters: {luca: {name: Mine}}")
    target = file if sys.argv[1] == "file" else folder
    store = RegistryStore([folder])
    target.chmod(0)
    print(*store.current().problems)
    target.chmod(0o700)
    print(store.current().names("character"), store.current().problems)
"""


@pytest.mark.parametrize("forbidden", ["file", "folder"])
def test_a_file_or_folder_without_permission_is_a_problem_until_it_is_given(forbidden):
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_PERMISSION, forbidden],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    before, after = result.stdout.splitlines()
    assert "lora_registry.yaml: cannot be read: " in before
    assert "Permission denied" in before
    assert after == "['luca'] ()"


def test_a_key_that_stands_twice(load):
    registry = load(
        lora_registry="""
characters:
  luca: {name: A}
  alberto: {name: B, trigger_words: [a], trigger_words: [b]}
  luca: {name: C}
  giulia: {name: D}
styles:
  one: {name: One}
styles:
  two: {name: Two}
"""
    )
    assert registry.names("character") == ["giulia"]
    assert registry.names("style") == ["one", "two"], (
        "a section that stands twice keeps both halves"
    )
    twice = {(p.line, p.key) for p in registry.problems if "stands twice" in p.message}
    assert {(5, "characters.luca"), (4, "characters.alberto.trigger_words"), (9, "styles")} <= twice
    with pytest.raises(ConfigError, match="on line 3 and on line 5"):
        registry.character("luca")
    with pytest.raises(ConfigError, match="trigger_words: this key stands twice"):
        registry.character("alberto")


def test_sections_inside_a_section_that_stands_twice_keep_both_halves(load):
    registry = load(
        sdxl_config="""
generation: {quality_presets: {a: {steps: 1, cfg_scale: 1}, c: {steps: 1, cfg_scale: 1}}}
generation: {quality_presets: {b: {steps: 2, cfg_scale: 2}, c: {steps: 2, cfg_scale: 2}}}
"""
    )
    assert list(registry.quality) == ["a", "b"]
    with pytest.raises(ConfigError, match=r"quality_presets.c: this key stands twice"):
        registry.quality_preset("c")


def test_merge_keys_bring_defaults_that_the_entry_overrides(load):
    registry = load(
        lora_registry="""
characters:
  luca: &luca
    name: Luca
    trigger_words: [luca]
    default_weight: 0.4
  luca_sea: {<<: *luca, name: Sea}
  both: {<<: [{name: First}, *luca], lora_path: x.safetensors}
  bad: {<<: 3, name: Bad}
  alias: *luca
"""
    )
    assert registry.names("character") == ["luca", "luca_sea", "both", "alias"]
    sea, both = registry.character("luca_sea"), registry.character("both")
    assert (sea.name, sea.weight, sea.entry.trigger_words) == ("Sea", 0.4, ["luca"])
    assert (both.name, both.weight) == ("First", 0.4)
    (problem,) = registry.problems
    assert (problem.line, problem.key) == (9, "characters.bad")


def test_keys_and_words_are_taken_as_they_are_written(load):
    registry = load(
        lora_registry="""
characters:
  no: {name: 2024-13-45, trigger_words: [16:9, 2024-01-01, =, <<, 1e3, "no"]}
  1: {name: One}
  1.50: {name: Half}
  ~: {name: Tilde}
  "a.b": {name: Dot, x: 1, x: 2}
  a: {name: A}
"""
    )
    assert registry.names("character") == ["no", "1", "1.50", "~", "a"]
    entry = registry.character("no").entry
    assert entry.name == "2024-13-45"
    assert entry.trigger_words == ["16:9", "2024-01-01", "=", "<<", "1e3", "no"]


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ("luca: !mine {name: L}", "tag '!mine'"),
        ("luca: {name: !!python/object/apply:os.getcwd []}", "tag"),
        ("luca: {name: !!binary aGk=}", "tag"),
        ("luca: {name: L, ? [a] : b}", "plain word"),
    ],
)
def test_odd_yaml_in_one_entry_leaves_the_others(load, odd, reason):
    registry = load(lora_registry=f"characters:\n  {odd}\n  giulia: {{name: G}}\n")
    assert registry.names("character") == ["giulia"]
    with pytest.raises(ConfigError, match=rf"lora_registry.yaml:2: .*{reason}"):
        registry.character("luca")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_the_encodings_that_editors_write(load, encoding):
    text = "characters:\r\n  luca: {name: 'Caffè 🌊'}\r\n"
    assert load(lora_registry=text.encode(encoding)).character("luca").name == "Caffè 🌊"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~\n", "\ufeff"])
def test_an_empty_file_is_no_problem(load, text):
    assert load(lora_registry=text, sdxl_config=text).problems == ()
