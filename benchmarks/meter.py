"""What measuring the GPU, and remembering what is paused, costs by itself.

    python benchmarks/meter.py [--standin] [--runs 2000] [--folder PATH]

The interpreter needs nvidia-ml-py and pydantic (ComfyUI's has both once this pack is installed).
Without an NVIDIA driver, or with --standin, the meter reads the tests' stand-in for NVIDIA's
library (gcc compiles it), which reads a small text file at every call: then the figures are those
of Python and pynvml, and the driver's are missing. --folder holds lock and journal: give one on the
disk that ComfyUI's user folder is on, since a journal write waits for the disk.

    begin         the first reading: import of pynvml, nvmlInit
    read          memory of one GPU
    three         three readings, as a lease takes to be sure, without the pauses between them
    processes     who holds memory, with their names
    trace         part of one core's time that a trace of ten samples a second takes
    journal       one change, flushed to the disk; and one reading
    lock          taken and given back
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.append(str(PACK))

from animation_studio.gpu.journal import Journal, Pause  # noqa: E402
from animation_studio.gpu.lock import GpuLock  # noqa: E402
from animation_studio.gpu.meter import Meter, open_meter  # noqa: E402
from animation_studio.gpu.trace import MemoryTrace  # noqa: E402

TRACE_SECONDS = 3.0


def main() -> None:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--standin", action="store_true", help="never the real driver")
    parser.add_argument("--runs", type=int, default=2000, help="repetitions of short acts")
    parser.add_argument("--folder", type=Path, help="for lock and journal (default: temporary)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        meter, begin = begun(options.standin, Path(temporary))
        of_meter(meter, begin, options.runs)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            of_journal(Path(folder), options.runs)


def begun(standin: bool, folder: Path) -> tuple[Meter, float]:
    """Return a meter that can read, the real one where there is a driver, and its first reading."""
    if standin or not readable():
        from tests.support import nvml_standin

        nvml_standin.load(nvml_standin.build(folder))
        gpu = nvml_standin.ScriptedGpu(folder / "gpu.txt")
        gpu.set(used=5 << 30)
        gpu.set_processes([(os.getpid(), 4 << 30), (1, 1 << 30, "graphics")])
        os.environ[nvml_standin.VARIABLE] = str(gpu.file)
        print("the tests' stand-in for NVIDIA's library")
    start = time.perf_counter()
    meter = open_meter()
    assert meter.devices(), meter.problem
    seconds = time.perf_counter() - start
    device = meter.devices()[0]
    print(f"{device.name}: {device.used:,} of {device.total:,} bytes used")
    return meter, seconds


def readable() -> bool:
    """Return whether this machine has a driver; asked elsewhere, since the first time is timed."""
    ask = "from animation_studio.gpu.meter import open_meter; print(len(open_meter().devices()))"
    done = subprocess.run([sys.executable, "-c", ask], cwd=PACK, capture_output=True, check=True)
    return int(done.stdout) > 0


def of_meter(meter: Meter, begin: float, runs: int) -> None:
    """Measure readings."""
    index = meter.devices()[0].index
    show("begin", [begin])
    show("read", timed(lambda: meter.read(index), runs))
    show("three readings", timed(lambda: [meter.read(index) for _ in range(3)], runs))
    show("processes", timed(lambda: meter.processes(index), runs // 4))
    processor = time.process_time()
    with MemoryTrace(meter, index) as trace:
        time.sleep(TRACE_SECONDS)
    share = (time.process_time() - processor) / TRACE_SECONDS
    print(f"{'trace':<16}{share:9.3%} of one core, {trace.samples / TRACE_SECONDS:.0f} a second")


def of_journal(folder: Path, runs: int) -> None:
    """Measure the journal and the lock."""
    journal, lock = Journal(folder), GpuLock(folder)
    pause = Pause(
        service="qwen_vl",
        how="sleep",
        level=1,
        phase="paused",
        until="prompt_end",
        freed=12 << 30,
        since=datetime.now(timezone.utc),
        pid=os.getpid(),
        holder="a prompt",
    )
    show("journal write", timed(lambda: journal.put(pause), runs // 4))
    show("journal read", timed(journal.read, runs))
    show("lock", timed(lambda: (lock.try_acquire(), lock.release()), runs))


def timed(act: Callable[[], object], runs: int) -> list[float]:
    """Return the seconds of each of `runs` calls, after one that does not count."""
    act()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - start)
    return seconds


def show(name: str, seconds: list[float]) -> None:
    """Print the median in milliseconds, and what 99 of 100 stay under."""
    worst = f"   99 % under {sorted(seconds)[int(len(seconds) * 0.99)] * 1000:.3f}"
    median = statistics.median(seconds) * 1000
    print(f"{name:<16}{median:9.3f} ms{worst if len(seconds) > 1 else ''}")


if __name__ == "__main__":
    main()
