"""The pose library: named poses drawn as openpose maps, and keypoints kept as new poses."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..animation_studio.bridge import poses, studio
from ..animation_studio.registry import NONE
from .choices import problem_of
from .report import report_ui
from .types import CATEGORY, Keypoints

__all__ = ["Pose", "SavePose"]


class Pose(io.ComfyNode):
    """A pose of the library, or keypoints from a detector, as a map for the openpose control."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node with the poses that are there now."""
        names = studio.pose_library().names()
        return io.Schema(
            node_id="AnimStudio_Pose",
            display_name="Pose",
            category=CATEGORY,
            description="Draws a named pose as an openpose map, without any weights. Connect the "
            "map to a Control with image_is_map on.",
            inputs=[
                io.Combo.Input(
                    "pose",
                    options=[*names, NONE],
                    default="standing" if "standing" in names else NONE,
                    tooltip="A pose of configs/poses or of your own poses folder; none draws "
                    "nobody.",
                ),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=64,
                    max=8192,
                    step=8,
                    tooltip="Width of the map in pixels; link it to the latent's.",
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=64,
                    max=8192,
                    step=8,
                    tooltip="Height of the map in pixels; link it to the latent's.",
                ),
                io.Boolean.Input(
                    "mirror", default=False, tooltip="Turn left into right, hands and all."
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.1,
                    max=4.0,
                    step=0.05,
                    tooltip="Size of the figure about the middle; 1 is as designed.",
                ),
                io.Float.Input(
                    "x",
                    default=0.0,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Shift to the right as a part of the width; negative: to the left.",
                ),
                io.Float.Input(
                    "y",
                    default=0.0,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Shift downwards as a part of the height; negative: upwards.",
                ),
                Keypoints.Input(
                    "keypoints",
                    optional=True,
                    tooltip="From a DWPose or OpenPose preprocessor node; takes the pose's place.",
                ),
            ],
            outputs=[
                io.Image.Output("map", display_name="map", tooltip="The openpose map."),
                Keypoints.Output(
                    "keypoints_out",
                    display_name="keypoints",
                    tooltip="The pose as keypoints, before mirroring and placing.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, pose: str | None) -> bool | str:
        """Check that the pose is there and can be read."""
        return pose in (None, NONE) or problem_of(lambda: studio.pose_library().load(pose))

    @classmethod
    def fingerprint_inputs(cls, pose: str | None, **_: Any) -> str:
        """Change when the pose's file does."""
        library = studio.pose_library()
        if pose == NONE:
            return NONE
        names = [pose] if pose else library.names()
        return " ".join(library.content_hash(name) for name in names)

    @classmethod
    def execute(cls, pose: str, keypoints: Any = None, **placing: Any) -> io.NodeOutput:
        """Draw the pose."""
        drawn = poses.draw(pose, keypoints, **placing)
        return io.NodeOutput(drawn.map, drawn.keypoints)


class SavePose(io.ComfyNode):
    """Keypoints as a new pose in the user's library."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AnimStudio_SavePose",
            display_name="Save Pose",
            category=CATEGORY,
            description="Keeps keypoints (from DWPose, OpenPose or the Pose node) as a pose of "
            "your own; press R and the Pose node offers it.",
            inputs=[
                Keypoints.Input("keypoints", tooltip="One frame; of several the first is kept."),
                io.String.Input(
                    "name",
                    default="my_pose",
                    tooltip="Small letters, digits, _ and -.",
                ),
                io.Boolean.Input(
                    "replace",
                    default=False,
                    tooltip="Write over a pose of your own that has this name already.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, keypoints: Any, name: str, replace: bool) -> io.NodeOutput:
        """Save the pose."""
        path = poses.save(keypoints, name, replace=replace)
        return io.NodeOutput(ui=report_ui([f"saved {path.name}"]))
