"""Sampling until enough pictures show the character, by graph expansion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import comfy.samplers
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder, is_link

from ..animation_studio.errors import FaceError
from .face_inputs import (
    PASS_BEST,
    check_character,
    engine_inputs,
    fingerprint,
    given,
    judge_inputs,
    judge_request,
    judged_characters,
    link_inputs,
    verdict_outputs,
    when_none_input,
)
from .lists import plain_values, single_values
from .report import report_ui
from .types import CATEGORY, LookType, ReferencesType

# Imported where it is used: its checked models would cost ComfyUI's start ten milliseconds.
if TYPE_CHECKING:
    from ..animation_studio.bridge import until

__all__ = ["JudgeTry", "UntilConsistent"]

# Inputs that are handed from try to try as links, and those of them that a picture is made of.
_SAMPLED = ("model", "positive", "negative", "latent", "vae")
_LINKS = (*_SAMPLED, "references", "look", "clip_vision")
_SAMPLING = ("steps", "cfg", "sampler_name", "scheduler", "denoise")
_TRY = "AnimStudio_JudgeTry"
_OUTPUTS = 7


class _CoreCombo(io.Combo.Input):
    """A combo typed as core's KSampler types its own, so that the same outputs fit both."""

    def get_io_type(self) -> Any:
        return self.options


class UntilConsistent(io.ComfyNode):
    """Samples, decodes and judges with new seeds until enough pictures are the character."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node with the characters and engines that are there now."""
        engine, clip_vision = engine_inputs()
        judged = verdict_outputs()
        return io.Schema(
            node_id="AnimStudio_UntilConsistent",
            display_name="Until Consistent",
            category=CATEGORY,
            description="A KSampler that goes on with new seeds until enough pictures show the "
            "character, or the tries are spent. A seed that was judged is never sampled again; "
            "queue once more and it goes on.",
            enable_expand=True,
            is_input_list=True,
            inputs=[
                io.Model.Input("model", tooltip="As for a KSampler."),
                io.Conditioning.Input("positive", tooltip="As for a KSampler."),
                io.Conditioning.Input("negative", tooltip="As for a KSampler."),
                io.Latent.Input("latent", tooltip="As for a KSampler; each try is a whole batch."),
                io.Vae.Input("vae", tooltip="Decodes each try."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    tooltip="The first seed; each further one is one more. Seeds that were judged "
                    "are skipped.",
                ),
                io.Int.Input("steps", default=30, min=1, max=10000, tooltip="As for a KSampler."),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="As for a KSampler.",
                ),
                _CoreCombo(
                    "sampler_name",
                    options=comfy.samplers.KSampler.SAMPLERS,
                    tooltip="As for a KSampler.",
                ),
                _CoreCombo(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    tooltip="As for a KSampler.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="As for a KSampler.",
                ),
                *judged_characters(),
                engine,
                *judge_inputs(),
                io.Int.Input(
                    "wanted", default=1, min=1, max=64, tooltip="How many pictures have to pass."
                ),
                io.Int.Input(
                    "tries",
                    default=8,
                    min=1,
                    max=256,
                    tooltip="How many seeds one run samples at most.",
                ),
                when_none_input(),
                *link_inputs(),
                clip_vision,
            ],
            outputs=[
                io.Image.Output("kept", display_name="kept", tooltip="The pictures that passed."),
                judged["best"],
                judged["scores"],
                io.Int.Output(
                    "seeds",
                    display_name="seeds",
                    is_output_list=True,
                    tooltip="Every seed judged, in order.",
                ),
                io.Int.Output(
                    "tries_made",
                    display_name="tries made",
                    tooltip="How many seeds this run sampled.",
                ),
                judged["report"],
                judged["contact_sheet"],
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, character: str | None) -> bool | str:
        """Check that the first character is there; the others speak up in the run."""
        return check_character(character)

    @classmethod
    def fingerprint_inputs(cls, **lists: Any) -> str:
        """Change when references, presets or model packs do, and while too few are found."""
        from ..animation_studio.bridge import until

        tried = until.unsatisfied(until.widgets_key(plain_values(lists)))
        return f"{fingerprint(lists)} {tried}"

    @classmethod
    def execute(cls, **lists: list[Any]) -> io.NodeOutput:
        """Make the plan; if judged pictures are not enough, sample the first try."""
        from ..animation_studio.bridge import until

        values = single_values(lists, "Until Consistent", FaceError)
        prompt, own = cls.hidden.dynprompt, cls.hidden.unique_id
        inputs = prompt.get_node(own)["inputs"]
        sampling = {name: values[name] for name in _SAMPLING}
        recipe, lasting = until.recipe_of_run(
            {name: inputs[name] for name in _SAMPLED} | sampling, prompt
        )
        plan = until.Plan(
            request=judge_request(values),
            recipe=recipe,
            lasting=lasting,
            seed=values["seed"],
            wanted=values["wanted"],
            limit=values["tries"],
            pass_best=values["when_none"] == PASS_BEST,
            sampling=sampling,
            key=until.widgets_key({name: inputs[name] for name in values if name in inputs}),
            state=fingerprint(values),
        )
        return _next(until.advance(plan, given(values)), inputs, first=True)


