"""Judging pictures by face, against the loop that users write today.

    python benchmarks/faces.py --insightface FOLDER --pack NAME --pictures FOLDER [--runs 3] [--gpu]

FOLDER of --insightface is ComfyUI's models/insightface, NAME a model pack in it (buffalo_l); the
interpreter needs insightface and what this pack requires. Pictures are made of those in --pictures,
cut to 1024x1024. Each figure comes from a fresh process on the same models and pictures:

    plain       FaceAnalysis(name).prepare(640x640), `get` for each picture, cosine by hand
    tuned       the same with only those two models, and with our sessions' options: no threads that
                wait busily, numbers under 1e-38 taken as zero
    ours        open_engine and judge, as the Consistency Filter does; every face may match
    largest     ours, when only the largest face counts

    rate        pictures a second, warm, for 1, 8 and 32 pictures
    outside     part of ours' time in which no ONNX session runs
    start       to a loaded engine, imports but torch's included (ComfyUI has that)
    memory      growth of the process over start and 32 pictures

Verdicts of all sides are compared. Printed are medians and ratios.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[1]
SIDES = ("plain", "tuned", "ours", "largest")
COUNTS = (1, 8, 32)
SIDE = 1024
THRESHOLD = 0.5


def main() -> None:
    """Measure every side in turn, print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--insightface", type=Path, required=True, help="models/insightface")
    parser.add_argument("--pack", required=True, help="a model pack in it")
    parser.add_argument("--pictures", type=Path, required=True, help="pictures with faces")
    parser.add_argument("--runs", type=int, default=3, help="processes for each figure")
    parser.add_argument("--gpu", action="store_true", help="on CUDA")
    options = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(options.runs):
        for side in SIDES:
            rows[side].append(child(options, side))
    show(rows)


