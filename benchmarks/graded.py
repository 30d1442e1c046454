"""The graded sentences: what a plan of each should say, and which of that it does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from animation_studio.llm.plan import Plan
from animation_studio.registry import NONE

__all__ = ["SENTENCES", "Expected", "GradedSentence", "Part", "grade", "load_sentences", "score"]

SENTENCES = Path(__file__).with_name("sentences.yaml")

Part = Literal["action", "setting", "light", "camera", "avoid", "spoken"]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Expected(_Strict):
    """What is right for one sentence; sentences.yaml says what each field means."""

    characters: list[str] | None = None
    main: list[str] | None = Field(default=None, min_length=1)
    others: bool | None = None
    expression: list[str] | None = Field(default=None, min_length=1)
    emotion: list[str] | None = Field(default=None, min_length=1)
    background: list[str] | None = Field(default=None, min_length=1)
    style: list[str] | None = Field(default=None, min_length=1)
    control: list[str] | None = Field(default=None, min_length=1)
    pose: list[str] | None = Field(default=None, min_length=1)
    speakers: list[str] | None = None
    words: dict[Part, list[str]] = {}
    never: list[str] = []


class GradedSentence(_Strict):
    """A sentence with what its plan should say."""

    sentence: str = Field(min_length=1)
    expect: Expected


def load_sentences(file: Path = SENTENCES) -> list[GradedSentence]:
    """Read the graded sentences. Raises pydantic's ValidationError where the file is wrong."""
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    return TypeAdapter(list[GradedSentence]).validate_python(data)


def grade(plan: Plan | None, expected: Expected) -> dict[str, bool]:
    """Return for each slot that is judged whether the plan has it right; None has nothing right."""
    judged = _of_names(plan or Plan(), expected) | _of_words(plan or Plan(), expected)
    return judged if plan is not None else dict.fromkeys(judged, False)


def score(grades: Iterable[Mapping[str, bool]]) -> dict[str, tuple[int, int]]:
    """Return right and judged of each slot, in the order in which slots first appear."""
    sums: dict[str, tuple[int, int]] = {}
    for one in grades:
        for slot, right in one.items():
            so_far = sums.get(slot, (0, 0))
            sums[slot] = (so_far[0] + right, so_far[1] + 1)
    return sums


def _of_names(plan: Plan, expected: Expected) -> dict[str, bool]:
    judged: dict[str, bool] = {}
    if expected.characters is not None:
        judged["characters"] = set(plan.characters) == set(expected.characters)
    if expected.others is not None:
        judged["others"] = bool(plan.others) == expected.others
    said = {
        "main": plan.character,
        "expression": plan.expression,
        "emotion": plan.emotion,
        "background": plan.background,
        "style": plan.style,
        "control": plan.control,
        "pose": plan.pose,
    }
    for slot, value in said.items():
        right = getattr(expected, slot)
        if right is not None:
            judged[slot] = value in right
    if expected.speakers is not None:
        speakers = [line.character for line in plan.lines]
        changes = zip(speakers, [NONE, *speakers], strict=False)
        judged["speakers"] = [one for one, before in changes if one != before] == expected.speakers
    return judged


def _of_words(plan: Plan, expected: Expected) -> dict[str, bool]:
    texts = _texts(plan)
    judged: dict[str, bool] = {
        part: _begins_a_word(words, texts[part]) for part, words in expected.words.items()
    }
    if expected.never:
        said = "\n".join([*plan.others, *(text for part in texts.values() for text in part)])
        judged["never"] = not any(word.casefold() in said.casefold() for word in expected.never)
    return judged


def _texts(plan: Plan) -> dict[Part, Sequence[str]]:
    parts = plan.parts
    return {
        "action": [plan.action, *parts.action],
        "setting": [plan.location, *parts.setting],
        "light": [plan.time, plan.light, *parts.light],
        "camera": [plan.camera, plan.composition, *parts.camera],
        "avoid": parts.avoid,
        "spoken": [line.text for line in plan.lines],
    }


def _begins_a_word(words: Sequence[str], texts: Sequence[str]) -> bool:
    pattern = "|".join(rf"\b{re.escape(word)}" for word in words)
    return re.search(pattern, "\n".join(texts), re.IGNORECASE) is not None
