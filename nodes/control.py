"""The control node: a reference picture or a map steers the picture through a ControlNet."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..animation_studio.bridge import controls, studio
from ..animation_studio.registry import AUTO_WEIGHT, NONE
from .choices import problem_of
from .report import report_ui
from .types import CATEGORY

__all__ = ["Control"]


class Control(io.ComfyNode):
    """One control of controlnet_config.yaml on both conditionings. Chain several to combine."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node with the controls that the configuration has now."""
        names = list(studio.registry().controls)
        return io.Schema(
            node_id="AnimStudio_Control",
            display_name="Control",
            category=CATEGORY,
            description="Steers the picture by a pose, depth or edges: makes the map, finds the "
            "ControlNet of the configuration and applies it. Chain several to combine them.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="From the loader or another Control."),
                io.Conditioning.Input("negative", tooltip="From the loader or another Control."),
                io.Image.Input("image", tooltip="A reference picture, or the map itself."),
                io.Combo.Input(
                    "control",
                    options=[*names, NONE],
                    default=names[0] if names else NONE,
                    tooltip="The type of control, from controlnet_config.yaml. none changes "
                    "nothing: a Prompt Writer linked here may want none.",
                ),
                io.Boolean.Input(
                    "image_is_map",
                    default=False,
                    tooltip="On: the picture is already a map (from the Pose node, say) and is "
                    "used as it is. Off: the map is made from it.",
                ),
                io.Float.Input(
                    "strength",
                    default=AUTO_WEIGHT,
                    min=AUTO_WEIGHT,
                    max=10.0,
                    step=0.05,
                    tooltip=f"How strongly the map steers. {AUTO_WEIGHT:g} takes the strength of "
                    "the configuration; 0 leaves the control out.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="From which part of the sampling on it steers: 0 is the beginning.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Until which part of the sampling it steers: 1 is the end.",
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive_out", display_name="positive"),
                io.Conditioning.Output("negative_out", display_name="negative"),
                io.Image.Output("map", display_name="map", tooltip="The map that steers."),
            ],
        )

    @classmethod
    def validate_inputs(cls, control: str | None) -> bool | str:
        """Check the control against configuration and ControlNet files."""
        return control is None or problem_of(lambda: controls.check_control(control))

    @classmethod
    def fingerprint_inputs(cls, control: str | None, **_: Any) -> str:
        """Change when the control's configuration or one of its files does."""
        return controls.control_fingerprint(control)

    @classmethod
    def execute(
        cls,
        positive: Any,
        negative: Any,
        image: Any,
        control: str,
        image_is_map: bool,
        strength: float,
        start_percent: float,
        end_percent: float,
    ) -> io.NodeOutput:
        """Make the map and apply the control."""
        done = controls.run_control(
            positive,
            negative,
            image,
            controls.ControlRequest(control, image_is_map, strength, start_percent, end_percent),
        )
        return io.NodeOutput(
            done.positive, done.negative, done.map, ui=report_ui(done.lines, done.warnings)
        )
