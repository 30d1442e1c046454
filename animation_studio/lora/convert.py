"""From the names and strengths of a file to those that ComfyUI core patches.

What core takes stays untouched. What it drops silently (diffusers' and PEFT's spellings) gets
kohya's names, and the scale that PEFT computes from its configuration is written as `.alpha`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LoraError
from .names import component_of, core_name, strip_peft
from .parts import PEFT_MAGNITUDE, Parts
from .peft_config import Scaling

if TYPE_CHECKING:
    import torch

__all__ = ["Source", "convert"]

_KOHYA_ENDINGS = {
    "up": ".lora_up.weight",
    "down": ".lora_down.weight",
    "mid": ".lora_mid.weight",
    "magnitude": PEFT_MAGNITUDE,
}
# Hidden widths of the text encoders: CLIP-L, OpenCLIP-bigG, OpenCLIP-H (SD 2, the only one there).
_TEXT_WIDTHS = {768: "text_encoder", 1280: "text_encoder_2", 1024: "text_encoder"}


@dataclass(frozen=True)
class Source:
    """One file as read: its tensors, their modules and the rest, and its configured strengths."""

    path: Path
    tensors: dict[str, torch.Tensor]
    modules: dict[str, Parts]
    unknown: list[str]
    component: str | None
    scalings: Mapping[str | None, Scaling]


def convert(sources: Sequence[Source], path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of all files of one adapter under the names that core patches.

    Raises LoraError where two tensors would get the same name, and where a text encoder cannot be
    told by its width.
    """
    tensors: dict[str, torch.Tensor] = {}
    for source in sources:
        for name, tensor in _converted(source):
            if name in tensors:
                raise LoraError(
                    f"{path}: two of its tensors mean the same layer ({name:.200}). "
                    "Save one adapter per file."
                )
            tensors[name] = tensor
    return tensors


def _converted(source: Source) -> Iterator[tuple[str, torch.Tensor]]:
    split = {module: component_of(module) for module in source.modules}
    text = {module: inner for module, (component, inner) in split.items() if component == "text"}
    text_encoder = source.component or (_text_encoder(source, text) if text else None)
    for module, (component, inner) in split.items():
        component = source.component or (text_encoder if module in text else component)
        name = core_name(component, inner)
        if name is None and inner.startswith("diffusion_model.") and inner != module:
            name = inner  # ComfyUI's own names under PEFT's prefix
        if name is None and "magnitude" in source.modules[module]:
            name = module  # the bridge's DoRA knows kohya's endings only
        yield from _module(source, module, name)
        alpha = _alpha(source, module, component, inner)
        if alpha is not None:
            yield f"{name or module}.alpha", alpha
    for key in source.unknown:
        yield key, source.tensors[key]


def _module(source: Source, module: str, name: str | None) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of one module under its new name, or under their own where it stays."""
    parts = source.modules[module]
    for part, key in parts.items():
        tensor = source.tensors[key]
        if part == "alpha" and tensor.numel() != 1:
            raise LoraError(f"{source.path}: {key!r:.200} is not one number: the file is damaged.")
        if part == "magnitude":
            if tensor.numel() != source.tensors[parts["up"]].shape[0]:
                raise LoraError(
                    f"{source.path}: {key!r:.200} does not have one number per output: the file is "
                    "damaged. Copy or download it again."
                )
            yield f"{name or module}{PEFT_MAGNITUDE}", tensor.reshape(-1)
        elif part == "dora_scale" and tensor.ndim == 1:
            # Core reads one dimension along the wrong axis and loses it without a word.
            window = source.tensors[parts["down"]].ndim - 1 if "down" in parts else 1
            yield f"{name or module}.dora_scale", tensor.reshape(-1, *[1] * window)
        elif name is None:
            yield key, tensor
        else:
            yield f"{name}{_KOHYA_ENDINGS.get(part, key[len(module) :])}", tensor


def _alpha(source: Source, module: str, component: str | None, inner: str) -> torch.Tensor | None:
    """Return the alpha that the configuration gives a module, None where it gives none."""
    import torch

    parts = source.modules[module]
    scaling = source.scalings.get(component, source.scalings.get(None))
    if scaling is None or "alpha" in parts or "down" not in parts:
        return None
    rank = source.tensors[parts["down"]].shape[0]
    # In a folder the patterns speak of PEFT's full names, in diffusers' metadata of inner ones.
    named = inner if component in source.scalings else strip_peft(module)
    return torch.tensor(scaling.alpha_for(named, rank), dtype=torch.float64)


def _text_encoder(source: Source, modules: Mapping[str, str]) -> str:
    """Tell the text encoder of a file that does not name it, by its hidden width."""
    for module, inner in modules.items():
        parts = source.modules[module]
        # q, k, v and out projections and the first layer of the MLP all read the hidden state.
        if inner.endswith(("_proj", "fc1")) and "down" in parts:
            width = source.tensors[parts["down"]].shape[-1]
            if width in _TEXT_WIDTHS:
                return _TEXT_WIDTHS[width]
            raise LoraError(
                f"{source.path}: a text encoder of width {width} is not one of SD 1.5, SD 2 or "
                f"SDXL (widths {', '.join(str(known) for known in _TEXT_WIDTHS)})."
            )
    raise LoraError(
        f"{source.path}: the text encoder its layers belong to cannot be told. Save the adapter "
        "in a folder named text_encoder or text_encoder_2."
    )
