"""What the arbiter adds to the raw calls of a hand-over: LLM to sleep, picture, LLM back.

    python benchmarks/handover.py [--runs 21] [--sleep 2 --wake 1]
    python benchmarks/handover.py --vllm VLLM_PYTHON MODEL_FOLDER

The interpreter needs aiohttp, pydantic and nvidia-ml-py (ComfyUI's has them once this pack is
installed); gcc compiles the tests' stand-in for NVIDIA's library, whose figures change at once. The
server is the tests' stand-in for vLLM, in a process of its own, first with no time of its own, then
with --sleep and --wake seconds; with --vllm a real one on the processor (it sleeps and wakes; its
memory is told to the scripted GPU). In turns, in one run:

    by hand   POST /sleep, unload, POST /wake_up, one token of /v1/completions: the calls alone, a
              connection each, nothing asked and nothing verified
    end       Arbiter.take for pictures, then Arbiter.end: what VRAM Guard does, given back at the
              end of the prompt
    resume    Arbiter.take, then Arbiter.resume: VRAM Guard and Resume LLM

from a node's thread through the arbiter's loop, as in ComfyUI; ComfyUI's own models are a figure
that is gone at once. Printed are medians, what was added (aim: under 100 ms and 2 %), and where it
goes, by wrapping. Then what a guard costs where there is room already, and what the automatic
lease's look costs at each run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

PACK = Path(__file__).resolve().parents[1]
sys.path.append(str(PACK))

from animation_studio.gpu import arbiter as arbiter_module  # noqa: E402
from animation_studio.gpu import http_service, lock, nvml, trace, work  # noqa: E402
from animation_studio.gpu.gauge import Gauge  # noqa: E402
from animation_studio.gpu.journal import Journal  # noqa: E402
from benchmarks.handover_ways import (  # noqa: E402
    LLM,
    Bench,
    Comfy,
    VllmThatTells,
    entry,
    real_vllm,
    standin,
)
from benchmarks.stopwatch import Stopwatch  # noqa: E402
from scripts.bootstrap.server import free_port  # noqa: E402
from tests.support import nvml_standin  # noqa: E402
from tests.support.nvml_standin import GIB  # noqa: E402

# Seconds and calls by label.
Split: TypeAlias = tuple[dict[str, float], dict[str, int]]
RAW = {"/sleep", "/wake_up", "/v1/completions"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=21, help="hand-overs of each way without time")
    parser.add_argument("--slow-runs", type=int, default=7, help="those with it")
    parser.add_argument("--sleep", type=float, default=2.0, help="seconds; 0: leave it out")
    parser.add_argument("--wake", type=float, default=1.0, help="seconds")
    parser.add_argument("--vllm", type=Path, nargs=2, metavar=("PYTHON", "MODEL"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        nvml_standin.load(nvml_standin.build(folder))
        watch = watched()
        if options.vllm:
            python, model = options.vllm
            with real_vllm(python, model, folder / "vllm") as port:
                hand_overs(Bench(folder / "real", port, VllmThatTells), options.runs, watch)
            return
        hand_overs(Bench(folder / "quick", free_port()), options.runs, watch)
        if options.sleep or options.wake:
            seconds = {"sleep_seconds": options.sleep, "wake_seconds": options.wake}
            hand_overs(Bench(folder / "slow", free_port()), options.slow_runs, watch, **seconds)
        looks(folder, options.runs)


# --- the runs ------------------------------------------------------------------------------------


def hand_overs(bench: Bench, runs: int, watch: Stopwatch, **seconds: float) -> None:
    """Hand over by each way in turn, in changing order, and print."""
    if isinstance(bench.arbiter.services["qwen"], VllmThatTells):
        print("\na real vLLM on the processor, its memory scripted")
        bench.gpu.add(LLM)
        in_turns(bench, runs, watch)
        return
    told = ", ".join(f"{name} {value:g}" for name, value in seconds.items())
    print(f"\nthe stand-in for vLLM, {told or 'which takes no time'}")
    with standin(bench, **seconds):
        in_turns(bench, runs, watch)


def in_turns(bench: Bench, runs: int, watch: Stopwatch) -> None:
    """Run, the first round not counted, and print medians."""
    ways = {
        "by hand": bench.by_hand,
        "end": lambda: bench.by_pack(bench.end),
        "resume": lambda: bench.by_pack(bench.resume),
    }
    figures: dict[str, list[tuple[float, float]]] = defaultdict(list)
    splits: dict[str, list[Split]] = defaultdict(list)
    for turn in range(-1, runs):
        names = list(ways)
        for name in names[turn % 3 :] + names[: turn % 3]:
            watch.clear()
            both = ways[name]()
            if turn >= 0:
                figures[name].append(both)
                splits[name].append((dict(watch.seconds), dict(watch.calls)))
    print(f"{'ms, median of ' + str(runs):<20}{'room':>9}{'back':>9}{'both':>9}{'added':>9}  ratio")
    for half in (0.5, 0.25):
        hand = figures_at(figures["by hand"], half)
        for name, rows in figures.items():
            mine = figures_at(rows, half)
            added = f"{mine[2] - hand[2]:9.1f}{mine[2] / hand[2]:8.3f}" if name != "by hand" else ""
            print(f"{name:<20}" + "".join(f"{value:9.1f}" for value in mine) + added)
        if half == 0.5:
            print("the same, a quarter is faster (this tells how busy the machine was)")
    show_split(splits["resume"], splits["by hand"], [sum(both) for both in figures["resume"]])


def figures_at(rows: list[tuple[float, float]], part: float) -> tuple[float, float, float]:
    """Return what this part of the runs is faster than: room, back and both, in milliseconds."""
    room_, back = ([row[index] for row in rows] for index in (0, 1))
    return at(room_, part), at(back, part), at([sum(row) for row in rows], part)


def at(seconds: list[float], part: float) -> float:
    """Return milliseconds that this part of `seconds` is below (0.5: the median)."""
    return statistics.quantiles(seconds, n=4, method="inclusive")[round(part * 4) - 1] * 1000


def show_split(splits: list[Split], by_hand: list[Split], totals: list[float]) -> None:
    """Print where the time of take and resume goes."""
    print(f"{'where (take, resume)':<44}{'calls':>7}{'ms':>9}{'by hand':>9}")
    rows = []
    for label in dict.fromkeys(label for seconds, _ in splits for label in seconds):
        calls = statistics.median(calls.get(label, 0) for _, calls in splits)
        rows.append((spent_on(label, splits), calls, spent_on(label, by_hand), label))
    for spent, calls, hand, label in sorted(rows, reverse=True):
        print(f"  {label:<42}{calls:7.0f}{spent:9.1f}" + (f"{hand:9.1f}" if hand else ""))
    rest = statistics.median(
        total - sum(seconds.values()) for total, (seconds, _) in zip(totals, splits, strict=True)
    )
    print(f"  {'all else: tasks, threads, report':<42}{'':>7}{rest * 1000:9.1f}")


def spent_on(label: str, splits: list[Split]) -> float:
    """Return the median of the milliseconds under a label."""
    return statistics.median(seconds.get(label, 0.0) for seconds, _ in splits) * 1000


def watched() -> Stopwatch:
    """Wrap what a hand-over is made of."""
    watch = Stopwatch()

    def question(_: object, method: str, path: str, **__: object) -> str:
        return call(None, path) if path in RAW else f"question {method} {path}"

    def call(_: object, path: str, *__: object) -> str:
        return f"the call itself, POST {path.partition('?')[0]}"

    watch.watch(http_service.HttpService, "ask", question)
    watch.watch(http_service.HttpService, "sleep", "sleep, wake, prove: their own code")
    watch.watch(http_service.HttpService, "wake", "sleep, wake, prove: their own code")
    watch.watch(http_service.HttpService, "prove", "sleep, wake, prove: their own code")
    watch.watch(arbiter_module, "conditions_of", "how services stand, asked before", whole=True)
    watch.watch(work.Work, "_steady", "how services stand, asked before", whole=True)
    watch.watch(Gauge, "has", "samples: is it enough?", whole=True)
    watch.watch(Gauge, "settle", "samples: until memory is there", whole=True)
    for name in ("read", "devices", "processes"):
        watch.watch(nvml.NvmlMeter, name, "single readings of the meter", whole=True)
    for name in ("put", "remove", "set_holder"):
        watch.watch(Journal, name, "journal, written", whole=True)
    watch.watch(Journal, "read", "journal, read", whole=True)
    for name in ("try_acquire", "release"):
        watch.watch(lock.GpuLock, name, "lock", whole=True)
    for name in ("start", "stop"):
        watch.watch(trace.MemoryTrace, name, "trace, begun and ended", whole=True)
    watch.watch(Bench, "_call", call)
    watch.watch(Comfy, "free", "unloading (a figure, here)", whole=True)
    return watch


# --- where nothing is to be done -----------------------------------------------------------------


def looks(folder: Path, runs: int) -> None:
    """Measure a guard that finds room, and the automatic lease's look."""
    print(f"\n{'where nothing is done, ms, median of ' + str(runs):<56}{'ms':>8}")
    absent = {f"absent {number}": entry(free_port()) for number in range(3)}
    bench = Bench(folder / "looks", free_port(), others=absent)

    def guard() -> None:
        bench.take()
        bench.end()

    def look() -> bool:
        return bench.wait(bench.arbiter.lacks_room_for_pictures())

    show("guard and end, room there, 4 services not running", guard, runs)
    show("look, room there (no service is asked)", look, runs)
    bench.gpu.add(8 * GIB)
    show("look, no room, 4 services not running", look, runs)
    bench.gpu.set(used=0)
    with standin(bench):
        show("look, no room, 1 awake, 3 not running", look, runs)
        bench.gpu.set(used=0)
        show("guard and end, room there, 1 awake, 3 not running", guard, runs)


def show(name: str, act: Callable[[], object], runs: int) -> None:
    """Print the median of `runs` calls, after one that does not count, and the slowest."""
    seconds = []
    for turn in range(-1, runs):
        start = time.perf_counter()
        act()
        if turn >= 0:
            seconds.append(time.perf_counter() - start)
    print(f"{name:<56}{at(seconds, 0.5):8.1f}   a quarter under {at(seconds, 0.25):.1f}")


if __name__ == "__main__":
    main()
