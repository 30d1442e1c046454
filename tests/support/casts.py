"""Registries for tests of prompts: the shipped one, and one of words hard to put together."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from animation_studio.registry import Registry, load_registry

__all__ = ["NASTY_CAST", "SHIPPED_CAST", "cast"]

SHIPPED_CAST = Path(__file__).resolve().parents[2] / "configs"

NASTY_CAST = {
    "lora_registry": r"""
characters:
  lcp:
    name: "Luca (sea monster)"
    trigger_words: ["lcp", "luca (sea monster)", "(green eyes:1.2)", "fin:1.4", "embedding:luca"]
  knight:
    name: "The Knight"
    trigger_words: ["sword,shield", "((armour))", "(", "\\"]
  twin:
    name: "Luca Paguro"
    trigger_words: ["lcp", "a_b", "B R E A K", "BREAK"]
  mute: {name: "Mute"}
backgrounds:
  sea: {name: Sea, trigger_words: ["(sea, waves:0.8)", "lcp"]}
styles:
  ink: {name: Ink, trigger_words: ["{ink|wash}", "ink)"]}
expressions:
  happy: {name: Happy, trigger_words: [":)", "(smile)"]}
""",
    "character_presets": r"""
lcp:
  base_prompt: "(LCP, boy:1.1), [scales], luca paguro"
  negative_prompt: "(flat:1.3), run"
knight: {lora_name: knight, base_prompt: "run, knight (", negative_prompt: "x"}
king: {lora_name: knight, character_name: King, base_prompt: "(crown:1.2), embedding:king"}
""",
}


def cast(files: Path | dict[str, str]) -> Registry:
    """Return the registry of a folder, or of texts by file name without `.yaml`."""
    if isinstance(files, Path):
        return load_registry([files])
    with TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / f"{name}.yaml").write_text(text, encoding="utf-8")
        return load_registry([Path(folder)])
