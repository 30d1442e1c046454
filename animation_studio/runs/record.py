"""The record: one JSON document that says how a take was made."""

from __future__ import annotations

import datetime
from pathlib import Path, PureWindowsPath

from pydantic import BaseModel, ConfigDict

from ..files import known_sha256
from ..lora import files_of
from ..registry import Look, SamplingValues

__all__ = ["EntryRecord", "Record", "entry_records"]


class EntryRecord(BaseModel):
    """An entry of the look with the SHA-256 of each of its files, by path below the LoRA.

    `lora_path` is as configured, of an absolute one the last part only: pictures are shared, and
    their maker's folders are nobody's business.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    id: str
    name: str
    weight: float
    trigger_words: list[str]
    content_hash: str
    lora_path: str | None
    sha256: dict[str, str]


class Record(BaseModel):
    """How a take was made. What was not connected or cannot be known is None or empty.

    `batch_index` counts from 0 within the batch whose noise the seed made, which Until Accepted
    makes inside of itself.

    `consistency` is the verdict on this very picture, with the engine that gave it, out of a
    consistency report; `judgement` is what a vision model answered about it, with the plan it was
    made of and, of several, every round. `gpu` is what VRAM Guard and Resume LLM did, report by
    report.

    `samplers`, `models`, `controls` and `poses` are read from the prompt; `versions` names the
    software.
    """

    model_config = ConfigDict(frozen=True)

    format: str = "animation_studio/record/1"
    created: datetime.datetime
    file: str
    width: int
    height: int
    batch_index: int = 0
    batch_size: int = 1
    character: str | None = None
    entries: list[EntryRecord] = []
    positive: str | None = None
    negative: str | None = None
    windows: dict[str, dict[str, int]] = {}
    sampling: SamplingValues | None = None
    consistency_threshold: float | None = None
    consistency: dict[str, object] | None = None
    judgement: dict[str, object] | None = None
    gpu: list[dict[str, object]] = []
    samplers: list[dict[str, object]] = []
    models: list[dict[str, object]] = []
    controls: list[dict[str, object]] = []
    poses: list[dict[str, object]] = []
    warnings: list[str] = []
    versions: dict[str, str]

    def as_json(self) -> str:
        """Return the record as indented JSON text, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"


def entry_records(look: Look) -> list[EntryRecord]:
    """Return the look's entries with the hashes of their files, as the files are now."""
    return [
        EntryRecord(
            **entry.model_dump(exclude={"lora_file", "lora_path"}),
            lora_path=_shareable(entry.lora_path),
            sha256=_file_hashes(Path(entry.lora_file)) if entry.lora_file else {},
        )
        for entry in look.entries
    ]


def _file_hashes(path: Path) -> dict[str, str]:
    folder = path if path.is_dir() else path.parent
    return {file.relative_to(folder).as_posix(): known_sha256(file) for file in files_of(path)}


def _shareable(path: str | None) -> str | None:
    absolute = path is not None and (Path(path).is_absolute() or PureWindowsPath(path).drive)
    return PureWindowsPath(path).name if path is not None and absolute else path
