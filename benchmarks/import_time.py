"""What the pack adds to ComfyUI's start: its import, beside ComfyUI's own, in one process each.

    python benchmarks/import_time.py --comfyui PATH [--python PATH] [--runs 7]

Each run starts a fresh interpreter, imports what ComfyUI imports before it loads packs (server,
nodes and its extra nodes), then loads this pack by ComfyUI's own loader. Printed are medians, the
share of the start, and the modules of heavy packages that only the pack brought in.
Aim: under 100 ms, no heavy package.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
HEAVY = {
    "controlnet_aux", "cv2", "diffusers", "insightface", "onnxruntime", "peft", "skimage",
    "sklearn", "timm", "torchaudio", "torchvision", "transformers", "vllm",
}  # fmt: skip

MEASURE = """
import asyncio, json, logging, os, sys, time
comfyui, pack = sys.argv[1:3]
os.chdir(comfyui)
sys.path.insert(0, comfyui)
sys.argv = ["main.py"]
logging.disable(logging.CRITICAL)
start = time.perf_counter()
import utils.extra_config  # first, as main.py does: another `utils` comes onto the path later
import comfy.cli_args
comfy.cli_args.args.cpu = True
comfy.cli_args.args.disable_api_nodes = True
import execution, server, nodes
asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
own = time.perf_counter() - start
before = set(sys.modules)
start = time.perf_counter()
assert asyncio.run(nodes.load_custom_node(pack)), "the pack did not load"
added = time.perf_counter() - start
brought = sorted({name.partition(".")[0] for name in set(sys.modules) - before})
print(json.dumps({"own": own, "pack": added, "brought": brought}))
"""


def measure(python: str, comfyui: Path) -> dict[str, object]:
    """Run one fresh interpreter and return its figures."""
    # Whoever forbids bytecode files would measure the compiler: ComfyUI's users have them.
    environment = {**os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [python, "-c", MEASURE, str(comfyui), str(PACK)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"The measured process failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--comfyui", type=Path, required=True, help="ComfyUI's root")
    parser.add_argument("--python", default=sys.executable, help="ComfyUI's interpreter")
    parser.add_argument(
        "--runs", type=int, default=7, help="fresh interpreters, the first not counted"
    )
    options = parser.parse_args()
    runs = [measure(options.python, options.comfyui) for _ in range(options.runs + 1)][1:]
    own, pack = (statistics.median(run[key] for run in runs) for key in ("own", "pack"))
    heavy = sorted({name for run in runs for name in run["brought"]} & HEAVY)
    print(f"ComfyUI itself {own * 1000:7.0f} ms   (median of {len(runs)})")
    print(f"the pack       {pack * 1000:7.0f} ms   ({pack / own:.1%} of ComfyUI's own)")
    print(f"heavy packages brought in: {', '.join(heavy) or 'none'}")


if __name__ == "__main__":
    main()
