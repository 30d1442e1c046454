"""Which engines there are, and one of each for everybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FaceError, MissingPackageError
from .dlib_engine import DlibEngine
from .insight_engine import MANIFEST, InsightEngine, pack_files
from .insight_package import open_package, package_problem, unload_models
from .weights import stamp_of_weights

if TYPE_CHECKING:
    from .engine import FaceEngine

__all__ = ["available_packs", "engine_names", "open_engine", "unload_engines"]

_AUTO, _DLIB, _INSIGHT = "auto", "dlib", "insightface"
# Offered even when they are not there, so that a workflow that names one can be opened and says
# what is missing; the first that is there is what "auto" takes.
_KNOWN_PACKS = ("buffalo_l", "antelopev2")
_RELEASE = "https://github.com/deepinsight/insightface/releases/download/v0.7"

_engines: dict[tuple[object, ...], FaceEngine] = {}
_lock = threading.Lock()


def available_packs(folders: Sequence[Path]) -> dict[str, Path]:
    """Return insightface's model packs by name: the folder with the ONNX files.

    `folders` are ComfyUI's insightface folders; packs lie in `<folder>/models` or in it, and may
    lie once deeper in a folder of their own name, as antelopev2 comes out of its archive. Of two
    packs of one name the first counts. Nothing is opened, so a pack may still lack a model.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for parent in (folder / "models", folder):
            for place in _folders_in(parent):
                inner = place / place.name
                files = place if _is_pack(place) else inner if _is_pack(inner) else None
                if files is not None:
                    found.setdefault(place.name, files)
    return found


def engine_names(folders: Sequence[Path]) -> list[str]:
    """Return the engines to choose from: "auto", "dlib", then "insightface: <pack>" for packs.

    buffalo_l and antelopev2 are always among them. No package is imported, no model opened.
    """
    packs = _in_order(available_packs(folders))
    names = [*_KNOWN_PACKS, *(name for name in packs if name not in _KNOWN_PACKS)]
    return [_AUTO, _DLIB, *(f"{_INSIGHT}: {name}" for name in names)]


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
    if name == _AUTO:
        return _automatic(folders, wants_gpu, device_id)
    if name == _DLIB:
        return _dlib()
    if kind != _INSIGHT or not pack:
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
    first = _in_order(packs)[0]
    reason = package_problem()
    if not reason:
        try:
            return _insight(packs[first], wants_gpu, device_id)
        except MissingPackageError as error:
            reason = str(error)
    return _dlib(f"The model pack {first} is there, but dlib is used: {reason}")


def _dlib(*warnings: str) -> FaceEngine:
    key = (_DLIB, *warnings)
    with _lock:
        if key not in _engines:
            _engines[key] = DlibEngine(warnings)
        return _engines[key]


def _insight(folder: Path, wants_gpu: bool, device_id: int) -> FaceEngine:
    where = (_INSIGHT, folder, wants_gpu, device_id)
    key = (*where, tuple(stamp_of_weights(path) for path in pack_files(folder)))
    with _lock:
        if key not in _engines:
            for old in [one for one in _engines if one[: len(where)] == where]:
                del _engines[old]
            _engines[key] = InsightEngine(folder, wants_gpu=wants_gpu, device_id=device_id)
        return _engines[key]


def _in_order(packs: dict[str, Path]) -> list[str]:
    known = [name for name in _KNOWN_PACKS if name in packs]
    return [*known, *sorted(name for name in packs if name not in known)]


def _folders_in(parent: Path) -> Iterator[Path]:
    try:
        entries = sorted(parent.iterdir())
    except OSError:
        return
    yield from (entry for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _is_pack(folder: Path) -> bool:
    """Tell whether two models lie there, or a manifest that says where they are."""
    try:
        files = pack_files(folder)
    except OSError:
        return False
    return len(files) > 1 or any(path.name == MANIFEST for path in files)


def _missing(pack: str, packs: dict[str, Path], folders: Sequence[Path]) -> FaceError:
    where = f"{folders[0]}/models/{pack}" if folders else f"models/insightface/models/{pack}"
    source = (
        f"Download {_RELEASE}/{pack}.zip (for non-commercial research only) and unpack it there"
        if pack in _KNOWN_PACKS
        else "Put its ONNX files there"
    )
    return FaceError(
        f"insightface's model pack {pack} is not there: {where} has no models (found: "
        f"{', '.join(_in_order(packs)) or 'none'}). Nothing is downloaded by itself. {source}, or "
        "choose another engine, such as dlib."
    )
