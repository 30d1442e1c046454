"""SDXL-size models on a GPU: loaded, let go by the guard, loaded again; seconds and bytes.

    python benchmarks/gpu_models.py --comfyui PATH [--python PATH] [--runs 5] [--json FILE]
    python benchmarks/gpu_models.py --comfyui PATH --python PATH --device cpu

Without a GPU that torch can use it says so and ends well; `--device cpu` goes through all of it
with tiny models, to see that it works: those figures mean nothing. Random weights (UNet of 2.6 B
parameters, both text encoders of 0.8 B, fp16: 6.8 GB), in ComfyUI's own model management, each run
with one step of the UNet between loading and unloading. Bytes are the whole GPU's, by NVML, above
what was used before the process had a CUDA context. In fresh processes:

    bare      what a torch process leaves that did nothing: a context; and one that multiplied once
    node      unloaded by a lease "everything off" while a node waits, as VRAM Guard does: on the
              node's thread, then verified by the meter
    between   unloaded as at the end of a prompt, by a worker that looks at ComfyUI's own queue as
              ComfyUI's does; no verification

Printed are medians against the user's targets: unloading 2-3 s, loading 5-8 s (from RAM here).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PACK = Path(__file__).resolve().parents[1]
NOTES = {
    "first load": "target: 5-8 s",
    "load": "target: 5-8 s",
    "step": "one step of the UNet",
    "unload": "target: 2-3 s",
    "collect": "of which Python's garbage collection, as it takes again afterwards",
}
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "channel_mult": [1, 2, 4],
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "num_head_channels": 64,
    "num_heads": -1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "context_dim": 2048,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
    "legacy": False,
    "use_checkpoint": False,
}
TINY_UNET = {
    **UNET,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": [1, 1],
    "transformer_depth": [0, 1],
    "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 1,
    "num_head_channels": 32,
}
TINY_TEXT = {"num_hidden_layers": 3, "intermediate_size": 64, "num_attention_heads": 4}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--comfyui", type=Path, required=True, help="ComfyUI's root")
    parser.add_argument("--python", default=sys.executable, help="ComfyUI's interpreter")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", type=Path, help="write all figures there too")
    options = parser.parse_args()
    if options.device == "cuda":
        why = no_gpu(options.python)
        if why:
            print(f"Nothing is measured: {why}. --device cpu shows that this script works.")
            return
    figures: dict[str, Any] = {"date": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    for what in ("bare", "node", "between"):
        figures[what] = child(options, what)
    figures["machine"] = figures["bare"].pop("machine")
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def no_gpu(python: str) -> str:
    """Return why torch has no GPU in that interpreter; empty where it has."""
    ask = "import torch; print(torch.__version__, torch.cuda.is_available())"
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{python} has no torch"
    version, there = done.stdout.split()[-2:]
    return "" if there == "True" else f"torch {version} sees no CUDA device on this machine"


def child(options: argparse.Namespace, what: str) -> dict[str, Any]:
    """Run one fresh process and return its figures."""
    command = [options.python, __file__, "--child", what, options.device, str(options.runs)]
    done = subprocess.run(
        [*command, str(options.comfyui.resolve())], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"A measured process failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show(figures: dict[str, Any]) -> None:
    """Print medians."""
    machine = ", ".join(f"{key} {value}" for key, value in figures["machine"].items())
    print(f"{figures['date']}, {machine}")
    bare = figures["bare"]
    print(f"a bare torch process leaves {size(bare['context'])}, with cuBLAS {size(bare['used'])}")
    for way in ("node", "between"):
        rows = figures[way]["runs"]
        print(f"\n{way}: models of {size(figures[way]['models'])}, median of {len(rows) - 1}")
        for name, note in NOTES.items():
            seconds = [row[name] for row in rows if name in row]
            print(f"  {name:<12}{statistics.median(seconds):8.2f} s   {note}")
        for name in ("loaded", "left"):
            values = [row[name] for row in rows]
            known = [value for value in values if value is not None]
            median = int(statistics.median(known)) if known else None
            above = ""
            if name == "left" and median is not None and bare["used"] is not None:
                above = f"   {size(median - bare['used'])} above the bare process"
            print(f"  {name:<12}{size(median):>10}{above}")


def size(count: int | None) -> str:
    """Return bytes for people."""
    return "unknown" if count is None else f"{count / (1 << 20):,.0f} MiB"


# --- in the measured process ---------------------------------------------------------------------


def in_child(what: str, device: str, runs: int, comfyui: str) -> None:
    """Measure one thing and print it as JSON."""
    sys.path[:] = [comfyui, *sys.path[1:], str(PACK)]
    sys.argv = ["main.py"]
    os.chdir(comfyui)
    used = meter_of_gpu()
    if what == "bare":
        print(json.dumps(bare(device, used)))
        return
    import utils.extra_config  # noqa: F401 - first, as main.py does: another `utils` comes later

    import comfy.cli_args  # isort: skip

    comfy.cli_args.args.cpu = device == "cpu"
    with tempfile.TemporaryDirectory() as state:
        let_go = unload_by_node(Path(state)) if what == "node" else unload_between(device)
        print(json.dumps(measure(device, runs, used, let_go)))


def meter_of_gpu() -> Callable[[], int | None]:
    """Return what tells the bytes used on the first GPU more than now, None where nobody can."""
    from animation_studio.gpu.meter import open_meter

    meter = open_meter()
    first = meter.read(0)

    def used() -> int | None:
        now = meter.read(0)
        return None if now is None or first is None else now.used - first.used

    return used


def bare(device: str, used: Callable[[], int | None]) -> dict[str, Any]:
    """Return what a process leaves on the GPU that only has a context, and the machine."""
    import torch

    on = torch.device(device)
    figures: dict[str, Any] = {}
    for name in ("context", "used"):
        some = torch.ones(64, 64, device=on)
        if name == "used":
            some = some @ some
        synchronize(device)
        del some
        if device == "cuda":
            torch.cuda.empty_cache()
        figures[name] = used()
    gpu = torch.cuda.get_device_name() if device == "cuda" else "none"
    figures["machine"] = {"GPU": gpu, "torch": torch.__version__, "cores": os.cpu_count()}
    figures["machine"]["system"] = platform.system()
    return figures


def measure(
    device: str, runs: int, used: Callable[[], int | None], let_go: Callable[[], None]
) -> dict[str, Any]:
    """Load, use and unload; return seconds and bytes of each run. The first load is apart."""
    import comfy.model_management
    import torch

    patchers, step = models(device)
    rows = []
    with torch.inference_mode():
        for run in range(runs + 1):
            row: dict[str, Any] = {}
            row["load" if run else "first load"] = timed(
                lambda: comfy.model_management.load_models_gpu(patchers), device
            )
            row["step"] = timed(step, device)
            row["loaded"] = used()
            row["unload"] = timed(let_go, device)
            row["left"] = used()
            row["collect"] = timed(gc.collect, device)
            assert not comfy.model_management.loaded_models(), "they are still loaded"
            rows.append(row)
    return {"runs": rows, "models": sum(patcher.model_size() for patcher in patchers)}


def models(device: str) -> tuple[list[Any], Callable[[], object]]:
    """Return the patchers of UNet and text encoders with random weights, and one step."""
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.sd
    import comfy.sdxl_clip
    import comfy.supported_models
    import torch
    from comfy.supported_models_base import ClipTarget

    tiny = device == "cpu"
    dtype = torch.float32 if tiny else torch.float16
    config = {**(TINY_UNET if tiny else UNET), "dtype": dtype}
    # What the class expects of a configuration that it has not found in a file.
    known = comfy.supported_models.SDXL(config)
    network = comfy.model_base.SDXL(known, device="cpu")
    unet = comfy.model_patcher.ModelPatcher(
        network,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    target = ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel)
    small = {"clip_l_model_config": TINY_TEXT, "clip_g_model_config": TINY_TEXT} if tiny else {}
    clip = comfy.sd.CLIP(target, model_options={**small, "dtype": dtype})
    for owner in (network, clip.cond_stage_model):
        fill(owner)
    side = 8 if tiny else 128
    on = unet.load_device

    def step() -> object:
        sample = torch.zeros(1, 4, side, side, device=on, dtype=dtype)
        text = torch.zeros(1, 77, 2048, device=on, dtype=dtype)
        sizes = torch.zeros(1, 2816, device=on, dtype=dtype)
        time_ = torch.zeros(1, device=on)
        return network.diffusion_model(sample, time_, context=text, y=sizes)

    return [clip.patcher, unet], step


def fill(owner: Any) -> None:
    """Put values into all weights: memory that nobody wrote to is not there, and copies faster."""
    import torch

    block = torch.randn(1 << 22) * 0.01
    for weight in owner.parameters():
        flat = weight.data.view(-1)
        for start in range(0, flat.numel(), block.numel()):
            part = flat[start : start + block.numel()]
            part.copy_(block[: part.numel()])


def unload_by_node(state: Path) -> Callable[[], None]:
    """Return VRAM Guard's way: a lease of everything, from a node's thread."""
    from animation_studio.bridge.host import ComfyHost
    from animation_studio.gpu.arbiter import Arbiter
    from animation_studio.gpu.lease import LeaseRequest
    from animation_studio.gpu.loop import BackgroundLoop
    from animation_studio.gpu.meter import open_meter
    from animation_studio.registry.services import GpuSettings

    host, loop, settings = ComfyHost(), BackgroundLoop("arbiter"), GpuSettings()
    arbiter = Arbiter(
        services=dict, settings=lambda: settings, meter=open_meter(), host=host, folder=state
    )

    def unload() -> None:
        with host.visited() as visit:
            taking = arbiter.take(LeaseRequest("a prompt", "everything off"))
            report = visit.wait(loop.submit(taking), lambda: None)
        print(report.text(), file=sys.stderr)
        loop.submit(arbiter.end("a prompt")).result()

    return unload


def unload_between(device: str) -> Callable[[], None]:
    """Return the way at the end of a prompt: ComfyUI's queue, and a worker that looks at it."""
    import comfy.model_management
    import execution
    import server

    from animation_studio.bridge.host import ComfyHost
    from animation_studio.gpu.loop import BackgroundLoop

    host, loop = ComfyHost(), BackgroundLoop("arbiter")
    standing = SimpleNamespace(queue_updated=lambda: None)
    queue = standing.prompt_queue = execution.PromptQueue(standing)
    server.PromptServer.instance = standing

    def worker() -> None:
        while True:
            queue.get(timeout=1000.0)
            if queue.get_flags().get("unload_models"):
                comfy.model_management.unload_all_models()
                gc.collect()
                comfy.model_management.soft_empty_cache()

    threading.Thread(target=worker, daemon=True).start()

    def unload() -> None:
        loop.submit(host.unload()).result()

    return unload


def timed(act: Callable[[], object], device: str) -> float:
    """Return how long an act took, the GPU's part included, in seconds."""
    start = time.perf_counter()
    act()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Wait for the GPU."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        in_child(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    else:
        main()
