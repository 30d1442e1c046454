"""Graphs about faces for a running ComfyUI: pictures into its input folder, nodes around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.faces import EDITS, KNOWN_FACES, portrait
from tests.support.pictures import saved

__all__ = [
    "FILTER",
    "JUDGE",
    "LUCA",
    "OTHER",
    "SIZE",
    "THIRD",
    "fields",
    "files",
    "judged",
    "known",
    "make",
    "make_luca",
    "node",
    "noise",
    "put",
    "report_of",
    "sampling",
    "shown",
    "take",
]

# Portraits are brought to one size, so that a latent's pictures make a batch.
SIZE = (320, 384)
# Widgets of every node that judges, as a fresh node in the page has them.
JUDGE: dict[str, Any] = {
    "character": "luca",
    "character_2": "none",
    "character_3": "none",
    "engine": "dlib",
    "threshold": -1.0,
    "score": "max",
    "best_k": 3,
    "which_face": "best match",
    "when_none": "block",
}
FILTER = {**JUDGE, "no_face": "reject", "keep_at_most": 0}
# Three people of tests/support/faces.py.
LUCA, OTHER, THIRD = "astronaut/1", "sample3/2", "t1/3"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """Return a node of a prompt."""
    return {"class_type": class_type, "inputs": inputs}


def known(person: str) -> Any:
    """Return the first known face of a person."""
    return next(face for face in KNOWN_FACES if face.person == person)


def put(comfyui, pictures, name: str, person: str, edit: str | None = None) -> str:
    """Write a person's portrait into ComfyUI's input folder and return its name."""
    picture = portrait(pictures, known(person))
    if edit is not None:
        picture = EDITS[edit](picture)
    Image.fromarray(picture).resize(SIZE).save(comfyui.input_dir / f"{name}.png")
    return f"{name}.png"


def noise(comfyui, name: str = "noise") -> str:
    """Write a picture of noise and return its name."""
    pixels = np.random.default_rng(1).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(comfyui.input_dir / f"{name}.png")
    return f"{name}.png"


def sampling(size: int = 64, batch: int = 1) -> dict[str, Any]:
    """Return nodes that sample: "ckpt", "positive", "latent" of a prompt."""
    return {
        "ckpt": node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
        "positive": node("CLIPTextEncode", clip=["ckpt", 1], text="luca"),
        "latent": node("EmptyLatentImage", width=size, height=size, batch_size=batch),
    }


def report_of(comfyui, result) -> dict[str, Any]:
    """Return the report that a run saved."""
    [file] = saved(comfyui, result, "reports")
    return json.loads(file.read_text(encoding="utf-8"))


def shown(result, key: str) -> tuple[list[str], list[str]]:
    """Return the lines and warnings that a node shows after a run."""
    report = result.outputs[key]["animstudio_report"][0]
    return report["lines"], report["warnings"]


def fields(report: dict[str, Any], name: str) -> list[Any]:
    """Return one field of every picture of a report."""
    return [picture[name] for picture in report["pictures"]]


def make(comfyui, names, character="luca", **inputs):
    values = {"which_face": "largest", "save": True, "engine": "dlib", **inputs}
    return comfyui.run(
        {
            "pictures": node("Test_Pictures", names=" ".join(names)),
            "refs": node(
                "AnimStudio_FaceReferences",
                images=["pictures", 0],
                character=character,
                **values,
            ),
        }
    )


def make_luca(comfyui, pictures):
    names = [
        put(comfyui, pictures, f"luca_{edit}", LUCA, edit)
        for edit in ("crop", "darker", "jpeg", "smaller", "rotated")
    ]
    return make(comfyui, names)


def judged(comfyui, names, extra=None, **inputs):
    """Filter pictures of the input folder; everything that comes out is saved."""
    prompt = {
        "pictures": node("Test_Pictures", names=" ".join(names)),
        "filter": node(
            "AnimStudio_ConsistencyFilter", **{**FILTER, "images": ["pictures", 0], **inputs}
        ),
        "kept": take(["filter", 0], "kept"),
        "rejected": take(["filter", 1], "rejected"),
        "best": take(["filter", 2], "best"),
        "annotated": node("SaveImage", images=["filter", 5], filename_prefix="annotated"),
        "report": node(
            "AnimStudio_SaveReport",
            report=["filter", 4],
            filename_prefix="report",
            contact_sheet=["filter", 6],
        ),
        **(extra or {}),
    }
    return comfyui.run(prompt)


def take(images, name):
    return node("AnimStudio_SaveTake", images=images, filename_prefix=name, report=["filter", 4])


def files(comfyui, result, key, kind="images"):
    output = result.outputs.get(key, {}).get(kind, [])
    return [Path(comfyui.output_dir, one["subfolder"], one["filename"]) for one in output]
