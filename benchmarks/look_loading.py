"""Loading a look of 1, 3 and 5 LoRAs, against the chain of core LoraLoader nodes.

    python benchmarks/look_loading.py --comfyui PATH --checkpoint FILE [--python PATH] [--runs 3]

Every figure comes from a fresh process on the same checkpoint and the same files (kohya, fp16, rank
16, for UNet and both text encoders, made on the spot and deleted). In it, one after the other:

    cold        the first load: files read, keys mapped, models cloned, patches added
    used        cold, and every LoRA weight read once, as the sampler does when it patches: core
                maps files and pays for reading them only then, the pack when it loads
    again       the same with nothing kept of the files: fresh caches, fresh nodes
    warm        the same again with what the first load kept (ours: the adapter cache and its
                patches; core: each LoraLoader node's own last file)
    memory      growth of the process over the first load, as a multiple of the files' bytes

Printed are medians and ratios ours / core. Aims: cold no slower (<= 1), warm at least 10 times
faster than again, memory no more than core's.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[1]
COUNTS = (1, 3, 5)
RANK = 16
WEIGHT = 0.7


def main() -> None:
    """Make the files, measure every combination in turn, print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--comfyui", type=Path, required=True, help="ComfyUI's root")
    parser.add_argument("--checkpoint", type=Path, required=True, help="an SDXL checkpoint")
    parser.add_argument("--python", default=sys.executable, help="ComfyUI's interpreter")
    parser.add_argument("--runs", type=int, default=3, help="processes for each figure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        child(options, "make", folder, max(COUNTS))
        for count in COUNTS:
            figures = {"ours": [], "core": []}
            for _ in range(options.runs):
                for side, rows in figures.items():
                    rows.append(child(options, side, folder, count))
            show(count, figures)


def child(options: argparse.Namespace, what: str, folder: str, count: int) -> dict[str, float]:
    """Run one fresh process and return its figures."""
    command = [options.python, __file__, "--child", what, folder, str(count)]
    command += [str(options.comfyui), str(options.checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"A measured process failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def show(count: int, figures: dict[str, list[dict[str, float]]]) -> None:
    """Print one row for each figure."""
    print(f"\n{count} LoRA{'s' if count > 1 else ''}")
    medians = {
        side: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for side, rows in figures.items()
    }
    for key, unit, scale in (
        ("cold", "ms", 1e3),
        ("used", "ms", 1e3),
        ("again", "ms", 1e3),
        ("warm", "ms", 1e3),
        ("memory", "x files", 1),
    ):
        ours, core = medians["ours"][key], medians["core"][key]
        ratio = f"{ours / core:6.2f}" if core else "     -"
        figures_ = f"ours {ours * scale:8.2f}  core {core * scale:8.2f} {unit:8}"
        print(f"  {key:7} {figures_} ours/core {ratio}")
    ours = medians["ours"]
    print(f"  warm is {ours['again'] / ours['warm']:.0f} times faster than reading again")


# --- in the measured process -------------------------------------------------------------------


def in_child(what: str, folder: Path, count: int, comfyui: str, checkpoint: str) -> None:
    """Import ComfyUI, load the checkpoint, then make files or measure."""
    sys.path[:] = [comfyui, *sys.path[1:], str(PACK)]
    sys.argv = ["main.py"]
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy.sd
    import folder_paths

    folder_paths.add_model_folder_path("loras", str(folder))
    model, clip = comfy.sd.load_checkpoint_guess_config(checkpoint, output_vae=False)[:2]
    files = [folder / f"lora_{index}.safetensors" for index in range(count)]
    if what == "make":
        for index, file in enumerate(files):
            make_lora(file, model, clip, seed=index)
        print(json.dumps({}))
        return
    fresh = fresh_ours if what == "ours" else fresh_core
    print(json.dumps(measure(fresh, model, clip, files)))


def measure(
    fresh: Callable[[list[Path]], Callable[[Any, Any], object]],
    model: Any,
    clip: Any,
    files: list[Path],
) -> dict[str, float]:
    """Return cold, again and warm in seconds, and memory as a multiple of the files' bytes."""
    before = resident()
    load = fresh(files)
    cold, loaded = timed(lambda: load(model, clip))
    used = cold + timed(functools.partial(read_weights, loaded))[0]
    memory = (resident() - before) / sum(file.stat().st_size for file in files)
    warm = statistics.median(timed(lambda: load(model, clip))[0] for _ in range(7))
    del loaded
    gc.collect()
    again = statistics.median(timed(lambda: fresh(files)(model, clip))[0] for _ in range(3))
    return {"cold": cold, "used": used, "again": again, "warm": warm, "memory": memory}


def read_weights(loaded: Any) -> None:
    """Read every weight of the patches once."""
    patchers = loaded[0] if isinstance(loaded[0], tuple) else loaded
    for patches in (patches for patcher in patchers for patches in weight_patches(patcher)):
        for patch in patches:
            for weight in patch[1].weights:
                if hasattr(weight, "sum"):
                    weight.sum()


def weight_patches(patcher: Any) -> Any:
    """Return the patches of a ModelPatcher or of a CLIP, by weight."""
    return getattr(patcher, "patcher", patcher).patches.values()


def fresh_ours(files: list[Path]) -> Callable[[Any, Any], object]:
    """The pack's way, with an empty adapter cache."""
    from animation_studio.bridge.patching import ComfyTarget
    from animation_studio.lora import AdapterCache, AdapterUse, compose

    cache = AdapterCache(2 << 30)

    def load(model: Any, clip: Any) -> object:
        uses = [AdapterUse(cache.get(file), WEIGHT, WEIGHT, label=file.stem) for file in files]
        return compose(ComfyTarget(model, clip), uses)

    return load


def fresh_core(files: list[Path]) -> Callable[[Any, Any], object]:
    """A chain of core's LoraLoader nodes, freshly put into the graph."""
    import nodes

    chain = [(nodes.LoraLoader(), file.name) for file in files]

    def load(model: Any, clip: Any) -> object:
        for node, name in chain:
            model, clip = node.load_lora(model, clip, name, WEIGHT, WEIGHT)[:2]
        return model, clip

    return load


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Return how long `work` took, in seconds, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def resident() -> int:
    """Return the bytes of memory this process holds."""
    import psutil

    return psutil.Process(os.getpid()).memory_info().rss


def make_lora(file: Path, model: Any, clip: Any, *, seed: int) -> None:
    """Write a kohya LoRA for every attention and feed-forward weight of the checkpoint."""
    import comfy.lora
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    sides = (
        (comfy.lora.model_lora_keys_unet(model.model, {}), model.model, "lora_unet_input"),
        (comfy.lora.model_lora_keys_unet(model.model, {}), model.model, "lora_unet_output"),
        (
            comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {}),
            clip.cond_stage_model,
            "lora_te",
        ),
    )
    for keys, owner, prefix in sides:
        weights = owner.state_dict()
        for name, key in keys.items():
            weight = weights.get(key)
            wanted = name.startswith(("lora_te1_", "lora_te2_", prefix)) and "lora_te_" not in name
            if wanted and weight is not None and weight.ndim == 2:
                rows, columns = weight.shape
                up = torch.randn(rows, RANK, generator=generator) * 0.01
                down = torch.randn(RANK, columns, generator=generator) * 0.01
                tensors[f"{name}.lora_up.weight"] = up.half()
                tensors[f"{name}.lora_down.weight"] = down.half()
                tensors[f"{name}.alpha"] = torch.tensor(float(RANK))
    save_file(tensors, file)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        in_child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:7])
    else:
        main()
