"""Which of insightface's model packs lie on this machine, and what engines may be called.

Apart from the engines, since nodes ask for names when ComfyUI starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

__all__ = [
    "AUTO",
    "DLIB",
    "INSIGHT",
    "KNOWN_PACKS",
    "MANIFEST",
    "available_packs",
    "engine_names",
    "in_order",
    "pack_files",
]

AUTO, DLIB, INSIGHT = "auto", "dlib", "insightface"
# Offered even when they are not there, so that a workflow that names one can be opened and says
# what is missing; the first that is there is what "auto" takes.
KNOWN_PACKS = ("buffalo_l", "antelopev2")
# With it a pack of insightface 2.1 says which file is what; without, their form says it.
MANIFEST = "manifest.json"


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
    packs = in_order(available_packs(folders))
    names = [*KNOWN_PACKS, *(name for name in packs if name not in KNOWN_PACKS)]
    return [AUTO, DLIB, *(f"{INSIGHT}: {name}" for name in names)]


def pack_files(folder: Path) -> list[Path]:
    """Return the ONNX files and the manifest of a folder, in the order of FaceAnalysis."""
    files = sorted(path for path in folder.glob("*.onnx") if path.is_file())
    manifest = folder / MANIFEST
    return [*files, manifest] if manifest.is_file() else files


def in_order(packs: Iterable[str]) -> list[str]:
    """Return names of packs in the order in which `auto` prefers them."""
    known = [name for name in KNOWN_PACKS if name in packs]
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
