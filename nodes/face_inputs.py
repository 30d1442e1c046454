"""Widgets that every node about faces shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..animation_studio.bridge import face_engines, studio
from ..animation_studio.registry import NONE
from .choices import problem_of
from .lists import plain_values
from .types import LookType, ReferencesType

# What works on faces is imported where it is used, so that it costs nothing at ComfyUI's start.
if TYPE_CHECKING:
    from ..animation_studio.bridge import consistency

__all__ = [
    "BLOCK",
    "CHARACTERS",
    "PASS_BEST",
    "best_k_input",
    "character_inputs",
    "check_character",
    "engine_inputs",
    "fingerprint",
    "given",
    "judge_inputs",
    "judge_request",
    "judged_characters",
    "link_inputs",
    "score_input",
    "verdict_outputs",
    "when_none_input",
]

# The widgets that name characters, in their order.
CHARACTERS = ("character", "character_2", "character_3")
# What `when_none` may say.
BLOCK, PASS_BEST = "block", "pass the best"


def character_inputs(tooltip: str, names: tuple[str, ...] = CHARACTERS) -> list[io.Input]:
    """Return a combo of the registry's characters for each of `names`."""
    options = [NONE, *studio.registry().choices("character")]
    return [
        io.Combo.Input(
            name,
            options=options,
            default=NONE,
            tooltip=tooltip if index == 0 else "One more character, with a face of its own.",
        )
        for index, name in enumerate(names)
    ]


def engine_inputs() -> list[io.Input]:
    """Return the combo of engines, and the CLIP vision model that one of them needs."""
    return [
        io.Combo.Input(
            "engine",
            options=face_engines.engine_names(),
            default=face_engines.AUTO,
            tooltip="What recognises faces. auto: an insightface model pack (buffalo_l, "
            "antelopev2) in models/insightface where there is one, else dlib, which comes with the "
            "pack. clip_vision needs its input. References of one engine are no use to another.",
        ),
        io.ClipVision.Input(
            "clip_vision",
            optional=True,
            tooltip="For the engine clip_vision: compares face crops, for stylised faces that "
            "recognisers trained on photos confuse.",
        ),
    ]


def score_input() -> io.Input:
    """Return the combo of rules that make one score of several references."""
    return io.Combo.Input(
        "score",
        options=["max", "mean of best k", "centroid"],
        default="max",
        tooltip="One score from several references: the nearest one, the mean of the best_k "
        "nearest, or the mean face of all.",
    )


def best_k_input() -> io.Input:
    """Return the number of references that `mean of best k` takes."""
    return io.Int.Input(
        "best_k", default=3, min=1, max=100, tooltip="For `mean of best k`: how many references."
    )


def judge_inputs() -> list[io.Input]:
    """Return the widgets that say how a picture is judged."""
    return [
        io.Float.Input(
            "threshold",
            default=face_engines.AUTO_THRESHOLD,
            min=face_engines.AUTO_THRESHOLD,
            max=1.0,
            step=0.01,
            tooltip="The score from which a face is the character. -1 takes the character's own "
            "(consistency_threshold for insightface, consistency_thresholds for other engines) or "
            "else the engine's.",
        ),
        score_input(),
        best_k_input(),
        io.Combo.Input(
            "which_face",
            options=["best match", "largest", "all"],
            default="best match",
            tooltip="best match: any face of the picture may be the character. largest: only the "
            "largest faces count, one for each character. all: there must be nobody else.",
        ),
    ]


def judged_characters() -> list[io.Input]:
    """Return the combos of the characters that must be in a picture."""
    return character_inputs(
        "Who must be in the picture. none: the characters of the linked references, or the look's."
    )


def verdict_outputs() -> dict[str, io.Output]:
    """Return the outputs that every judging node has, by name."""
    outputs = (
        io.Image.Output(
            "best", display_name="best", tooltip="The picture with the best score, kept or not."
        ),
        io.Float.Output(
            "scores",
            display_name="scores",
            is_output_list=True,
            tooltip="One score a picture, in order; -1 where there is no face.",
        ),
        io.String.Output(
            "report", display_name="report", tooltip="Everything about this run, as JSON."
        ),
        io.Image.Output(
            "contact_sheet",
            display_name="contact sheet",
            tooltip="All pictures and verdicts in one.",
        ),
    )
    return {output.id: output for output in outputs}


def link_inputs() -> list[io.Input]:
    """Return the inputs by which other nodes say who is looked for."""
    return [
        ReferencesType.Input(
            "references",
            optional=True,
            tooltip="From Face References: these in place of what is saved for the character.",
        ),
        LookType.Input(
            "look",
            optional=True,
            tooltip="From the Character LoRA Loader: its character where none is chosen here.",
        ),
    ]


def judge_request(values: Mapping[str, Any]) -> consistency.JudgeRequest:
    """Return the request that a node's widgets make."""
    from ..animation_studio.bridge import consistency

    return consistency.JudgeRequest(
        characters=[values[name] for name in CHARACTERS if values.get(name, NONE) != NONE],
        **{
            name: values[name]
            for name in (
                "engine",
                "threshold",
                "score",
                "best_k",
                "which_face",
                "no_face",
                "keep_at_most",
            )
            if name in values
        },
    )


def given(values: Mapping[str, Any]) -> consistency.Given:
    """Return what a node's links gave."""
    from ..animation_studio.bridge import consistency

    return consistency.Given(
        look=values.get("look"),
        references=values.get("references") or (),
        clip_vision=values.get("clip_vision"),
    )


def when_none_input() -> io.Input:
    """Return the combo that says what follows when no picture passes."""
    return io.Combo.Input(
        "when_none",
        options=[BLOCK, PASS_BEST],
        default=BLOCK,
        tooltip="When nothing passes: what comes after `kept` is not run, or the best picture is "
        "passed on.",
    )


def fingerprint(values: Mapping[str, Any], names: tuple[str, ...] = CHARACTERS) -> str:
    """Return what changes when references, presets or model packs of the chosen characters do.

    A node with is_input_list gets lists, others plain values; what comes by link is None.
    """
    from ..animation_studio.bridge import face_references

    plain = plain_values(values)
    chosen = [plain.get(name) for name in names]
    characters = [one for one in chosen if isinstance(one, str) and one != NONE]
    return face_references.references_fingerprint(characters, str(plain.get("engine")))


def check_character(character: object) -> bool | str:
    """Return True for a character that can be used, else what is wrong with it.

    A node with is_input_list gives its widget as a list of one. What comes by link is None, and
    what is no text the run refuses.
    """
    name = character[0] if isinstance(character, list) and character else character
    if not isinstance(name, str) or name == NONE:
        return True
    return problem_of(lambda: studio.registry().character(name))
