"""Saving takes: the picture with its workflow, and the record beside it."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy.cli_args import args as comfy_args
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import StudioError
from ..faces.report import verdicts_by_picture
from ..faces.verdict import picture_sha256
from ..files import write_atomically
from ..gpu.report import reports_of
from ..llm.report import judgements_by_picture
from ..registry import Look, SamplingValues
from ..runs.provenance import Prompt, PromptGraph, linked_node
from ..runs.record import Record, entry_records
from .environment import versions
from .images import to_bytes
from .outputs import place

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["SavedTakes", "TakeContext", "save_takes"]

RECORD_KEY = "animation_studio"
_ROUNDS = "AnimStudio_UntilAccepted"
_CONTROL, _POSE, _QUALITY = "AnimStudio_Control", "AnimStudio_Pose", "AnimStudio_QualityPreset"
# Of a GPU report: what was said in words, and who else uses the machine. Pictures are shared.
_PRIVATE: Any = {"warnings": True, "holding": True, "steps": {"__all__": {"detail"}}}
# Level 4 as core's SaveImage: a third of the time of level 9 for a few percent more bytes.
_PNG_LEVEL = 4


@dataclass(frozen=True)
class TakeContext:
    """What ComfyUI and the graph say about a take.

    `report` is a consistency report as JSON, `gpu_report` one of VRAM Guard or Resume LLM,
    `judgement` one of Judge or Until Accepted.
    """

    prompt: Prompt
    node: str
    extra: Mapping[str, object]
    look: Look | None
    sampling: SamplingValues | None
    report: str = ""
    gpu_report: str = ""
    judgement: str = ""


@dataclass(frozen=True)
class SavedTakes:
    """Names of what was written, in the form of ComfyUI's ui results."""

    images: list[dict[str, str]]
    records: list[dict[str, str]]


def save_takes(images: torch.Tensor, prefix: str, context: TakeContext) -> SavedTakes:
    """Write each picture of a batch as PNG and its record as JSON beside it, both or none.

    `images` is float [batch, height, width, 3]. `prefix` is a name below ComfyUI's output folder,
    with its %placeholders%. Raises StudioError for a prefix that leaves the folder and where the
    file system refuses (a full disk, no permission).
    """
    pictures = to_bytes(images)
    height, width = pictures[0].shape[:2]
    where = place(prefix, width, height)
    record = _record(context, width, height)
    saved = SavedTakes([], [])
    verdicts = verdicts_by_picture(context.report)
    judged = judgements_by_picture(context.judgement)
    for index, picture in enumerate(pictures):
        stem = f"{where.name.replace('%batch_num%', str(index))}_{where.counter + index:05}_"
        own: dict[str, object] = {
            "file": f"{stem}.png",
            "batch_index": index,
            "batch_size": len(pictures),
        }
        digest = picture_sha256(picture) if verdicts or judged else ""
        own["consistency"] = verdicts.get(digest)
        own["judgement"] = judged.get(digest)
        text = record.model_copy(update={**own, **_of_round(record, own)}).as_json()
        _write_pair(where.folder / f"{stem}.png", _png(picture, context, text), text)
        for names, suffix in ((saved.images, "png"), (saved.records, "json")):
            names.append(where.entry(f"{stem}.{suffix}"))
    return saved


def _of_round(record: Record, own: Mapping[str, Any]) -> dict[str, object]:
    """What the round that made a picture knows better than the graph: Until Accepted's best one."""
    judgement = own["judgement"] or {}
    best = next(
        (one for one in judgement.get("rounds", ()) if one["number"] == judgement["best"]), None
    )
    if best is None:
        return {}
    faces = best["faces"] or {}
    return {
        "batch_index": best["index"],
        "batch_size": best["batch_size"],
        "samplers": [
            {**one, "seed": best["seed"]} if one.get("class") == _ROUNDS else one
            for one in record.samplers
        ],
        "controls": [*record.controls, *({"control": text} for text in best["controls"])],
        "consistency": own["consistency"] or faces.get("verdict") or None,
    }


def _write_pair(path: Path, png: bytes, record: str) -> None:
    """Write a picture and its record: no picture is without one, and no record stands alone."""
    beside = path.with_suffix(".json")
    try:
        write_atomically(beside, record.encode())
        try:
            write_atomically(path, png)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StudioError(
            f"{path}: the take cannot be saved ({error.strerror}). Make room or choose another "
            "output folder, and run again: what is cached is not made twice."
        ) from error


def _record(context: TakeContext, width: int, height: int) -> Record:
    look, sampling = context.look, context.sampling
    graph = PromptGraph(context.prompt, context.node, _known(context))
    prompts = look.prompts if look else None
    return Record(
        created=datetime.datetime.now(datetime.timezone.utc),
        file="",
        width=width,
        height=height,
        character=look.character if look else None,
        entries=entry_records(look) if look else [],
        positive=prompts.positive if prompts else None,
        negative=prompts.negative if prompts else None,
        windows=(
            {"positive": prompts.positive_windows, "negative": prompts.negative_windows}
            if prompts
            else {}
        ),
        sampling=sampling,
        consistency_threshold=look.consistency_threshold if look else None,
        gpu=[
            report.model_dump(mode="json", exclude=_PRIVATE)
            for report in reports_of(context.gpu_report)
        ],
        samplers=graph.samplers(),
        models=graph.models(),
        controls=graph.of_class(_CONTROL),
        poses=graph.of_class(_POSE),
        warnings=look.warnings if look else [],
        versions=versions(),
    )


def _known(context: TakeContext) -> dict[tuple[str, int], object]:
    """The outputs of the Quality Preset whose sampling is connected, by node id and index."""
    sampling = context.sampling
    origin = linked_node(context.prompt, context.node, "sampling")
    if sampling is None or origin is None or origin.class_type != _QUALITY:
        return {}
    return {(origin.key, index): value for index, value in enumerate(sampling.outputs)}


def _png(picture: NDArray[np.uint8], context: TakeContext, record: str) -> bytes:
    info = PngInfo()
    if not comfy_args.disable_metadata:
        info.add_text("prompt", json.dumps(context.prompt))
        for key, value in context.extra.items():
            info.add_text(key, json.dumps(value))
        info.add_text(RECORD_KEY, record)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", pnginfo=info, compress_level=_PNG_LEVEL)
    return buffer.getvalue()
