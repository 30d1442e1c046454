"""The optional packages insightface and onnxruntime: whether they are there, and how they are run.

Written against insightface 2.1 and onnxruntime 1.19 to 1.31. Only model classes are taken from
insightface, with the paths of files that are there: its ways of looking for models by name, which
download what they do not find, are never entered.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import FaceError, MissingPackageError
from .weights import WeightsStamp, stamp_of_weights

__all__ = [
    "CPU",
    "CUDA",
    "gpu_warning",
    "load_model",
    "open_package",
    "package_problem",
    "prepare_thread",
    "runtime_errors",
    "unload_models",
]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_OLDEST = (2, 1)
# What insightface needs beyond ComfyUI's own packages, onnxruntime and opencv.
_BESIDES = "onnx scikit-image"
# Read from the wheels on PyPI: 1.15 to 1.18 were for CUDA 11, 1.19 to 1.26 are for CUDA 12.
_GPU_PACKAGE = (
    "pip uninstall -y onnxruntime onnxruntime-gpu, then for a PyTorch with CUDA 12 pip install "
    '"onnxruntime-gpu>=1.19,<1.27", for one with CUDA 13 pip install "onnxruntime-gpu>=1.27"'
)

_models: dict[tuple[WeightsStamp, str, bool, int], Any] = {}
_lock = threading.Lock()


def package_problem() -> str:
    """Return why insightface cannot be used, with the install line; "" where it seems usable.

    Nothing is imported, so a package that is there and broken shows only when it is opened.
    """
    missing = [name for name in ("insightface", "onnxruntime") if not _is_there(name)]
    if missing:
        return f"{' and '.join(missing)} {_are(missing)} not installed. {_install_line()}"
    version = _version("insightface")
    if version and _numbers(version) < _OLDEST:
        return (
            f"insightface {version} is installed, and 2.1 or newer is needed (older ones align and "
            f"detect otherwise). {_install_line()}"
        )
    if not _is_there("cv2"):
        return f"insightface needs opencv, which is not installed. {_install_line()}"
    return ""


def open_package() -> Any:  # noqa: ANN401
    """Return insightface's module `model_zoo.model_zoo`.

    Raises MissingPackageError, with the install line that leaves other packages alone.
    """
    problem = package_problem()
    if problem:
        raise MissingPackageError(problem)
    try:
        return importlib.import_module("insightface.model_zoo.model_zoo")
    except (ImportError, AttributeError, TypeError) as error:
        # Two kinds of opencv over each other, or a package made for another NumPy.
        reason = " ".join(str(error).split())[:300]
        raise MissingPackageError(
            f"insightface is installed but cannot be imported ({reason}). {_install_line()} "
            "Where the message names libGL or cv2: pip uninstall -y opencv-python "
            "opencv-python-headless, then pip install opencv-python-headless."
        ) from error


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return what a session of onnxruntime, or insightface's code around it, raises."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    cv2 = importlib.import_module("cv2")
    own = [
        kind
        for kind in vars(state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    return (*own, cv2.error, MemoryError, RuntimeError, ValueError)


def load_model(path: Path, task: str, *, wants_gpu: bool, device_id: int) -> Any:  # noqa: ANN401
    """Return insightface's model of an ONNX file, or of the task of a pack with a manifest.

    The same object for everybody while the file is unchanged, so there is one session for each
    file and device. `task` is "" for an ONNX file: insightface then tells by the file's inputs and
    outputs what it is, and None comes back for what it does not know.

    Raises MissingPackageError, and FaceError when the file is damaged.
    """
    zoo = open_package()
    manifest = path / "manifest.json" if task else path
    key = (stamp_of_weights(manifest), task, wants_gpu, device_id)
    with _lock:
        if key not in _models:
            for old in [one for one in _models if (one[0][0], *one[1:]) == (key[0][0], *key[1:])]:
                del _models[old]
            # The first session of a process takes its thread along into flushing denormals
            # (`prepare_thread`), and PyTorch's or NumPy's work there has no part in that.
            with ThreadPoolExecutor(1, "animation-studio-faces", prepare_thread) as alone:
                opening = alone.submit(_open_model, zoo, path, task, wants_gpu, device_id)
                _models[key] = opening.result()
        return _models[key]


def unload_models() -> None:
    """Forget all sessions; their memory is free once no engine uses them."""
    with _lock:
        _models.clear()


def prepare_thread() -> None:
    """Let this thread treat numbers under 1e-38 as zero, as onnxruntime's own threads do.

    Networks hold such weights (8,938 of 1,190,336 in the recogniser of the tests), and a CPU takes
    a hundred times as long for each: 64 ms a face instead of 8, with the same numbers to the last
    bit. The session's own option does not reach the thread that calls it.
    """
    with contextlib.suppress(ImportError):
        torch = importlib.import_module("torch")
        torch.set_flush_denormal(True)


def gpu_warning(available: list[str], used: str) -> str:
    """Return what to tell the user who has a GPU: "" when the session runs on it.

    `available` are onnxruntime's providers, `used` is the first one of the session.
    """
    if used == CUDA:
        return ""
    if CUDA in available:
        return (
            f"insightface runs on the CPU ({used}) although there is a GPU: onnxruntime could not "
            "start CUDA (the terminal has its message). Mostly it is made for another CUDA than "
            f"PyTorch's: {_GPU_PACKAGE}."
        )
    return (
        f"insightface runs on the CPU ({used}) although there is a GPU: this onnxruntime has no "
        f"CUDA in it. For the GPU: {_GPU_PACKAGE}."
    )


def _open_model(zoo: Any, path: Path, task: str, wants_gpu: bool, device_id: int) -> Any:  # noqa: ANN401
    runtime = importlib.import_module("onnxruntime")
    messages = importlib.import_module("google.protobuf.message")
    options: dict[str, Any] = {
        "providers": [CPU],
        "provider_options": [{}],
        "sess_options": _session_options(runtime),
    }
    if wants_gpu and CUDA in runtime.get_available_providers():
        options["providers"] = [CUDA, CPU]
        options["provider_options"] = [_cuda_options(device_id), {}]
    if task:
        options["model_task"] = task
    # insightface would otherwise make a session for each size that a detector looks at.
    options["static_shape_sessions"] = False
    odd = (AssertionError, AttributeError, IndexError, KeyError, TypeError, OSError)
    try:
        return zoo.get_model(str(path), **options)
    except (*runtime_errors(), messages.DecodeError, *odd) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise FaceError(
            f"{path}: insightface cannot open this model ({reason}). If the file was copied or "
            "downloaded only in part, get the model pack again."
        ) from error


def _session_options(runtime: Any) -> Any:  # noqa: ANN401
    options = runtime.SessionOptions()
    # Threads that wait busily take the cores from the next session: of 32 pictures with the
    # detector and the recogniser in turn, on 2 cores, that was a third of the time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Models of one output of [1, 512] are run in batches, which onnxruntime warns of each time.
    options.log_severity_level = 3
    return options


def _cuda_options(device_id: int) -> dict[str, str]:
    return {
        "device_id": str(device_id),
        # Diffusion models need the memory; by default the arena doubles each time it grows.
        "arena_extend_strategy": "kSameAsRequested",
        # The default tries all algorithms anew for each number of faces in a batch.
        "cudnn_conv_algo_search": "HEURISTIC",
    }


def _install_line() -> str:
    """Say how to install what is missing without harming what is there."""
    runtimes = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    opencvs = [
        name
        for name in (
            "opencv-python",
            "opencv-python-headless",
            "opencv-contrib-python",
            "opencv-contrib-python-headless",
        )
        if _version(name)
    ]
    if set(runtimes) <= {"onnxruntime"} and set(opencvs) <= {"opencv-python"}:
        return 'Install it into ComfyUI\'s Python: pip install "insightface>=2.1"'
    others = [_BESIDES]
    others += [] if runtimes else ["onnxruntime"]
    others += [] if opencvs else ["opencv-python-headless"]
    clash = ", ".join(
        name for name in runtimes + opencvs if name not in {"onnxruntime", "opencv-python"}
    )
    return (
        f"Install it into ComfyUI's Python beside {clash}, whose files a plain install would "
        f'overwrite: pip install --no-deps "insightface>=2.1" and then pip install '
        f"{' '.join(others)}"
    )


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
