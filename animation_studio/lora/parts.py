"""The parts of a LoRA module: which tensor belongs to what, and how large the weight it changes is.

A key is a module name and a part: `lora_unet_mid_block..._to_q` + `.lora_up.weight`. The endings
are those that ComfyUI core 0.3.75 reads (comfy/weight_adapter/*.py, comfy/lora.py), and PEFT's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = [
    "LYCORIS_PARTS",
    "PEFT_MAGNITUDE",
    "Parts",
    "group",
    "missing_part",
    "split_key",
    "target_size",
]

PEFT_MAGNITUDE = ".peft_magnitude"
"""Ending of a DoRA magnitude (shape [out]) that follows PEFT's formula.

Core's own `.dora_scale` follows another one (see bridge/dora.py), so the two must not be mixed up.
"""

Parts = dict[str, str]  # part -> the tensor's full name

_ENDINGS = {
    "lora_up.weight": "up",
    "lora_down.weight": "down",
    "lora_mid.weight": "mid",
    "lora.up.weight": "up",
    "lora.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_B.weight": "up",
    "lora_A.weight": "down",
    "lora_B": "up",
    "lora_A": "down",
    "lora_magnitude_vector": "magnitude",
    PEFT_MAGNITUDE.lstrip("."): "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "alpha": "alpha",
    "dora_scale": "dora_scale",
    "reshape_weight": "reshape_weight",
    **{f"hada_{name}": f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{
        f"lokr_{name}": f"lokr_{name}"
        for name in ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")
    },
    **{f"{name}.weight": f"glora_{name}" for name in ("a1", "a2", "b1", "b2")},
    "oft_blocks": "oft_blocks",
    "rescale": "rescale",
    "diff": "diff",
    "diff_b": "diff_b",
    "set_weight": "set_weight",
    "w_norm": "w_norm",
    "b_norm": "b_norm",
}
LYCORIS_PARTS = frozenset(
    part for part in _ENDINGS.values() if part.startswith(("hada_", "lokr_", "glora_", "oft_"))
)
_TOGETHER = (
    ("up", "down"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    ("hada_t1", "hada_t2"),
    ("lokr_w1_a", "lokr_w1_b"),
    ("lokr_w2_a", "lokr_w2_b"),
    ("glora_a1", "glora_a2", "glora_b1", "glora_b2"),
)


def split_key(key: str) -> tuple[str, str] | None:
    """Split a tensor's name into module name and part, or None where the ending is not known.

    PEFT puts the adapter's name in when it is saved raw: `X.lora_A.default.weight`.
    """
    pieces = key.split(".")
    if len(pieces) > 3 and pieces[-3] in ("lora_A", "lora_B") and pieces[-1] == "weight":
        return ".".join(pieces[:-3]), "up" if pieces[-3] == "lora_B" else "down"
    if len(pieces) > 2 and pieces[-2] == "lora_magnitude_vector":
        return ".".join(pieces[:-2]), "magnitude"
    if len(pieces) > 3 and pieces[-3] == "lora_magnitude_vector" and pieces[-1] == "weight":
        return ".".join(pieces[:-3]), "magnitude"
    for count in (3, 2, 1):
        part = _ENDINGS.get(".".join(pieces[-count:])) if len(pieces) > count else None
        if part is not None:
            return ".".join(pieces[:-count]), part
    # diffusers' attention processors: `X.processor.to_q_lora.up.weight`
    for ending, part in (("_lora.up.weight", "up"), ("_lora.down.weight", "down")):
        if key.endswith(ending):
            return key[: -len(ending)], part
    return None


def group(keys: Iterable[str]) -> tuple[dict[str, Parts], list[str]]:
    """Group tensor names into modules (name -> its parts) and return the names that fit none.

    The second of two names for the same part of a module counts as fitting none.
    """
    modules: dict[str, Parts] = {}
    unknown: list[str] = []
    for key in keys:
        split = split_key(key)
        if split is None:
            unknown.append(key)
            continue
        parts = modules.setdefault(split[0], {})
        if split[1] in parts:
            unknown.append(key)
        else:
            parts[split[1]] = key
    return modules, unknown


def missing_part(parts: Mapping[str, str]) -> str | None:
    """Return the name of a part that must be there and is not, or None.

    Core raises KeyError, or fails silently while sampling, on modules that are not complete.
    """
    for together in _TOGETHER:
        there = [part for part in together if part in parts]
        if there and len(there) < len(together):
            return next(part for part in together if part not in parts)
    if any(part.startswith("lokr_") for part in parts):
        for factor in ("lokr_w1", "lokr_w2"):
            if factor not in parts and f"{factor}_a" not in parts:
                return factor
    # PEFT has DoRA on plain LoRA only.
    return "up" if "magnitude" in parts and "up" not in parts else None


def target_size(
    parts: Mapping[str, str], tensors: Mapping[str, torch.Tensor]
) -> tuple[int, int] | None:
    """Return (output width, number of elements) of the weight that a module changes.

    None where the parts do not tell: OFT and GLoRA (core's own check holds there) and modules that
    reshape the weight. A LoRA whose two matrices do not fit each other gives (0, 0): it fits
    nothing.
    """
    shape = {part: tuple(tensors[name].shape) for part, name in parts.items()}
    if "reshape_weight" in parts:
        return None
    for part in ("diff", "w_norm", "set_weight"):
        if part in shape:
            return (shape[part][0] if shape[part] else 0), math.prod(shape[part])
    if "up" in shape:
        return _lora_size(shape)
    if "hada_w1_a" in shape:
        return _loha_size(shape)
    if any(part.startswith("lokr_") for part in shape):
        return _lokr_size(shape)
    return None


def _lora_size(shape: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    up, down = shape["up"], shape["down"]
    if len(up) < 2 or len(down) < 2 or math.prod(up[1:]) != down[0]:
        return 0, 0
    window = math.prod(shape["mid"][2:]) if "mid" in shape else 1
    return up[0], up[0] * math.prod(down[1:]) * window


def _loha_size(shape: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    first, second = shape["hada_w1_a"], shape["hada_w1_b"]
    if len(first) != 2 or len(second) != 2:
        return 0, 0
    if "hada_t1" in shape:  # Tucker form: the first factor is [rank, out]
        return first[1], first[1] * second[1] * math.prod(shape["hada_t1"][2:])
    return first[0], first[0] * second[1]


def _lokr_size(shape: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    out, total = 1, 1
    for factor in ("lokr_w1", "lokr_w2"):
        whole = shape.get(factor)
        if whole is None:
            first, second = shape[f"{factor}_a"], shape[f"{factor}_b"]
            core = shape.get("lokr_t2") if factor == "lokr_w2" else None
            if len(first) != 2 or len(second) < 2:
                return 0, 0
            rows = first[1] if core else first[0]
            whole = (rows, *second[1:], *(core[2:] if core else ()))
        if len(whole) < 2:
            return 0, 0
        out, total = out * whole[0], total * math.prod(whole)
    return out, total
