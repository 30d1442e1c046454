"""Reading LoRA files and PEFT folders into an `Adapter`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import LoraError, StudioError
from ..files import read_limited
from .adapter import Adapter
from .base_model import base_of
from .convert import Source, convert
from .header import Header, read_header, refuse_pickle
from .names import PEFT_PREFIX, file_format
from .parts import LYCORIS_PARTS, group, missing_part
from .peft_config import Scaling, parse_peft_config
from .weights import read_weights

__all__ = ["files_of", "read_adapter"]

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"
_COMPONENTS = ("unet", "text_encoder", "text_encoder_2", "transformer")
_DIFFUSERS_METADATA = "lora_adapter_metadata"  # diffusers/loaders/lora_base.py
_MAX_CONFIG = 4 << 20
# Far above any LoRA (the largest public ones have about 3 GB); below that a checkpoint was named.
_MAX_DATA = 16 << 30
_KEPT_METADATA = (
    "modelspec.architecture",
    "modelspec.title",
    "ss_base_model_version",
    "ss_network_module",
    "ss_output_name",
)
# What the tensors of other files than LoRAs are called.
_OTHER_KINDS = (
    (("model.diffusion_model.", "first_stage_model.", "cond_stage_model."), "a full checkpoint"),
    (("control_model.", "controlnet_", "input_hint_block."), "a ControlNet"),
    (("emb_params", "clip_g", "clip_l", "string_to_param"), "a textual-inversion embedding"),
    (("encoder.down", "decoder.up", "decoder.conv"), "a VAE"),
    (("ip_adapter.", "image_proj."), "an IP-Adapter"),
    (("down_blocks.", "text_model.", "conv_in."), "a whole model"),
)


@dataclass(frozen=True)
class _File:
    """One safetensors file of an adapter; `component` is its subfolder's, `config` lies beside."""

    weights: Path
    config: Path | None
    component: str | None = None


def read_adapter(path: Path) -> Adapter:
    """Read a LoRA: a .safetensors file, or a PEFT folder.

    A PEFT folder holds adapter_model.safetensors and adapter_config.json, or subfolders unet,
    text_encoder, text_encoder_2 that do. Raises LoraError for everything that cannot be used as it
    was trained; the message names the file, what was found and what to do.
    """
    sources, metadata, notes = [], {}, []
    formats, nbytes, total = [], 0, 0
    for file in _files(path):
        header = read_header(file.weights)
        source, form = _source(file, header)
        sources.append(source)
        formats.append("PEFT folder" if path.is_dir() and file.config else form)
        metadata.update(header.metadata)
        nbytes += header.data_nbytes
        total += len(header.tensors)
        notes += _notes(source, form)
    tensors = convert(sources, path)
    modules, _ = group(tensors)
    return Adapter(
        path=path,
        format=formats[0],
        base=base_of(modules, tensors, metadata),
        tensors=tensors,
        total_keys=total,
        nbytes=nbytes,
        metadata={key: metadata[key] for key in _KEPT_METADATA if key in metadata},
        notes=tuple(dict.fromkeys(notes)),
    )


def files_of(path: Path) -> list[Path]:
    """Return the files that `read_adapter(path)` would read; LoraError where there are none."""
    return [
        found for file in _files(path) for found in (file.weights, file.config) if found is not None
    ]


def _files(path: Path) -> list[_File]:
    try:
        if path.is_dir():
            return list(_folder_files(path))
        if not path.exists():
            raise LoraError(
                f"{path}: there is no such LoRA file or PEFT folder. Check lora_path in "
                "lora_registry.yaml."
            )
    except (OSError, ValueError) as error:
        raise LoraError(f"{path}: the LoRA cannot be looked up ({error}).") from error
    refuse_pickle(path)
    beside = path.parent / _CONFIG
    return [_File(path, beside if path.name == _WEIGHTS and beside.is_file() else None)]


def _folder_files(folder: Path) -> Iterator[_File]:
    parts = [name for name in _COMPONENTS if (folder / name / _CONFIG).is_file()]
    if (folder / _CONFIG).is_file() or (folder / _WEIGHTS).is_file():
        yield _folder_file(folder, None)
    elif parts:
        for name in parts:
            yield _folder_file(folder / name, name)
    elif (folder / _DIFFUSERS_WEIGHTS).is_file():
        yield _File(folder / _DIFFUSERS_WEIGHTS, None)
    else:
        raise LoraError(
            f"{folder}: this folder is not a PEFT adapter: it has no {_CONFIG} with a {_WEIGHTS}, "
            f"nor subfolders with them ({', '.join(_COMPONENTS)}). Name the LoRA file itself."
        )


