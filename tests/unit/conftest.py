"""ComfyUI's own reading of prompts, for the tests of those who write them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

_PARSER = ("parse_parentheses", "token_weights", "escape_important", "unescape_important")


@pytest.fixture(scope="session")
def clip(comfyui_root: Path) -> SimpleNamespace:
    """ComfyUI's own functions, alone: importing comfy.sd1_clip would load torch."""
    tree = ast.parse((comfyui_root / "comfy" / "sd1_clip.py").read_text())
    wanted = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in _PARSER]
    assert len(wanted) == len(_PARSER)
    scope: dict[str, object] = {}
    exec(compile(ast.Module(wanted, []), "sd1_clip.py", "exec"), scope)
    return SimpleNamespace(**{name: scope[name] for name in _PARSER})


@pytest.fixture(scope="session")
def read(clip: SimpleNamespace) -> Callable[[str], list[tuple[str, float]]]:
    """What SDTokenizer.tokenize_with_weights makes of a prompt before it cuts it into tokens."""

    def read(prompt: str) -> list[tuple[str, float]]:
        parsed = clip.token_weights(clip.escape_important(prompt), 1.0)
        return [(clip.unescape_important(text), weight) for text, weight in parsed]

    return read
