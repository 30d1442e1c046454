"""What every node that makes a plan gives out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from .report import report_ui
from .types import ComboType, PlanType

if TYPE_CHECKING:
    from ..animation_studio.bridge import plans

__all__ = ["plan_outputs", "plan_values"]

_LINKS = "links into the Character LoRA Loader's widget of that name"


def plan_outputs() -> list[Any]:
    """Return the outputs, in the order of `plan_values`."""
    return [
        PlanType.Output("plan_out", display_name="plan", tooltip="For Judge, Refine and others."),
        ComboType.Output(
            "character_out", display_name="character", tooltip=f"The main character; {_LINKS}."
        ),
        ComboType.Output("background", display_name="background", tooltip=f"Key; {_LINKS}."),
        ComboType.Output("style", display_name="style", tooltip=f"Key; {_LINKS}."),
        ComboType.Output("expression", display_name="expression", tooltip=f"Key; {_LINKS}."),
        io.String.Output(
            "scene_text",
            display_name="scene_text",
            tooltip="The scene in prompt words, for the loader's scene_text. Trigger words, base "
            "prompt and the character's negative are the loader's.",
        ),
        io.String.Output(
            "negative_text",
            display_name="negative_text",
            tooltip="What must not appear, for the loader's negative_text.",
        ),
        ComboType.Output(
            "control", display_name="control", tooltip="For a Control node; none for none."
        ),
        ComboType.Output("pose", display_name="pose", tooltip="For a Pose node; none for none."),
        io.String.Output(
            "lines",
            display_name="lines",
            tooltip="What is spoken, a line each: character [emotion]: text.",
        ),
        io.String.Output(
            "plan_text",
            display_name="plan_text",
            tooltip="The plan as YAML, to read, keep and edit: Plan From Text takes it.",
        ),
    ]


def plan_values(graph: plans.GraphPlan, *more: object) -> io.NodeOutput:
    """Return the values of `plan_outputs`, then `more`."""
    plan = graph.made.plan
    return io.NodeOutput(
        graph.made,
        plan.character,
        plan.background,
        plan.style,
        plan.expression,
        graph.scene,
        graph.negative,
        plan.control,
        plan.pose,
        graph.script,
        graph.text,
        *more,
        ui=report_ui(graph.lines, graph.warnings),
    )
