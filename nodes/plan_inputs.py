"""Widgets of the nodes that ask a language model."""

from __future__ import annotations

from comfy_api.latest import io

from ..animation_studio.bridge import studio
from ..animation_studio.registry import AUTO_SERVICE, NONE

__all__ = [
    "character_input",
    "dialect_input",
    "judge_inputs",
    "judge_service_input",
    "seed_input",
    "sentence_input",
    "service_input",
    "temperature_input",
]


def sentence_input(tooltip: str) -> io.String.Input:
    """Return the sentence that a plan is made of."""
    return io.String.Input(
        "sentence",
        default="Luca running on the beach, excited",
        multiline=True,
        placeholder="what the picture shows, in any language",
        tooltip=tooltip,
    )


def character_input() -> io.Combo.Input:
    """Return the combo of who is the main character by hand."""
    return io.Combo.Input(
        "character",
        options=[NONE, *studio.registry().choices("character")],
        default=NONE,
        tooltip="The main character, whatever the sentence says. none: whom the sentence names.",
    )


def service_input(tooltip: str, name: str = "service") -> io.Combo.Input:
    """Return the combo of the language models of services.yaml."""
    names = studio.registry().language_models()
    return io.Combo.Input(
        name, options=[AUTO_SERVICE, *names], default=AUTO_SERVICE, tooltip=tooltip
    )


def seed_input(tooltip: str) -> io.Int.Input:
    """Return the seed of a language model's answer."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
        tooltip=tooltip,
    )


def temperature_input(default: float) -> io.Float.Input:
    """Return the temperature of a language model's answer."""
    return io.Float.Input(
        "temperature",
        default=default,
        min=0.0,
        max=2.0,
        step=0.05,
        tooltip="How freely the model writes: 0 always takes the likeliest word.",
    )


def dialect_input() -> io.Combo.Input:
    """Return the combo of dialects."""
    return io.Combo.Input(
        "dialect",
        options=["prose", "tags"],
        default="prose",
        tooltip="How the scene is worded. prose: short phrases, for SDXL and its relatives. tags: "
        "single tags, for Illustrious and Pony (put score_9 and the like into a style's trigger "
        "words).",
    )


def judge_inputs() -> list[io.Input]:
    """Return the widgets that say how a picture is judged."""
    return [
        io.Float.Input(
            "threshold",
            default=0.7,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="What the mean of all answers must reach: 0 is no to everything, 1 is yes.",
        ),
        io.Float.Input(
            "slot_threshold",
            default=0.3,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="What every single answer must reach: one clear no is enough to reject.",
        ),
        io.Boolean.Input(
            "defects",
            default=True,
            tooltip="Also ask about common defects: hands, limbs, faces, blur, text, doubles.",
        ),
    ]


def judge_service_input(name: str = "service") -> io.Combo.Input:
    """Return the combo of the model that judges."""
    return service_input(
        "The model that looks at the pictures, from services.yaml. auto: the first with "
        "`vision: true`, or else that does not deny it. It is woken, or started, where it sleeps.",
        name,
    )
