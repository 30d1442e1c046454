"""Quickstart's second part: the consistency filter at work, on a face that anybody may use.

Stand-in checkpoints draw no faces. So a photograph by NASA (Eileen Collins, in the public domain,
out of the wheel of scikit-image) stands for the character: its reference is made, and of two
candidates, the photograph itself smaller and the picture that was just made, one should be kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .environment import look_at
from .faces import Source, ensure_face_files
from .home import Home
from .say import Problem, Steps
from .server import Server

__all__ = ["show_filter"]

_PICTURE = "pictures/astronaut.png"
_SOURCE = Source(
    "pypi",
    "scikit-image==0.26.0",
    {
        "skimage/data/astronaut.png": (
            _PICTURE,
            "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        )
    },
)


def show_filter(
    home: Home,
    server: Server,
    python: Path,
    made: Path,
    run: Callable[[Path], dict[str, Any]],
    steps: Steps,
) -> str | None:
    """Filter two candidates in a running ComfyUI; return what came out in a sentence.

    `made` is the picture that was just made, `run` runs a prompt file. None where the photograph
    cannot be fetched: this is a show and no condition. Raises Problem when the run fails.
    """
    interpreter = look_at(python)
    assert interpreter is not None
    try:
        ensure_face_files(home, interpreter, [_SOURCE], steps)
    except Problem as problem:
        steps.note(f"left out: {problem}")
        return None
    shutil.copyfile(home.faces / _PICTURE, server.input / "astronaut.png")
    shutil.copyfile(made, server.input / "noise.png")
    prompt = home.run / "consistency_filter.json"
    prompt.write_text(json.dumps(_prompt()), encoding="utf-8")
    result = run(prompt)
    report = next(one["path"] for one in result["files"] if one["kind"] == "report")
    path = server.output / report
    verdicts = json.loads(path.read_text(encoding="utf-8"))
    kept = verdicts["totals"]["kept"]
    reasons = "; ".join(f"{one['index'] + 1}: {one['reason']}" for one in verdicts["pictures"])
    return f"{kept} of {len(verdicts['pictures'])} pictures kept ({reasons})\nReport: {path}"


def _prompt() -> dict[str, object]:
    return {
        "face": _node("LoadImage", image="astronaut.png"),
        "noise": _node("LoadImage", image="noise.png"),
        "smaller": _node("ImageScaleBy", image=["face", 0], upscale_method="area", scale_by=0.7),
        "both": _node("ImageBatch", image1=["smaller", 0], image2=["noise", 0]),
        "references": _node(
            "AnimStudio_FaceReferences",
            images=["face", 0],
            character="luca",
            which_face="largest",
            save=False,
            engine="dlib",
        ),
        "filter": _node(
            "AnimStudio_ConsistencyFilter",
            images=["both", 0],
            references=["references", 0],
            character="none",
            character_2="none",
            character_3="none",
            engine="dlib",
            threshold=-1.0,
            score="max",
            best_k=3,
            which_face="best match",
            no_face="reject",
            keep_at_most=0,
            when_none="block",
        ),
        "report": _node(
            "AnimStudio_SaveReport",
            report=["filter", 4],
            filename_prefix="animation_studio/consistency_filter",
            contact_sheet=["filter", 6],
        ),
    }


def _node(class_type: str, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs}
