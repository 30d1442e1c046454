"""Poses drawn for ComfyUI, and kept in the user's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..control import Pose as PoseModel
from ..control import draw_pose, save_pose
from ..registry import NONE
from . import studio
from .folders import user_folder
from .images import to_image

if TYPE_CHECKING:
    import torch

__all__ = ["DrawnPose", "draw", "save"]


@dataclass(frozen=True)
class DrawnPose:
    """A map, float [1, height, width, 3], and the keypoints in it as OpenPose JSON."""

    map: torch.Tensor
    keypoints: list[dict[str, object]]


def draw(
    name: str,
    keypoints: object = None,
    *,
    width: int,
    height: int,
    mirror: bool = False,
    scale: float = 1.0,
    x: float = 0.0,
    y: float = 0.0,
) -> DrawnPose:
    """Draw the pose `name`, or `keypoints` where given. Raises ControlError as the rooms do.

    The pose `none` is a black map with nobody in it: a plan may want none.
    """
    if keypoints is None and name == NONE:
        nobody = {"people": [], "canvas_width": width, "canvas_height": height}
        return DrawnPose(to_image([np.zeros((height, width, 3), np.uint8)]), [nobody])
    pose = (
        studio.pose_library().load(name)
        if keypoints is None
        else PoseModel.from_keypoints(keypoints)
    )
    drawn = draw_pose(pose, width, height, mirror=mirror, scale=scale, x=x, y=y)
    return DrawnPose(to_image([drawn]), [pose.to_openpose()])


def save(keypoints: object, name: str, *, replace: bool = False) -> Path:
    """Keep `keypoints` as a pose of the user's own. Raises ControlError for a taken name."""
    pose = PoseModel.from_keypoints(keypoints)
    return save_pose(user_folder() / "poses", name, pose, replace=replace)
