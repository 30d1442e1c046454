"""From a sentence to a plan: written by a language model, or by hand."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..animation_studio.bridge import studio
from ..animation_studio.registry import AUTO_SERVICE, NONE
from .choices import problem_of
from .plan_outputs import dialect_input, plan_outputs, plan_values
from .types import CATEGORY, PlanType

__all__ = ["PlanFromText", "PromptWriter", "seed_input", "service_input", "temperature_input"]

_EXAMPLE = """characters: luca
expression: excited
background: portorosso
style: pixar_3d
action: Luca runs along the beach
parts:
  action: running along the beach, arms wide
  light: golden hour
  camera: wide shot
"""


def service_input(tooltip: str, name: str = "service") -> io.Combo.Input:
    """Return the combo of the language models of services.yaml."""
    known = studio.registry().services
    names = [key for key, entry in known.items() if entry.role == "llm"]
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


class PromptWriter(io.ComfyNode):
    """A language model turns a sentence into a plan, whose names are all of the configuration."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node with the services and characters that are there now."""
        return io.Schema(
            node_id="AnimStudio_PromptWriter",
            display_name="Prompt Writer",
            category=CATEGORY,
            description="A local language model turns a sentence into a plan: who, what, where, "
            "which entries of your cast, lines to speak, and the words of the scene. Link its "
            "outputs into the Character LoRA Loader. The same sentence is not asked twice.",
            inputs=[
                io.String.Input(
                    "sentence",
                    default="Luca running on the beach, excited",
                    multiline=True,
                    placeholder="what the picture shows, in any language",
                    tooltip="What the picture shows, at most 500 words, in any language.",
                ),
                service_input(
                    "The language model, from services.yaml. auto: the first one. It is woken, or "
                    "started, where it sleeps, and ComfyUI's models make room."
                ),
                seed_input("The seed of the answer: another one, another plan."),
                temperature_input(0.3),
                dialect_input(),
                io.Combo.Input(
                    "character",
                    options=[NONE, *studio.registry().choices("character")],
                    default=NONE,
                    tooltip="The main character, whatever the sentence says. none: whom the "
                    "sentence names.",
                ),
                PlanType.Input(
                    "plan",
                    optional=True,
                    tooltip="An earlier plan, to be changed as `change` says.",
                ),
                io.String.Input(
                    "change",
                    default="",
                    multiline=True,
                    optional=True,
                    placeholder="with an earlier plan: what to change",
                    tooltip="What to change in the earlier plan; of no use without one.",
                ),
            ],
            outputs=plan_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, character: str | None = None) -> bool | str:
        """Check the character; the others speak up in the run."""
        if character in (None, NONE):
            return True
        return problem_of(lambda: studio.registry().character(str(character)))

    @classmethod
    def fingerprint_inputs(cls, service: str | None = None, **_: Any) -> str:
        """Change when the cast does, or another model would answer."""
        from ..animation_studio.bridge import llm, plans

        name = AUTO_SERVICE if service is None else service
        return f"{plans.cast_hash()} {llm.service_fingerprint(name)}"

    @classmethod
    def execute(
        cls,
        sentence: str,
        service: str,
        seed: int,
        temperature: float,
        dialect: Any,
        character: str,
        plan: Any = None,
        change: str = "",
    ) -> io.NodeOutput:
        """Write the plan, or take the one written before."""
        # Here, so that the llm room and its models cost nothing at ComfyUI's start.
        from ..animation_studio.bridge import plans

        request = plans.WriteRequest(
            sentence=sentence,
            service=service,
            seed=seed,
            temperature=temperature,
            dialect=dialect,
            character=character,
            earlier=None if plan is None else plans.check_plan(plan),
            change=change,
        )
        return plan_values(plans.write(request, str(cls.hidden.unique_id)))


class PlanFromText(io.ComfyNode):
    """A plan written by hand, so that every graph works without a language model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AnimStudio_PlanFromText",
            display_name="Plan From Text",
            category=CATEGORY,
            description="A plan as YAML or JSON, checked against your configuration: the Prompt "
            "Writer's place in a graph without a language model, and the way back of an edited "
            "plan_text.",
            inputs=[
                io.String.Input(
                    "text",
                    default=_EXAMPLE,
                    multiline=True,
                    tooltip="The plan; every key may be left out. This node's help lists them.",
                ),
                dialect_input(),
            ],
            outputs=plan_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        """Change when the cast does."""
        from ..animation_studio.bridge import plans

        return plans.cast_hash()

    @classmethod
    def execute(cls, text: str, dialect: Any) -> io.NodeOutput:
        """Check the plan."""
        from ..animation_studio.bridge import plans

        return plan_values(plans.plan_by_hand(text, dialect))