def child(options: argparse.Namespace, side: str) -> dict[str, Any]:
    """Run one fresh process and return its figures."""
    command = [sys.executable, __file__, "--child", side, str(options.insightface)]
    command += [options.pack, str(options.pictures), str(int(options.gpu))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"A measured process failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def show(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Print medians, ratios to the plain loop, and whether the verdicts agree."""
    print(f"computed by {rows['ours'][0]['provider']}")
    keys = [f"rate {count}" for count in COUNTS] + ["start", "memory"]
    for key in keys:
        medians = {side: statistics.median(row[key] for row in rows[side]) for side in SIDES}
        unit = {"start": "s", "memory": "MB"}.get(key, "/s")
        text = "  ".join(
            f"{side} {value:7.2f} ({value / medians['plain']:4.2f}x)"
            for side, value in medians.items()
        )
        print(f"{key:8} {unit:3} {text}")
    outside = statistics.median(row["outside"] for row in rows["ours"])
    print(f"outside the ONNX sessions: {outside:.1%} of ours' time")
    plain, ours = rows["plain"][0]["scores"], rows["ours"][0]["scores"]
    differences = [abs(a - b) for a, b in zip(plain, ours, strict=True)]
    same = sum((a >= THRESHOLD) == (b >= THRESHOLD) for a, b in zip(plain, ours, strict=True))
    kept = sum(score >= THRESHOLD for score in plain)
    print(
        f"verdicts equal: {same} of {len(plain)} ({kept} kept), scores differ by at most "
        f"{max(differences):.4f}"
    )


# --- in the measured process -------------------------------------------------------------------


def in_child(side: str, root: Path, pack: str, folder: Path, gpu: bool) -> None:
    """Load an engine, judge batches of pictures, print the figures."""
    import torch  # noqa: F401 - a running ComfyUI has it

    pictures = make_pictures(folder, max(COUNTS))
    before = memory()
    began = time.perf_counter()
    judge_scores, provider = (plain if side in ("plain", "tuned") else ours)(side, root, pack, gpu)
    start = time.perf_counter() - began
    # The first pictures warm the sessions and give the reference.
    scores = judge_scores(pictures)
    figures: dict[str, Any] = {"provider": provider, "start": start, "scores": scores}
    for count in COUNTS:
        repeats = max(1, 8 // count)
        began = time.perf_counter()
        for _ in range(repeats):
            judge_scores(pictures[:count])
        figures[f"rate {count}"] = count * repeats / (time.perf_counter() - began)
    figures["memory"] = (memory() - before) / 1024
    figures["outside"] = outside_of_sessions(lambda: judge_scores(pictures))
    print(json.dumps(figures))


def plain(side: str, root: Path, pack: str, gpu: bool) -> tuple[Any, str]:
    """The loop that users write."""
    import numpy as np
    import onnxruntime
    from insightface.app import FaceAnalysis

    providers = ["CUDAExecutionProvider"] if gpu else ["CPUExecutionProvider"]
    more: dict[str, Any] = {}
    if side == "tuned":
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        more = {"sess_options": options, "allowed_modules": ["detection", "recognition"]}
    app = FaceAnalysis(name=pack, root=str(root), providers=providers, **more)
    app.prepare(ctx_id=0 if gpu else -1, det_size=(640, 640))
    reference: list[Any] = []

    def judge_scores(pictures: list[Any]) -> list[float]:
        scores = []
        for picture in pictures:
            faces = app.get(np.ascontiguousarray(picture[..., ::-1]))
            if not reference:
                reference.append(max(faces, key=lambda face: area(face.bbox)).normed_embedding)
            found = [float(face.normed_embedding @ reference[0]) for face in faces]
            scores.append(max(found, default=-1.0))
        return scores

    return judge_scores, "; ".join(
        sorted({m.session.get_providers()[0] for m in app.models.values()})
    )


def ours(side: str, root: Path, pack: str, gpu: bool) -> tuple[Any, str]:
    """What the Consistency Filter does."""
    sys.path.append(str(PACK))
    from animation_studio.faces.engines import open_engine
    from animation_studio.faces.judge import judge
    from animation_studio.faces.references import References
    from animation_studio.faces.verdict import JudgeSettings, Subject

    engine = open_engine(f"insightface: {pack}", [root], wants_gpu=gpu, device_id=0)
    settings = JudgeSettings(which="largest" if side == "largest" else "best match")
    subjects: list[Any] = []

    def judge_scores(pictures: list[Any]) -> list[float]:
        if not subjects:
            face = engine.detect(pictures[:1])[0][0]
            vectors = engine.embed([engine.align(pictures[0], face)])
            references = References("luca", "Luca", engine.model, vectors, ("first",))
            subjects.append(Subject(references, THRESHOLD))
        verdicts = judge(engine, pictures, subjects, settings)
        return [-1.0 if verdict.score is None else verdict.score for verdict in verdicts]

    return judge_scores, engine.provider


def area(box: Any) -> float:
    """Area of a box in square pixels."""
    return float((box[2] - box[0]) * (box[3] - box[1]))


def make_pictures(folder: Path, count: int) -> list[Any]:
    """Cut pictures of 1024x1024 out of those in a folder, no two the same, as uint8 RGB."""
    import numpy as np
    from PIL import Image

    sources = []
    for file in sorted(folder.iterdir()):
        with Image.open(file) as image:
            picture = image.convert("RGB")
            scale = SIDE * 1.1 / min(picture.size)
            sources.append(picture.resize([round(side * scale) for side in picture.size]))
    pictures = []
    for index in range(count):
        source = sources[index % len(sources)]
        shift = index // len(sources) / max(1, (count - 1) // len(sources))
        left = round((source.width - SIDE) * (0.5 + shift) / 2)
        top = round((source.height - SIDE) * shift / 2)
        pictures.append(np.asarray(source.crop((left, top, left + SIDE, top + SIDE))))
    return pictures


def memory() -> float:
    """Most memory that this process has held, in KB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def outside_of_sessions(work: Any) -> float:
    """Return the part of a call's time in which no ONNX session ran, in any thread."""
    import onnxruntime

    lock = threading.Lock()
    running, inside, since = 0, 0.0, 0.0
    original = onnxruntime.InferenceSession.run

    def timed(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal running, inside, since
        with lock:
            if running == 0:
                since = time.perf_counter()
            running += 1
        try:
            return original(self, *arguments, **named)
        finally:
            with lock:
                running -= 1
                if running == 0:
                    inside += time.perf_counter() - since

    onnxruntime.InferenceSession.run = timed
    began = time.perf_counter()
    work()
    total = time.perf_counter() - began
    onnxruntime.InferenceSession.run = original
    return 1 - inside / total


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _, _, what, models, name, pictures_folder, on_gpu = sys.argv
        in_child(what, Path(models), name, Path(pictures_folder), on_gpu == "1")
    else:
        main()
