"""The real meter, over the real pynvml, against a driver that says what each test wants."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from animation_studio.gpu.meter import DeviceMemory, open_meter
from animation_studio.gpu.nvml import NvmlMeter
from animation_studio.gpu.process import process_name, started_at
from tests.support import nvml_standin as standin
from tests.support.nvml_standin import GIB, ScriptedGpu

ROOT = Path(__file__).parents[3]


@pytest.fixture
def meter(gpu):
    """A meter that begins NVML anew at once after a failure."""
    return NvmlMeter(retry_seconds=0)


def test_it_reads_what_the_driver_says_now(gpu, meter):
    expected = DeviceMemory(0, gpu.uuid, gpu.name, 16 * GIB, 0, 16 * GIB)
    assert open_meter().devices() == [expected]
    assert meter.problem == ""
    gpu.add(5 * GIB)
    assert meter.read(0) == DeviceMemory(0, gpu.uuid, gpu.name, 16 * GIB, 5 * GIB, 11 * GIB)
    gpu.set(total=8 * GIB, used=8 * GIB + 1)
    assert meter.read(0).free == 0


def test_an_index_that_no_gpu_has_reads_as_nothing(meter):
    assert meter.read(1) is None
    assert meter.read(-1) is None
    assert meter.processes(7) is None
    assert meter.problem == ""


def test_a_driver_reserves_memory_that_counts_as_used(gpu, meter):
    """Version 2 of NVML's struct leaves it out of `used`; then used and free miss the total."""
    gpu.set(used=3 * GIB, reserved=GIB)
    assert (meter.read(0).used, meter.read(0).free) == (3 * GIB, 13 * GIB)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"free": None}, (5 * GIB, 11 * GIB)),
        ({"used": None, "free": 11 * GIB}, (5 * GIB, 11 * GIB)),
        ({"used": None, "free": None}, None),
        ({"total": None, "free": 11 * GIB}, None),
        ({"total": 0, "used": 0, "free": 0}, None),
    ],
)
def test_what_is_not_available_is_worked_out_or_unknown(gpu, meter, figures, expected):
    gpu.set(**({"used": 5 * GIB} | figures))
    read = meter.read(0)
    assert (read and (read.used, read.free)) == expected
    assert ("N/A" in meter.problem) is (expected is None)


def test_a_uuid_has_its_prefix_and_a_nameless_gpu_a_name(gpu, meter):
    gpu.set(uuid="5d0b5a7e-0000-4000-8000-000000000000")
    assert meter.read(0).uuid == "GPU-5d0b5a7e-0000-4000-8000-000000000000"
    gpu.fail(standin.NOT_SUPPORTED, "nvmlDeviceGetName")
    gpu.fail(standin.UNKNOWN, "nvmlDeviceGetUUID")
    assert meter.read(0) == DeviceMemory(0, "", "GPU 0", 16 * GIB, 0, 16 * GIB)


def test_several_gpus_where_one_cannot_be_read(gpu, meter):
    gpu.add_lines(f"device 1 GPU-one {24 * GIB} na na 0 NVIDIA GeForce RTX 4090")
    gpu.add_lines(f"device 2 GPU-two {24 * GIB} {GIB} {23 * GIB} 0 NVIDIA GeForce RTX 3090")
    assert [(device.index, device.uuid) for device in meter.devices()] == [
        (0, gpu.uuid),
        (2, "GPU-two"),
    ]
    assert meter.read(1) is None
    assert meter.problem == ""


def test_mig_instances_follow_the_gpus(gpu, meter):
    gpu.add_lines(f"mig 0 0 MIG-a {8 * GIB} {GIB} {7 * GIB} NVIDIA H200 MIG 1g")
    gpu.add_lines(f"mig 3 0 MIG-b {8 * GIB} {2 * GIB} {6 * GIB} NVIDIA H200 MIG 1g")
    assert [(device.index, device.uuid) for device in meter.devices()] == [
        (0, gpu.uuid),
        (1, "MIG-a"),
        (2, "MIG-b"),
    ]
    assert meter.read(2).used == 2 * GIB
    assert meter.read(3) is None


