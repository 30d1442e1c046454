"""Make stand-in models: random weights in the files that the shipped cast and workflows name.

    python scripts/bootstrap/standins.py --comfyui COMFYUI --out OUT [--config-source CONFIGS]
                                         [--with-sd15]

Run with the interpreter that has ComfyUI's requirements. Under OUT it makes

    models/checkpoints/sd_xl_base_1.0.safetensors    an SDXL-class checkpoint, 1.9 GB
    models/loras/*.safetensors                       one LoRA for every relative lora_path
    models/controlnet/*.safetensors                  one ControlNet for every configured control
    config/*.yaml                                    an overlay with few steps and small pictures
    manifest.json                                    {path: bytes, sha256, mtime_ns, recipe}

ComfyUI loads and runs them like real ones; the pictures are noise. What is there already is kept:
a file counts as made once the manifest, rewritten after each file, knows its size and time.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from standin_weights import Layout

__all__ = ["main"]

# Raise it when the contents of the weight files change: all of them are then made anew.
RECIPE = 4
CHECKPOINT = "models/checkpoints/sd_xl_base_1.0.safetensors"
CHECKPOINT_SD15 = "models/checkpoints/v1-5-pruned-emaonly.safetensors"
LORA_SD15 = "models/loras/sd15_other_base.safetensors"
# So that a CPU runs the bundled workflows unchanged, in seconds.
STAND_IN_SIZE = [256, 256]
STAND_IN_STEPS = {"draft": 2, "standard": 3, "high": 4, "ultra": 5}
CHARACTER_STEPS = 4
NOTICE = {"animation_studio": "stand-in: random weights, makes noise"}
STALE_PART_SECONDS = 600
ITEM_BYTES = {"F16": 2, "I64": 8}


class StandInError(Exception):
    """What could not be made, why, and what to do, in one sentence."""


@dataclass(frozen=True)
class Target:
    """One weight file: where it goes, a name for its layout, and its safetensors metadata."""

    path: str
    kind: str
    metadata: dict[str, str]

    @property
    def recipe(self) -> str:
        """What the file is made from; another recipe means another file."""
        return f"{self.kind}/{RECIPE}"


def main(arguments: list[str] | None = None) -> int:
    """Make what is missing; return 0, or 1 after one sentence on stderr."""
    parser = argparse.ArgumentParser(description="Make stand-in models: random weights.")
    parser.add_argument("--comfyui", type=Path, required=True, help="ComfyUI's folder")
    parser.add_argument("--out", type=Path, required=True, help="where the stand-ins go")
    parser.add_argument(
        "--config-source",
        type=Path,
        default=Path(__file__).resolve().parents[2] / "configs",
        help="the shipped configuration that names the models",
    )
    parser.add_argument(
        "--with-sd15", action="store_true", help="also an SD1.5 checkpoint and LoRA, for the tests"
    )
    options = parser.parse_args(arguments)
    try:
        build(options.comfyui, options.out, options.config_source, with_sd15=options.with_sd15)
    except StandInError as error:
        print(f"stand-ins: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"stand-ins: {_sentence(error, options.out)}", file=sys.stderr)
        return 1
    return 0


def build(comfyui: Path, out: Path, config_source: Path, *, with_sd15: bool) -> None:
    """Bring OUT up to date. Raises StandInError, and OSError as the file system does."""
    out.mkdir(parents=True, exist_ok=True)
    _remove_stale_parts(out)
    targets = list(_targets(config_source, with_sd15=with_sd15))
    manifest = Manifest(out)
    missing = [target for target in targets if not manifest.has(target.path, target.recipe)]
    if missing:
        _make_weights(comfyui, out, manifest, missing)
    for path, text in _overlay(config_source).items():
        data = text.encode()
        if not manifest.has(path, hashlib.sha256(data).hexdigest()):
            digest = write_whole(out / path, [data])
            manifest.add(path, digest, recipe=digest)
    print(f"stand-ins: {len(targets)} model files ready in {out} ({len(missing)} made now)")


def _make_weights(comfyui: Path, out: Path, manifest: Manifest, targets: list[Target]) -> None:
    if not (comfyui / "comfy" / "supported_models.py").is_file():
        raise StandInError(f"{comfyui} is not a ComfyUI folder (no comfy/supported_models.py).")
    print("stand-ins: reading the shapes of the models from ComfyUI", flush=True)
    import standin_weights as weights

    weights.prepare(comfyui)
    layouts: dict[str, Callable[[], Layout]] = {
        "sdxl": weights.sdxl_layout,
        "sd15": weights.sd15_layout,
        "controlnet": weights.controlnet_layout,
        "lora-sdxl": lambda: weights.lora_layout("sdxl"),
        "lora-sd15": lambda: weights.lora_layout("sd15"),
    }
    made = {kind: layouts[kind]() for kind in dict.fromkeys(t.kind for t in targets)}
    _check_room(out, sum(_bytes_of(made[target.kind]) for target in targets))
    for number, target in enumerate(targets, start=1):
        layout = made[target.kind]
        size = _bytes_of(layout)
        print(
            f"stand-ins: {number}/{len(targets)} {target.path} ({size / 1e6:,.0f} MB)", flush=True
        )
        header = _safetensors_header(layout, target.metadata)
        pieces = _chain(header, weights.draw(target.path, layout))
        manifest.add(target.path, write_whole(out / target.path, pieces), recipe=target.recipe)


class Manifest:
    """OUT/manifest.json: which files are whole, with size, digest, time and recipe."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._path = out / "manifest.json"
        self._entries: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            entries = json.loads(self._path.read_text(encoding="utf-8"))
            if isinstance(entries, dict):
                self._entries = entries

    def has(self, path: str, recipe: str) -> bool:
        """Say whether the file was made by this recipe and nobody touched it since."""
        entry = self._entries.get(path)
        if not isinstance(entry, dict) or entry.get("recipe") != recipe:
            return False
        try:
            stat = (self._out / path).stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (entry.get("bytes"), entry.get("mtime_ns"))

    def add(self, path: str, digest: str, recipe: str) -> None:
        """Note a file that was just made, and save the manifest."""
        stat = (self._out / path).stat()
        self._entries[path] = {
            "bytes": stat.st_size,
            "sha256": digest,
            "mtime_ns": stat.st_mtime_ns,
            "recipe": recipe,
        }
        text = json.dumps(self._entries, indent=1, sort_keys=True) + "\n"
        write_whole(self._path, [text.encode()])


