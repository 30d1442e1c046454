"""From a sentence to a plan: written by a language model, or by hand."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..animation_studio.registry import AUTO_SERVICE
from .face_inputs import check_character
from .plan_inputs import (
    character_input,
    dialect_input,
    seed_input,
    sentence_input,
    service_input,
    temperature_input,
)
from .plan_outputs import plan_outputs, plan_values
from .types import CATEGORY, PlanType

__all__ = ["PlanFromText", "PromptWriter"]

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
                sentence_input("What the picture shows, at most 500 words, in any language."),
                service_input(
                    "The language model, from services.yaml. auto: the first one. It is woken, or "
                    "started, where it sleeps, and ComfyUI's models make room."
                ),
                seed_input("The seed of the answer: another one, another plan."),
                temperature_input(0.3),
                dialect_input(),
                character_input(),
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
        return check_character(character)

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
