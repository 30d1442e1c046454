"""Which of the controls that a plan wants steer a round of Until Accepted."""

from __future__ import annotations

from ..errors import ConfigError, ControlError
from ..llm.plan import OPENPOSE, Plan, PlanControl
from ..registry import NONE
from . import controls, studio

__all__ = ["pose_of"]


def pose_of(plan: Plan) -> tuple[str | None, list[str], list[str]]:
    """Return the pose to draw, None for none; the controls in words; and what is left out, why.

    Only a drawn pose can steer here: depth and edges need a picture that nobody has given.
    """
    pose: str | None = None
    used: list[str] = []
    left_out: list[str] = []
    for control in plan.controls:
        why = "there is one already" if pose else _problem(control, plan)
        if why:
            left_out.append(f"the plan's control {control} is left out: {why}")
        else:
            pose = control.pose
            used.append(str(control))
    return pose, used, left_out


def _problem(control: PlanControl, plan: Plan) -> str:
    """Why a control cannot steer, "" where it can."""
    if control.type != OPENPOSE:
        return "its map is made from a picture, and there is none. Place a Control node yourself"
    if control.pose == NONE:
        return "it names no pose"
    try:
        controls.check_control(OPENPOSE)
        people = len(studio.pose_library().load(control.pose).people)
    except (ConfigError, ControlError) as error:
        return str(error)
    wanted = len(plan.characters) + len(plan.others)
    if wanted and people > wanted:
        return f"its pose shows {people} people, and the plan has {wanted}"
    return ""
