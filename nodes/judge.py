"""The picture judged against its plan, and the plan changed after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..animation_studio.errors import PlanError
from .face_inputs import BLOCK, PASS_BEST, when_none_input
from .lists import plain_values, single_values
from .plan_inputs import (
    dialect_input,
    judge_inputs,
    judge_service_input,
    seed_input,
    service_input,
    temperature_input,
)
from .plan_outputs import plan_outputs, plan_values
from .report import report_ui
from .types import CATEGORY, JudgementType, PlanType

__all__ = ["Judge", "Refine"]


class Judge(io.ComfyNode):
    """Parts pictures into accepted and rejected: a vision model compares them with the plan."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node with the services that are there now."""
        return io.Schema(
            node_id="AnimStudio_Judge",
            display_name="Judge",
            category=CATEGORY,
            description="Asks a local vision model one yes/no question for each part of the plan "
            "(who, what, where, light, camera) and for common defects, and accepts a picture by "
            "its answers. When nothing is accepted, what comes after `accepted` is not run.",
            is_input_list=True,
            inputs=[
                io.Image.Input(
                    "images",
                    # So that a missing service is told before the pictures are sampled.
                    lazy=True,
                    tooltip="The pictures: a batch, or a list of any sizes.",
                ),
                PlanType.Input("plan", tooltip="From Prompt Writer, Plan From Text or Refine."),
                judge_service_input(),
                *judge_inputs(),
                when_none_input(),
            ],
            outputs=[
                io.Image.Output(
                    "accepted",
                    display_name="accepted",
                    is_output_list=True,
                    tooltip="What shows the plan, in the order it came.",
                ),
                io.Image.Output(
                    "rejected",
                    display_name="rejected",
                    is_output_list=True,
                    tooltip="What does not, in the order it came.",
                ),
                io.Image.Output(
                    "best", display_name="best", tooltip="The best picture, accepted or not."
                ),
                JudgementType.Output(
                    "judgement", display_name="judgement", tooltip="All answers, for Refine."
                ),
                io.Float.Output(
                    "scores",
                    display_name="scores",
                    is_output_list=True,
                    tooltip="The mean of each picture, in order; -1 where it cannot be read.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="Plan, questions, answers and reasons as JSON, for Save Take.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **lists: Any) -> str:
        """Change when the cast does, or another model would answer."""
        from ..animation_studio.bridge import llm, plans

        service = plain_values(lists).get("service") or "auto"
        return f"{plans.cast_hash()} {llm.service_fingerprint(service, vision=True)}"

    @classmethod
    def check_lazy_status(cls, images: Any = None, **lists: list[Any]) -> list[str]:
        """Ask for the pictures once it is known who judges them."""
        from ..animation_studio.bridge import judging, llm

        values = single_values(lists, "Judge", PlanError)
        if values["when_none"] not in (BLOCK, PASS_BEST):
            raise PlanError(f"when_none: choose {BLOCK!r} or {PASS_BEST!r}.")
        llm.check_service(values["service"], vision=True)
        _ = judging.JudgeWish("auto", values["threshold"], values["slot_threshold"]).rules
        return ["images"]

    @classmethod
    def execute(cls, images: list[Any], **lists: list[Any]) -> io.NodeOutput:
        """Judge the pictures."""
        from ..animation_studio.bridge import judging, plans

        values = single_values(lists, "Judge", PlanError)
        done = judging.judge(
            images,
            plans.check_plan(values["plan"]),
            judging.JudgeWish(
                service=values["service"],
                mean=values["threshold"],
                slot=values["slot_threshold"],
                defects=values["defects"],
            ),
            str(cls.hidden.unique_id),
            pass_best=values["when_none"] == PASS_BEST,
        )
        # Silent blockers: the warning on this node says it better than an error would.
        nothing = ExecutionBlocker(None)
        return io.NodeOutput(
            done.accepted or [nothing],
            done.rejected or [nothing],
            nothing if done.best is None else done.best,
            done.judgements,
            done.scores,
            done.report,
            ui=report_ui(done.lines, done.warnings),
        )


class Refine(io.ComfyNode):
    """Changes a plan by what its picture lacks, or says that it is accepted."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node with the services that are there now."""
        return io.Schema(
            node_id="AnimStudio_Refine",
            display_name="Refine",
            category=CATEGORY,
            description="A local language model changes the plan by what the Judge found. Only "
            "what failed may change: never the characters, the style or the lines.",
            inputs=[
                PlanType.Input("plan", tooltip="The plan that the picture was made of."),
                JudgementType.Input("judgement", tooltip="From Judge; of several the best."),
                service_input("The language model, from services.yaml. auto: the first one."),
                seed_input("The seed of the answer."),
                temperature_input(0.7),
                dialect_input(),
                io.String.Input(
                    "report",
                    optional=True,
                    force_input=True,
                    tooltip="From Consistency Filter: a face that is not the character's counts "
                    "too.",
                ),
            ],
            outputs=[
                *plan_outputs(),
                io.Boolean.Output(
                    "accepted",
                    display_name="accepted",
                    tooltip="True: the picture was accepted and the plan is as it came.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, service: str | None = None, **_: Any) -> str:
        """Change when the cast does, or another model would answer."""
        from ..animation_studio.bridge import llm, plans

        return f"{plans.cast_hash()} {llm.service_fingerprint(service or 'auto')}"

    @classmethod
    def execute(
        cls,
        plan: Any,
        judgement: Sequence[Any],
        service: str,
        seed: int,
        temperature: float,
        dialect: Any,
        report: str = "",
    ) -> io.NodeOutput:
        """Change the plan where its picture was not accepted."""
        from ..animation_studio.bridge import refining

        done = refining.refine(
            plan,
            judgement,
            refining.RefineWish(service, seed, temperature, dialect, report),
            str(cls.hidden.unique_id),
        )
        return plan_values(done.graph, done.accepted)