def write_whole(path: Path, pieces: Iterable[bytes]) -> str:
    """Write the pieces to `path` atomically and return their SHA-256; on failure leave nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        with part.open("wb") as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    return digest.hexdigest()


def _remove_stale_parts(out: Path) -> None:
    """Remove what a killed build left, but nothing of another build that is at work."""
    for part in out.rglob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            age = time.time() - part.stat().st_mtime
            if age > STALE_PART_SECONDS or not _may_run(part.name.split(".")[-2]):
                part.unlink()


def _may_run(pid: str) -> bool:
    """Say whether a process of this id may exist; signal 0 asks only on POSIX."""
    if os.name != "posix" or not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _targets(config_source: Path, *, with_sd15: bool) -> Iterator[Target]:
    yield Target(CHECKPOINT, "sdxl", NOTICE)
    sdxl = {
        **NOTICE,
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
    }
    for name in _lora_files(_read_yaml(config_source / "lora_registry.yaml")):
        yield Target(f"models/loras/{name}", "lora-sdxl", sdxl)
    controls = _read_yaml(config_source / "controlnet_config.yaml").get("controlnets", {})
    for control in controls.values():
        # A repository's own file name where the configuration gives it, else the repository's.
        name = control.get("file") or PurePosixPath(control["model"]).name
        name = _inside(name.removesuffix(".safetensors") + ".safetensors")
        yield Target(f"models/controlnet/{name}", "controlnet", NOTICE)
    if with_sd15:
        sd15 = {
            **sdxl,
            "modelspec.architecture": "stable-diffusion-v1/lora",
            "ss_base_model_version": "sd_v1",
        }
        yield Target(CHECKPOINT_SD15, "sd15", NOTICE)
        yield Target(LORA_SD15, "lora-sd15", sd15)


def _lora_files(registry: dict[str, Any]) -> Iterator[str]:
    """Yield each relative lora_path of the registry once; absolute ones are the user's own."""
    seen: set[str] = set()
    for entries in registry.values():
        for entry in entries.values():
            name = entry.get("lora_path")
            if name and name not in seen and not PurePosixPath(name).is_absolute():
                seen.add(name)
                yield _inside(name)


def _inside(name: str) -> str:
    """Return a model's relative name if a stand-in may be written there."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.suffix != ".safetensors":
        raise StandInError(f"no stand-in can be made for {name!r}, which the configuration names.")
    return name


def _overlay(config_source: Path) -> dict[str, str]:
    """Return the overlay's files: the shipped presets with few steps and small pictures."""
    presets = _read_yaml(config_source / "character_presets.yaml")
    for preset in presets.values():
        shipped = preset.get("generation_params") or {}
        preset["generation_params"] = {**shipped, "steps": CHARACTER_STEPS, "size": STAND_IN_SIZE}
    quality = _read_yaml(config_source / "sdxl_config.yaml")
    generation = quality["generation"]
    generation["default_size"] = STAND_IN_SIZE
    for name, preset in generation["quality_presets"].items():
        preset["steps"] = STAND_IN_STEPS.get(name, CHARACTER_STEPS)
    comment = (
        "# Made by scripts/bootstrap/standins.py from the shipped {}: few steps, small pictures.\n"
    )
    return {
        f"config/{name}": comment.format(name) + _dump(data)
        for name, data in (("character_presets.yaml", presets), ("sdxl_config.yaml", quality))
    }


def _dump(data: dict[str, Any]) -> str:
    """YAML without anchors: the same list twice is written twice."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    return yaml.dump(data, Dumper=Plain, sort_keys=False, allow_unicode=True, width=100)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StandInError(
            f"{path} is missing; give the shipped configs as --config-source."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StandInError(f"{path} is not readable YAML: {error}") from None
    if not isinstance(data, dict):
        raise StandInError(f"{path} is not a YAML mapping.")
    return data


def _safetensors_header(layout: Layout, metadata: dict[str, str]) -> bytes:
    """Return the length and JSON header of a safetensors file (its format's documentation)."""
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name, values in layout.items():
        end = offset + math.prod(values.shape) * ITEM_BYTES[values.dtype]
        header[name] = {
            "dtype": values.dtype,
            "shape": list(values.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)
    return len(data).to_bytes(8, "little") + data


def _bytes_of(layout: Layout) -> int:
    return sum(math.prod(v.shape) * ITEM_BYTES[v.dtype] for v in layout.values())


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _check_room(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if free < needed * 1.02:
        raise StandInError(
            f"the disk of {out} has {free / 1e9:.1f} GB left and {needed / 1e9:.1f} GB are needed; "
            "make room or give another folder."
        )


def _sentence(error: OSError, out: Path) -> str:
    where = error.filename or out
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full, so {where} was not written; make room and start again."
    return f"{where}: {error.strerror or error}."


if __name__ == "__main__":
    sys.exit(main())