# -- processes ---------------------------------------------------------------------------------


def test_processes_are_merged_largest_first_and_unknown_figures_last(gpu, meter):
    gpu.set(used=9 * GIB)
    ended = 4_000_000
    gpu.set_processes(
        [
            (1, None),
            (os.getpid(), 2 * GIB),
            (ended, 5 * GIB),
            (os.getpid(), 2 * GIB, "graphics"),
            (2, None, "graphics"),
            (2, 7),
        ]
    )
    listed = meter.processes(0)
    assert [(process.pid, process.used) for process in listed] == [
        (ended, 5 * GIB),
        (os.getpid(), 2 * GIB),
        (2, 7),
        (1, None),
    ]
    assert listed[0].name == ""
    assert listed[1].name == process_name(os.getpid())


def test_many_processes_are_all_listed(gpu, meter):
    gpu.set_processes([(1000 + number, number) for number in range(60)])
    assert len(meter.processes(0)) == 60


@pytest.mark.parametrize(
    ("used", "reserved", "known"),
    [(0, 0, True), (GIB // 4, 0, True), (GIB, GIB - 1, True), (GIB, 0, False)],
)
def test_nobody_listed_is_unknown_where_somebody_must_be(gpu, meter, used, reserved, known):
    gpu.set(used=used, reserved=reserved)
    assert meter.processes(0) == ([] if known else None)


def test_where_the_driver_lists_nobody_who_holds_memory_is_unknown(gpu, meter):
    gpu.set_processes([(os.getpid(), GIB)])
    gpu.fail(standin.NOT_SUPPORTED, "nvmlDeviceGetGraphicsRunningProcesses")
    assert [process.pid for process in meter.processes(0)] == [os.getpid()]
    gpu.fail(standin.NOT_SUPPORTED, "nvmlDeviceGetComputeRunningProcesses")
    assert meter.processes(0) is None
    assert meter.read(0) is not None


@pytest.mark.parametrize("pid", [0, (1 << 32) - 1])
def test_a_list_that_pynvml_misreads_is_no_list(gpu, meter, pid):
    """As version 12.535.77 does with most drivers: it takes other fields for process numbers."""
    gpu.set_processes([(os.getpid(), GIB), (pid, GIB)])
    assert meter.processes(0) is None


def test_a_driver_older_than_pynvml_lacks_functions(gpu, meter):
    gpu.set_processes([(os.getpid(), GIB)])
    for function in ("nvmlDeviceGetCompute", "nvmlDeviceGetGraphics", "nvmlDeviceGetMemoryInfo_v2"):
        gpu.fail(standin.FUNCTION_NOT_FOUND, function)
    assert meter.processes(0) is None
    assert meter.read(0).total == 16 * GIB
    assert meter.problem == ""


def test_a_name_shows_neither_folders_nor_arguments(tmp_path):
    script = tmp_path / "main.py"
    script.write_text("import sys; print(flush=True); sys.stdin.read()")
    program = Path(sys.executable).name
    for arguments, expected in [
        (["-u", str(script), "--api-key", "secret"], f"{program} main.py"),
        (["-c", script.read_text(), "--api-key", "secret"], program),
        (["-X", "utf8", str(script), "secret"], program),
        (["-m", "main", "secret"], f"{program} -m main"),
    ]:
        command = [sys.executable, *arguments]
        with subprocess.Popen(
            command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            assert process_name(process.pid) == expected
            process.stdin.close()
    assert process_name(process.pid) == ""
    assert process_name(0) == ""
    assert started_at(process.pid) is None


# -- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (standin.NO_PERMISSION, "may not ask"),
        (standin.DRIVER_NOT_LOADED, "driver is not loaded"),
        (standin.LIB_RM_VERSION_MISMATCH, "Restart the machine"),
        (standin.GPU_IS_LOST, "GPU is lost"),
        (standin.TIMEOUT, "Timeout"),
        (standin.UNKNOWN, "Unknown Error"),
        (77, "NVML says"),
    ],
)
@pytest.mark.parametrize("begun", [True, False])
def test_a_driver_that_fails_is_named_and_asked_again(gpu, meter, code, words, begun):
    if begun:
        assert meter.devices()
    gpu.fail(code)
    assert meter.devices() == []
    assert meter.read(0) is None
    assert meter.processes(0) is None
    assert words in meter.problem
    assert meter.problem.endswith(".")
    gpu.fail(0)
    assert meter.problem == ""
    assert meter.read(0).total == 16 * GIB


def test_a_driver_that_goes_and_comes_back(gpu, meter):
    assert meter.devices()
    gpu.remove()
    assert meter.read(0) is None
    assert "driver is not loaded" in meter.problem
    gpu.set(used=GIB)
    assert meter.read(0).used == GIB
    assert meter.problem == ""


def test_a_failed_driver_is_not_asked_at_every_reading(gpu):
    meter = NvmlMeter(retry_seconds=3600)
    gpu.fail(standin.DRIVER_NOT_LOADED)
    assert meter.devices() == []
    gpu.fail(0)
    assert meter.devices() == []
    assert "driver is not loaded" in meter.problem


def test_somebody_else_in_the_process_ends_nvml(gpu):
    """As a pack that calls nvmlShutdown more often than nvmlInit."""
    import pynvml

    meter = NvmlMeter(retry_seconds=3600)
    assert meter.devices()
    with contextlib.suppress(pynvml.NVMLError_Uninitialized):
        while True:
            pynvml.nvmlShutdown()
    assert meter.read(0).total == 16 * GIB
    assert meter.problem == ""


def test_one_lost_gpu_of_two_does_not_hide_the_other(gpu, meter):
    gpu.add_lines(f"device 2 GPU-two {24 * GIB} {GIB} {23 * GIB} 0 NVIDIA GeForce RTX 3090")
    # Index 1 is missing: its handle cannot be had.
    assert [device.index for device in meter.devices()] == [0]
    assert meter.problem == ""


def test_no_gpu_at_all(gpu, meter):
    gpu.file.write_text("")
    assert meter.devices() == []
    assert "knows no GPU" in meter.problem


def test_threads_read_while_the_figures_change_and_see_whole_ones(gpu, meter):
    wrong, seen, ended = [], set(), threading.Event()

    def read():
        while not ended.is_set():
            device = meter.read(0)
            if device is None or device.used + device.free != device.total:
                wrong.append(device)
            else:
                seen.add(device.used)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(300):
        gpu.set(used=number << 20)
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(seen) > 1


# -- other processes ---------------------------------------------------------------------------

READ = """
import sys
from animation_studio.gpu.meter import open_meter
meter = open_meter()
assert "pynvml" not in sys.modules
print([device.used for device in meter.devices()], meter.read(0) is None, meter.problem)
"""


def printed(environment, **options):
    result = subprocess.run(
        [sys.executable, "-c", READ],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        **options,
    )
    return result.stdout


def test_another_program_reads_the_scripted_gpu(nvml_library, tmp_path):
    gpu = ScriptedGpu(tmp_path / "gpu", used=3 * GIB)
    assert printed(gpu.environment(nvml_library)) == f"[{3 * GIB}] False \n"


def test_without_a_driver_it_says_so_and_nothing_fails(tmp_path):
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"no library")
    said = printed({"LD_LIBRARY_PATH": str(tmp_path)})
    assert said.startswith("[] True The GPU's memory cannot be read: NVIDIA's library NVML")


def test_without_the_package_it_names_what_to_install(tmp_path):
    (tmp_path / "pynvml.py").write_text("raise ModuleNotFoundError('pynvml')")
    said = printed({"PYTHONPATH": str(tmp_path)})
    assert "pip install nvidia-ml-py" in said
    (tmp_path / "pynvml.py").write_text("")
    said = printed({"PYTHONPATH": str(tmp_path)})
    assert str(tmp_path / "pynvml.py") in said
    assert "--force-reinstall nvidia-ml-py" in said
