"""Which engines there are, and one of each for everybody."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FaceError, MissingPackageError
from .dlib_engine import DlibEngine
from .insight_engine import InsightEngine
from .insight_package import open_package, package_problem, unload_models
from .packs import (
    AUTO,
    DLIB,
    INSIGHT,
    KNOWN_PACKS,
    available_packs,
    engine_names,
    in_order,
    pack_files,
)
from .weights import stamp_of_weights

if TYPE_CHECKING:
    from .engine import FaceEngine

__all__ = ["open_engine", "unload_engines"]

_RELEASE = "https://github.com/deepinsight/insightface/releases/download/v0.7"

_engines: dict[tuple[object, ...], FaceEngine] = {}
_lock = threading.Lock()


def open_engine(
    name: str, folders: Sequence[Path], *, wants_gpu: bool, device_id: int
) -> FaceEngine:
    """Return the engine `name`, the same one for everybody while its files are unchanged.

    "auto" is the first pack (buffalo_l, antelopev2, others by name) where there is one and
    insightface is installed, else dlib. `wants_gpu` asks for the CUDA device `device_id`, which
    only insightface can use.

    Raises FaceError for an unknown name, a missing pack (with where to get it) and damaged files,
    MissingPackageError with the install line.
    """
    kind, _, pack = (part.strip() for part in name.partition(":"))
    if name == AUTO:
        return _automatic(folders, wants_gpu, device_id)
    if name == DLIB:
        return _dlib()
    if kind != INSIGHT or not pack:
        raise FaceError(
            f"There is no face engine {name!r}. There are: {', '.join(engine_names(folders))}."
        )
    packs = available_packs(folders)
    if pack not in packs:
        # First what the pack would be of no use without.
        open_package()
        raise _missing(pack, packs, folders)
    return _insight(packs[pack], wants_gpu, device_id)


def unload_engines() -> None:
    """Forget all engines and sessions; their memory is free once no run uses them."""
    with _lock:
        _engines.clear()
    unload_models()


def _automatic(folders: Sequence[Path], wants_gpu: bool, device_id: int) -> FaceEngine:
    packs = available_packs(folders)
    if not packs:
        return _dlib()
    first = in_order(packs)[0]
    reason = package_problem()
    if not reason:
        try:
            return _insight(packs[first], wants_gpu, device_id)
        except MissingPackageError as error:
            reason = str(error)
    return _dlib(f"The model pack {first} is there, but dlib is used: {reason}")


def _dlib(*warnings: str) -> FaceEngine:
    key = (DLIB, *warnings)
    with _lock:
        if key not in _engines:
            _engines[key] = DlibEngine(warnings)
        return _engines[key]


def _insight(folder: Path, wants_gpu: bool, device_id: int) -> FaceEngine:
    where = (INSIGHT, folder, wants_gpu, device_id)
    key = (*where, tuple(stamp_of_weights(path) for path in pack_files(folder)))
    with _lock:
        if key not in _engines:
            for old in [one for one in _engines if one[: len(where)] == where]:
                del _engines[old]
            _engines[key] = InsightEngine(folder, wants_gpu=wants_gpu, device_id=device_id)
        return _engines[key]


def _missing(pack: str, packs: dict[str, Path], folders: Sequence[Path]) -> FaceError:
    where = f"{folders[0]}/models/{pack}" if folders else f"models/insightface/models/{pack}"
    source = (
        f"Download {_RELEASE}/{pack}.zip (for non-commercial research only) and unpack it there"
        if pack in KNOWN_PACKS
        else "Put its ONNX files there"
    )
    return FaceError(
        f"insightface's model pack {pack} is not there: {where} has no models (found: "
        f"{', '.join(in_order(packs)) or 'none'}). Nothing is downloaded by itself. {source}, or "
        "choose another engine, such as dlib."
    )