def _folder_file(folder: Path, component: str | None) -> _File:
    weights, config = folder / _WEIGHTS, folder / _CONFIG
    for missing, other in ((weights, config), (config, weights)):
        if not missing.is_file():
            refuse = " (a .bin there is not read: save it with safe_serialization=True)"
            hint = refuse if missing == weights else ""
            raise LoraError(
                f"{folder}: the PEFT folder has {other.name} and no {missing.name}{hint}. "
                "Copy the whole folder again."
            )
    return _File(weights, config, component)


def _source(file: _File, header: Header) -> tuple[Source, str]:
    """Check and read one file: its tensors, their modules, and what gives their strength."""
    modules, unknown = group(header.tensors)
    if not modules:
        raise _no_lora(file.weights, header)
    if header.data_nbytes > _MAX_DATA:
        raise LoraError(
            f"{file.weights}: {header.data_nbytes:,} bytes of weights are too many for a LoRA."
        )
    lycoris = any(part in LYCORIS_PARTS for parts in modules.values() for part in parts)
    form = file_format(list(modules), lycoris=lycoris)
    if unknown and (file.config is not None or form in ("PEFT", "diffusers")):
        raise LoraError(
            f"{file.weights}: {len(unknown)} of its tensors are no part of a LoRA, for example "
            f"{unknown[0]!r:.200}. Leaving them out would change the result, so the adapter is "
            "refused. Save it with LoRA layers only (no biases, embeddings or saved modules)."
        )
    for name, parts in modules.items():
        missing = missing_part(parts)
        if missing is not None:
            raise LoraError(
                f"{file.weights}: the file is damaged: module {name!r:.200} has no {missing!r} "
                "tensor. Copy or download it again."
            )
    scalings = _scalings(file, header)
    if any(scaling.dora for scaling in scalings.values()) and not any(
        "magnitude" in parts for parts in modules.values()
    ):
        raise LoraError(
            f"{file.weights}: it is configured as a DoRA and has no lora_magnitude_vector. "
            "Copy or save the adapter again."
        )
    tensors = read_weights(file.weights, header)
    return Source(file.weights, tensors, modules, unknown, file.component, scalings), form


def _no_lora(path: Path, header: Header) -> LoraError:
    for starts, kind in _OTHER_KINDS:
        if any(name.startswith(starts) for name in header.tensors):
            return LoraError(f"{path}: this is {kind}, not a LoRA. Name the LoRA's own file.")
    example = next(iter(header.tensors))
    return LoraError(
        f"{path}: no LoRA layers in {len(header.tensors)} tensors, which are named like "
        f"{example!r:.120}. Name the LoRA's own file."
    )


def _scalings(file: _File, header: Header) -> dict[str | None, Scaling]:
    """Return the strengths per part of the model; None is the key of those for all."""
    if file.config is not None:
        return {None: parse_peft_config(_json(file.config), str(file.config))}
    text = header.metadata.get(_DIFFUSERS_METADATA)
    if text is None:
        return {}
    where = f"{file.weights}: metadata {_DIFFUSERS_METADATA}"
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LoraError(f"{where} is no valid JSON. Save or download the file again.") from error
    if not isinstance(config, dict):
        raise LoraError(f"{where} is not a mapping. Save or download the file again.")
    return {
        component: parse_peft_config(options, f"{where} ({component or 'all'})")
        for component, options in _by_component(config).items()
    }


def _by_component(config: Mapping[str, Any]) -> dict[str | None, dict[str, Any]]:
    """Split diffusers' flat metadata ("unet.r", "text_encoder.r") by the model's parts."""
    split: dict[str | None, dict[str, Any]] = {}
    for key, value in config.items():
        component, dot, option = key.partition(".")
        if dot and component in _COMPONENTS:
            split.setdefault(component, {})[option] = value
        else:
            split.setdefault(None, {})[key] = value
    return split


def _json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_limited(path, _MAX_CONFIG, "PEFT configuration"))
    except OSError as error:
        raise LoraError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise LoraError(f"{path}: this is no valid JSON. Copy the folder again.") from error
    except StudioError as error:
        raise LoraError(str(error)) from error
    if not isinstance(config, dict):
        raise LoraError(f"{path}: this is not a mapping of options. Copy the folder again.")
    return config


def _notes(source: Source, form: str) -> list[str]:
    bare = any(name.startswith(PEFT_PREFIX) for name in source.modules)
    if bare and not source.scalings and form == "PEFT":
        note = f"{_CONFIG} is not beside {source.path.name}, so alpha = rank is assumed."
        return [note]
    return []