class JudgeTry(io.ComfyNode):
    """One try of Until Consistent: judges what was sampled, and asks for the next if need be."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node, which Until Consistent places by itself."""
        _, clip_vision = engine_inputs()
        return io.Schema(
            node_id=_TRY,
            display_name="Judge Try (inside Until Consistent)",
            category=f"{CATEGORY}/internal",
            description="Until Consistent places this node by itself; it is of no use elsewhere.",
            enable_expand=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="What this try sampled."),
                io.String.Input("plan", force_input=True, tooltip="Where the run stands."),
                io.Model.Input("model", tooltip="For the next try."),
                io.Conditioning.Input("positive", tooltip="For the next try."),
                io.Conditioning.Input("negative", tooltip="For the next try."),
                io.Latent.Input("latent", tooltip="For the next try."),
                io.Vae.Input("vae", tooltip="For the next try."),
                ReferencesType.Input("references", optional=True, tooltip="For the next try."),
                LookType.Input("look", optional=True, tooltip="For the next try."),
                clip_vision,
            ],
            # Values, not lists, even of scores: ComfyUI joins lists of an expansion wrongly.
            outputs=[
                io.Image.Output("kept", display_name="kept"),
                io.Image.Output("best", display_name="best"),
                io.Float.Output("scores", display_name="scores"),
                io.Int.Output("seeds", display_name="seeds"),
                io.Int.Output("tries_made", display_name="tries made"),
                io.String.Output("report", display_name="report"),
                io.Image.Output("contact_sheet", display_name="contact sheet"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(cls, **lists: list[Any]) -> io.NodeOutput:
        """Judge this try."""
        from ..animation_studio.bridge import until

        values = single_values(lists, "Until Consistent", FaceError)
        inputs = cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"]
        plan = until.plan_of(values["plan"])
        return _next(until.advance(plan, given(values), values["images"]), inputs)


def _next(
    step: until.NextTry | until.Outcome, inputs: Mapping[str, Any], *, first: bool = False
) -> io.NodeOutput:
    """Turn a step into outputs, or into the graph of the next try."""
    from ..animation_studio.bridge import until

    if isinstance(step, until.NextTry):
        links = {name: inputs[name] for name in _LINKS if is_link(inputs.get(name))}
        # What the first step shows would stay in the history as if it were the end.
        return _try(step, links, None if first else report_ui(step.lines))
    nothing = ExecutionBlocker(None)
    return io.NodeOutput(
        nothing if step.kept is None else step.kept,
        nothing if step.best is None else step.best,
        step.scores,
        step.seeds,
        step.tries,
        step.report,
        step.sheet,
        ui=report_ui(step.lines, step.warnings),
    )


def _try(step: until.NextTry, links: Mapping[str, Any], shown: Any) -> io.NodeOutput:
    from ..animation_studio.bridge import until

    graph = GraphBuilder()
    sampled = graph.node(
        "KSampler",
        seed=step.plan.waiting,
        **step.plan.sampling,
        **{name: links[name] for name in ("model", "positive", "negative")},
        latent_image=links["latent"],
    )
    decoded = graph.node("VAEDecode", samples=sampled.out(0), vae=links["vae"])
    judged = graph.node(_TRY, images=decoded.out(0), plan=until.text_of(step.plan), **links)
    outputs = [judged.out(index) for index in range(_OUTPUTS)]
    return io.NodeOutput(*outputs, expand=graph.finalize(), ui=shown)
