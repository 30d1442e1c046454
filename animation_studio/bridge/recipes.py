"""Which pictures are of one recipe: the same graph and the same files, but for the seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from comfy_api.latest import io

import nodes as core_nodes

from ..errors import StudioError
from ..files import file_stamp
from ..runs.provenance import recipe_of
from .guards import without_room

if TYPE_CHECKING:
    from .comfy_types import DynamicPrompt

__all__ = ["recipe_for"]

# What these give depends on what was judged before, not only on what goes in.
_EVER_NEW = {"AnimStudio_UntilConsistent", "AnimStudio_JudgeTry"}
# These pass on what comes in: that they always run says nothing about it.
_PASSING = {"AnimStudio_VRAMGuard", "AnimStudio_ResumeLLM"}
_OWN = "AnimStudio_"
# Their fingerprint is the file that they name, which has a stamp anyway.
_BY_FILE = {"LoadImage", "LoadImageMask", "LoadLatent"}


def recipe_for(values: Mapping[str, object], prompt: DynamicPrompt) -> str | None:
    """Return what tells one recipe of pictures from another, 32 hexadecimal digits.

    `values` are what samples a picture, as plain values and links, without the seed. None where it
    cannot be told: a node upstream never gives the same twice, or reads what is not known.
    """

    def fingerprinted(key: str) -> Mapping[str, object]:
        node: Mapping[str, object] = prompt.get_node(key)
        name = str(node.get("class_type"))
        if name in _EVER_NEW:
            return {**node, "is_changed": math.nan}
        if name in _PASSING:
            return {**node, "is_changed": False}
        if "is_changed" in node:
            return {**node, "is_changed": without_room(node["is_changed"])}
        # With --cache-none ComfyUI takes no fingerprints.
        return {**node, "is_changed": without_room(_fingerprint(name, node))}

    return recipe_of(fingerprinted, values, _file_stamp)


def _fingerprint(name: str, node: Mapping[str, object]) -> object:
    """The fingerprint that ComfyUI would have taken; NaN where that cannot be told."""
    kind = core_nodes.NODE_CLASS_MAPPINGS.get(name)
    if kind is None or name in _BY_FILE or not _has_fingerprint(kind):
        return False
    if not name.startswith(_OWN):
        return math.nan
    inputs = node.get("inputs")
    plain = {
        key: None if isinstance(value, list) else value
        for key, value in (inputs.items() if isinstance(inputs, Mapping) else ())
    }
    try:
        # As ComfyUI does it: a list, and None for what comes by link.
        return [kind.fingerprint_inputs(**plain)]
    except StudioError:
        return math.nan


def _has_fingerprint(kind: type) -> bool:
    base = getattr(io.ComfyNode, "fingerprint_inputs", None)
    own = getattr(kind, "fingerprint_inputs", base)
    same = getattr(own, "__func__", own) is getattr(base, "__func__", base)
    return hasattr(kind, "IS_CHANGED") if same else True


def _file_stamp(text: str) -> str:
    """Stamps of the model or input files that a widget's text can mean, "" where it means none."""
    if not 3 < len(text) < 260 or "." not in text or "\n" in text:
        return ""
    kinds = [kind for kind in folder_paths.folder_names_and_paths if kind != "custom_nodes"]
    found = [path for kind in kinds if (path := folder_paths.get_full_path(kind, text))]
    if not found and folder_paths.exists_annotated_filepath(text):
        found = [folder_paths.get_annotated_filepath(text)]
    return " ".join(file_stamp(Path(path)) for path in found)
