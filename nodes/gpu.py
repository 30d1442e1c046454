"""The GPU handed over inside a graph: VRAM Guard makes room, Resume LLM gives it back."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..animation_studio.bridge import studio
from ..animation_studio.registry import ALL, AUTO_SERVICE, NO_SERVICE
from .choices import problem_of
from .report import report_ui
from .types import CATEGORY

__all__ = ["ResumeLLM", "VRAMGuard"]

_PURPOSES = ["image", "llm", "voice", "everything off"]
_LEVELS = ["configured", "sleep 1", "sleep 2", "stop"]
_FAILURES = ["error", "warn", "go on"]
_RESUMES = ["end of prompt", "next guard", "never"]
_MAX_GB = 1024.0
_MAX_SECONDS = 3600


def _service_input(tooltip: str) -> io.Combo.Input:
    options = [AUTO_SERVICE, *studio.registry().services]
    return io.Combo.Input("service", options=options, default=AUTO_SERVICE, tooltip=tooltip)


def _check_service(name: str | None, *own: str) -> bool | str:
    if name is None or name in own:
        return True
    if not isinstance(name, str):
        return "service: give the name of a service of services.yaml."
    return problem_of(lambda: studio.registry().service(name))


def _timeout_input(default: int) -> io.Int.Input:
    return io.Int.Input(
        "timeout",
        default=default,
        min=1,
        max=_MAX_SECONDS,
        tooltip="Seconds in which this must have succeeded, waiting for others included.",
    )


def _failure_input() -> io.Combo.Input:
    return io.Combo.Input(
        "on_failure",
        options=_FAILURES,
        default="error",
        tooltip="When it cannot be had: end the run with the reason, go on with a warning, or go "
        "on without one.",
    )


def _value_input() -> io.AnyType.Input:
    return io.AnyType.Input(
        "value",
        tooltip="Anything; it comes out unchanged. The node acts when it passes, so put it into "
        "the line that must wait: before the sampler, for example the latent.",
    )


def _report_input() -> io.String.Input:
    return io.String.Input(
        "report",
        optional=True,
        force_input=True,
        tooltip="An earlier VRAM Guard's report: this node's is added to it.",
    )


def _outputs() -> list[Any]:
    return [
        io.AnyType.Output("passed", display_name="value", tooltip="What came in."),
        io.String.Output("text", display_name="text", tooltip="What was done, for people."),
        io.String.Output(
            "reports",
            display_name="report",
            tooltip="What was done, as JSON: memory before and after, every step with its seconds, "
            "who holds memory. For Save Take's gpu_report.",
        ),
    ]


class VRAMGuard(io.ComfyNode):
    """Makes room on the GPU when a value passes, and has it given back afterwards."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        services = list(studio.registry().services)
        return io.Schema(
            node_id="AnimStudio_VRAMGuard",
            display_name="VRAM Guard",
            category=CATEGORY,
            description="Makes room on the GPU before what follows: unloads ComfyUI's models, puts "
            "language models and voices to sleep or stops them, as little as is enough, and waits "
            "until the memory is really there. What it paused comes back by itself, also when the "
            "run fails.",
            inputs=[
                _value_input(),
                io.Combo.Input(
                    "purpose",
                    options=_PURPOSES,
                    default="image",
                    tooltip="What the room is for. llm and voice also wake or start the service; "
                    "everything off unloads and pauses all.",
                ),
                io.Float.Input(
                    "needed_gb",
                    default=0.0,
                    min=0.0,
                    max=_MAX_GB,
                    step=0.5,
                    tooltip="GiB that must be free. 0: the figure of services.yaml.",
                ),
                _service_input(
                    "The service that is used next (purposes llm and voice). auto: the "
                    "first of that kind in services.yaml."
                ),
                io.Combo.Input(
                    "pause",
                    options=[ALL, NO_SERVICE, *services],
                    default=ALL,
                    tooltip="Which services may be paused for it: whichever it takes, none, or "
                    "only this one.",
                ),
                io.Combo.Input(
                    "level",
                    options=_LEVELS,
                    default="configured",
                    tooltip="How they are paused: sleep 1 keeps the weights in RAM and wakes in "
                    "seconds, sleep 2 drops them, stop ends the server. configured: sleep_level of "
                    "services.yaml. Stop is taken by itself when sleep frees too little.",
                ),
                _timeout_input(120),
                _failure_input(),
                io.Combo.Input(
                    "resume",
                    options=_RESUMES,
                    default="end of prompt",
                    tooltip="When the paused services come back: when this run has ended (however "
                    "it ends), not before the next guard or Resume LLM, or never by themselves.",
                ),
                _report_input(),
            ],
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, service: str | None = None) -> bool | str:
        """Check the service that is used."""
        return _check_service(service, AUTO_SERVICE)

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        """Run always: whether there is room is not a matter of the inputs."""
        return float("nan")

    @classmethod
    def execute(
        cls,
        value: Any,
        purpose: str,
        needed_gb: float,
        service: str,
        pause: str,
        level: str,
        timeout: int,
        on_failure: str,
        resume: str,
        report: str = "",
    ) -> io.NodeOutput:
        """Make room and pass the value on."""
        # Here, so that the arbiter and its models cost nothing at ComfyUI's start.
        from ..animation_studio.bridge import guards

        done = guards.guard(
            guards.Wish(
                purpose=purpose,
                needed_gb=needed_gb,
                service=service,
                pause=pause,
                level=level,
                timeout=timeout,
                resume=resume,
            ),
            on_failure,
            str(cls.hidden.unique_id),
            report,
        )
        return io.NodeOutput(value, done.text, done.report, ui=report_ui(done.lines, done.warnings))


class ResumeLLM(io.ComfyNode):
    """Wakes what was paused when a value passes, and proves that it answers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AnimStudio_ResumeLLM",
            display_name="Resume LLM",
            category=CATEGORY,
            description="Gives the GPU back when a value passes: unloads ComfyUI's models where "
            "the memory demands it, wakes the paused services, and lets each answer one token.",
            inputs=[
                _value_input(),
                _service_input(
                    "The service to wake. auto: all that were paused; where none was, the first "
                    "language model of services.yaml that runs."
                ),
                _timeout_input(300),
                _failure_input(),
                _report_input(),
            ],
            outputs=[
                *_outputs()[:2],
                io.String.Output(
                    "reports",
                    display_name="report",
                    tooltip="The report that came in and this node's, as JSON. For Save Take's "
                    "gpu_report.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, service: str | None = None) -> bool | str:
        """Check the service."""
        return _check_service(service, AUTO_SERVICE)

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        """Run always: who sleeps is not a matter of the inputs."""
        return float("nan")

    @classmethod
    def execute(
        cls, value: Any, service: str, timeout: int, on_failure: str, report: str = ""
    ) -> io.NodeOutput:
        """Wake and pass the value on."""
        from ..animation_studio.bridge import guards

        done = guards.give_back(
            service, float(timeout), on_failure, str(cls.hidden.unique_id), report
        )
        return io.NodeOutput(value, done.text, done.report, ui=report_ui(done.lines, done.warnings))
