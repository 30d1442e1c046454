"""How well the face engines tell people apart, on the real faces of the tests.

    python benchmarks/face_accuracy.py [--insightface FOLDER --pack NAME]

Needs what scripts/test prepares (29 known faces in eight pictures, tests/support/faces.py). Each
engine looks at the whole pictures; printed are how many known faces it finds and what else, and the
scores of all pairs of different people, of the one person who is in two pictures, and of every face
against itself after edits (flipped, cut, scaled, brighter, darker, recompressed, rotated), with the
part that the engine's own threshold gets wrong. `plain` is insightface's FaceAnalysis with cosines
by hand on the same pack.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[1]
sys.path.append(str(PACK))

import numpy as np  # noqa: E402

from animation_studio.faces.engines import open_engine  # noqa: E402
from animation_studio.faces.similarity import similarities  # noqa: E402
from scripts.bootstrap.home import Home  # noqa: E402
from tests.support import faces as known  # noqa: E402

Found = list[tuple[tuple[float, float, float, float], Any]]


def main() -> None:
    """Measure each engine and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--insightface", type=Path, help="models/insightface (the stand-in's)")
    parser.add_argument("--pack", default=known.STANDIN_PACK, help="a model pack in it")
    options = parser.parse_args()
    home = Home.find()
    root = options.insightface or known.insightface_root(home)
    pictures = known.face_pictures(home)
    for name in ("dlib", f"insightface: {options.pack}"):
        engine = open_engine(name, [root], wants_gpu=False, device_id=0)
        metric = engine.model.metric
        measure(
            str(engine.model),
            lambda picture, engine=engine: ours(engine, picture),
            lambda a, b, metric=metric: similarities(a, b, metric),
            engine.default_threshold,
            pictures,
        )
    measure("plain FaceAnalysis", plain(root, options.pack), lambda a, b: a @ b.T, 0.45, pictures)


def ours(engine: Any, picture: np.ndarray) -> Found:
    """Return boxes and embeddings of all faces, as the pack finds them."""
    faces = engine.detect([picture])[0]
    vectors = engine.embed([engine.align(picture, face) for face in faces])
    return [(face.box, vector) for face, vector in zip(faces, vectors, strict=True)]


def plain(root: Path, pack: str) -> Callable[[np.ndarray], Found]:
    """Return insightface's own way: FaceAnalysis.get on BGR."""
    from insightface.app import FaceAnalysis

    warnings.filterwarnings("ignore", "`estimate` is deprecated", FutureWarning)
    app = FaceAnalysis(name=pack, root=str(root), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_size=(640, 640))
    return lambda picture: [
        (tuple(face.bbox), face.normed_embedding)
        for face in app.get(np.ascontiguousarray(picture[..., ::-1]))
    ]


def measure(
    name: str,
    find: Callable[[np.ndarray], Found],
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    threshold: float,
    pictures: dict[str, np.ndarray],
) -> None:
    """Print one engine's figures."""
    vectors: dict[known.KnownFace, np.ndarray] = {}
    strangers = 0
    for picture, pixels in pictures.items():
        for box, vector in find(pixels):
            face = known.who(picture, box)
            strangers += face is None
            if face is not None:
                vectors[face] = vector

    def of_pairs(pairs: list[tuple[known.KnownFace, known.KnownFace]]) -> np.ndarray:
        there = [(vectors[a], vectors[b]) for a, b in pairs if a in vectors and b in vectors]
        return np.array([score(a[None], b[None])[0, 0] for a, b in there])

    print(f"\n{name}, threshold {threshold}")
    print(f"  found {len(vectors)} of {len(known.KNOWN_FACES)} known faces, {strangers} others")
    different = of_pairs(known.different_people())
    line("different people", different, different >= threshold, "accepted")
    same = of_pairs(known.same_people())
    line("one person in two pictures", same, same < threshold, "rejected")
    edited = np.array(list(edits(find, score, vectors, pictures)))
    line("one face after edits", edited, edited < threshold, "rejected")


def edits(
    find: Callable[[np.ndarray], Found],
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    vectors: dict[known.KnownFace, np.ndarray],
    pictures: dict[str, np.ndarray],
) -> Iterator[float]:
    """Score every face that is not hard against itself after each edit; not found is -1."""
    for face, vector in vectors.items():
        if face.hard:
            continue
        for edit in known.EDITS.values():
            found = find(edit(known.portrait(pictures, face)))
            scores = [score(vector[None], other[None])[0, 0] for _, other in found]
            yield float(max(scores, default=-1.0))


def line(what: str, scores: np.ndarray, wrong: np.ndarray, verb: str) -> None:
    """Print one row."""
    if scores.size:
        print(
            f"  {what:28} {scores.size:4}: mean {scores.mean():.2f}, {scores.min():.2f} to "
            f"{scores.max():.2f}, {verb} {wrong.mean():.1%}"
        )


if __name__ == "__main__":
    main()
