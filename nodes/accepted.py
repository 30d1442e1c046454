"""From a sentence to an accepted picture: rounds of writing, making and judging, by expansion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder, is_link

from ..animation_studio.bridge import studio
from ..animation_studio.errors import PlanError
from ..animation_studio.registry import AUTO_WEIGHT, ENTRY_KINDS, NONE, OWN
from .face_inputs import check_character
from .lists import plain_values, single_values
from .plan_inputs import (
    character_input,
    dialect_input,
    judge_inputs,
    judge_service_input,
    seed_input,
    sentence_input,
    service_input,
    temperature_input,
)
from .report import report_ui
from .types import CATEGORY, LookType, PlanType, SamplingType

# Imported where it is used: its checked models would cost ComfyUI's start.
if TYPE_CHECKING:
    from ..animation_studio.bridge import rounds

__all__ = ["JudgeRound", "UntilAccepted"]

_ROUND = "AnimStudio_JudgeRound"
_LINKS = ("model", "clip", "vae")
_OUTPUTS = 9
_FACES = ["where it has references", "never"]
# Widgets that a RoundsWish has by the same name.
_SAME = (
    *("writer", "judge", "seed", "temperature", "dialect", "quality", "rounds", "pictures"),
    "defects",
)
_GUARD = {
    "purpose": "image",
    "needed_gb": 0.0,
    "service": "auto",
    "pause": "as needed",
    "level": "configured",
    "timeout": 300,
    "on_failure": "warn",
    "resume": "end of prompt",
}


class UntilAccepted(io.ComfyNode):
    """Writes, makes, checks, judges and changes the plan until a picture is accepted."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node with the services, characters and presets that are there now."""
        return io.Schema(
            node_id="AnimStudio_UntilAccepted",
            display_name="Until Accepted",
            category=CATEGORY,
            description="From a sentence to a picture that a vision model accepts: writes the "
            "plan, makes the picture, checks the face, judges it, changes the plan by what it "
            "lacks, and tries again. The best picture is kept. Language model and sampler take "
            "turns on the GPU.",
            enable_expand=True,
            is_input_list=True,
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint's model."),
                io.Clip.Input("clip", tooltip="The checkpoint's text encoders."),
                io.Vae.Input("vae", tooltip="Decodes the pictures."),
                sentence_input("As for a Prompt Writer; not read when a plan is linked."),
                service_input(
                    "The language model that writes and changes the plan. auto: the first one.",
                    "writer",
                ),
                judge_service_input("judge"),
                seed_input("Of the plan and the first picture; each further round has one more."),
                temperature_input(0.3),
                dialect_input(),
                character_input(),
                io.Combo.Input(
                    "quality",
                    options=[OWN, *studio.registry().quality],
                    default=OWN,
                    tooltip="As for a Quality Preset.",
                ),
                io.Int.Input(
                    "rounds", default=3, min=1, max=16, tooltip="How many rounds are made at most."
                ),
                io.Int.Input(
                    "pictures",
                    default=1,
                    min=1,
                    max=16,
                    tooltip="How many pictures a round makes, of which it judges all and keeps "
                    "the best.",
                ),
                *judge_inputs(),
                io.Combo.Input(
                    "check_faces",
                    options=_FACES,
                    default=_FACES[0],
                    tooltip="Whether faces are compared with the character's references, as the "
                    "Consistency Filter does.",
                ),
                PlanType.Input(
                    "plan", optional=True, tooltip="A plan in place of the sentence's first one."
                ),
            ],
            outputs=[
                io.Image.Output("image", display_name="image", tooltip="The best picture."),
                io.Boolean.Output(
                    "accepted", display_name="accepted", tooltip="Whether it was accepted."
                ),
                PlanType.Output("plan_out", display_name="plan", tooltip="Its plan."),
                LookType.Output("look", display_name="look", tooltip="Its look, for Save Take."),
                SamplingType.Output(
                    "sampling", display_name="sampling", tooltip="Its values, for Save Take."
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="All rounds with plans, answers and changes as JSON, for Save Take's "
                    "judgement.",
                ),
                io.String.Output(
                    "plan_text", display_name="plan_text", tooltip="Its plan as YAML."
                ),
                io.Int.Output("rounds_made", display_name="rounds made", tooltip="How many."),
                io.String.Output(
                    "gpu_report",
                    display_name="gpu_report",
                    tooltip="How room was made in each round, for Save Take's gpu_report.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, character: Any = None) -> bool | str:
        """Check the character; the others speak up in the run."""
        return check_character(character)

    @classmethod
    def fingerprint_inputs(cls, **lists: Any) -> str:
        """Change when the cast, its files, poses or references, or the services do."""
        from ..animation_studio.bridge import face_references, llm, plans

        values = plain_values(lists)
        library = studio.pose_library()
        parts = [
            studio.cast_fingerprint(),
            plans.cast_hash(),
            llm.service_fingerprint(values.get("writer") or "auto"),
            llm.service_fingerprint(values.get("judge") or "auto", vision=True),
            *(library.content_hash(name) for name in library.names()),
            face_references.references_fingerprint([], "auto"),
        ]
        return " ".join(parts)

    @classmethod
    def execute(cls, **lists: list[Any]) -> io.NodeOutput:
        """Write the plan and expand into the first round."""
        from ..animation_studio.bridge import plans, rounds

        values = single_values(lists, "Until Accepted", PlanError)
        own = str(cls.hidden.unique_id)
        inputs = cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"]
        for name in _LINKS:
            if not is_link(inputs.get(name)):
                raise PlanError(f"{name}: connect a checkpoint's {name}.")
        if values["check_faces"] not in _FACES:
            raise PlanError(f"check_faces: choose one of {', '.join(_FACES)}.")
        wish = rounds.wish_of(
            {
                **{name: values[name] for name in _SAME},
                "mean": values["threshold"],
                "slot": values["slot_threshold"],
                "faces": values["check_faces"] == _FACES[0],
            }
        )
        if values.get("plan") is not None:
            first = plans.graph_plan(values["plan"], wish.dialect)
        else:
            request = plans.WriteRequest(
                sentence=values["sentence"],
                service=wish.writer,
                seed=wish.seed,
                temperature=wish.temperature,
                dialect=wish.dialect,
                character=values["character"],
            )
            first = plans.write(request, own, lease=True)
        # What the first step shows would stay in the history as if it were the end.
        return _expanded(rounds.begin(wish, first), inputs, shown=False)


class JudgeRound(io.ComfyNode):
    """One round of Until Accepted: judges what was made, and asks for the next if need be."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node, which Until Accepted places by itself."""
        return io.Schema(
            node_id=_ROUND,
            display_name="Judge Round (inside Until Accepted)",
            category=f"{CATEGORY}/internal",
            description="Until Accepted places this node by itself; it is of no use elsewhere.",
            enable_expand=True,
            inputs=[
                io.Image.Input("images", tooltip="What this round made."),
                io.String.Input("course", force_input=True, tooltip="Where the run stands."),
                io.Model.Input("model", tooltip="For the next round."),
                io.Clip.Input("clip", tooltip="For the next round."),
                io.Vae.Input("vae", tooltip="For the next round."),
                LookType.Input("look", tooltip="Of this round."),
                io.String.Input(
                    "faces", optional=True, force_input=True, tooltip="What the faces are."
                ),
                io.String.Input(
                    "gpu", optional=True, force_input=True, tooltip="What the guard did."
                ),
            ],
            outputs=[
                io.Image.Output("image", display_name="image"),
                io.Boolean.Output("accepted", display_name="accepted"),
                PlanType.Output("plan_out", display_name="plan"),
                LookType.Output("look_out", display_name="look"),
                SamplingType.Output("sampling", display_name="sampling"),
                io.String.Output("report_out", display_name="report"),
                io.String.Output("plan_text", display_name="plan_text"),
                io.Int.Output("rounds_made", display_name="rounds made"),
                io.String.Output("gpu_report", display_name="gpu_report"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(
        cls,
        images: Any,
        course: str,
        look: Any,
        faces: str = "",
        gpu: str = "",
        **_: Any,
    ) -> io.NodeOutput:
        """Judge this round."""
        from ..animation_studio.bridge import rounds

        step = rounds.advance(
            rounds.course_of(course),
            rounds.Made(images, look, faces, gpu),
            str(cls.hidden.unique_id),
        )
        inputs = cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"]
        if isinstance(step, rounds.NextRound):
            return _expanded(step, inputs, shown=True)
        return io.NodeOutput(
            step.image,
            step.round.accepted,
            step.graph.made,
            step.look,
            step.sampling,
            step.report,
            step.graph.text,
            step.rounds,
            step.gpu,
            ui=report_ui(step.lines, step.warnings),
        )


def _expanded(step: rounds.NextRound, inputs: Mapping[str, Any], *, shown: bool) -> io.NodeOutput:
    """Return the graph of a round."""
    from ..animation_studio.bridge import rounds

    links = {name: inputs[name] for name in _LINKS}
    plan, values = step.graph.made.plan, step.sampling
    graph = GraphBuilder()
    model, more = links["model"], {}
    if step.guard:
        # On the model, so that not even the text encoders are loaded before there is room.
        guard = graph.node("AnimStudio_VRAMGuard", value=model, **_GUARD)
        model, more = guard.out(0), {"gpu": guard.out(2)}
    loader = graph.node(
        "AnimStudio_CharacterLoraLoader",
        model=model,
        clip=links["clip"],
        **{f"{kind}_weight": AUTO_WEIGHT for kind in ENTRY_KINDS},
        **{kind: getattr(plan, kind) for kind in ("character", "background", "style")},
        pose=NONE,
        expression=plan.expression,
        scene_text=step.graph.scene,
        negative_text=step.graph.negative,
    )
    positive, negative = loader.out(2), loader.out(3)
    if step.pose is not None:
        drawn = graph.node(
            "AnimStudio_Pose",
            pose=step.pose,
            width=values.width,
            height=values.height,
            mirror=False,
            scale=1.0,
            x=0.0,
            y=0.0,
        )
        control = graph.node(
            "AnimStudio_Control",
            positive=positive,
            negative=negative,
            image=drawn.out(0),
            control="openpose",
            image_is_map=True,
            strength=AUTO_WEIGHT,
            start_percent=0.0,
            end_percent=1.0,
        )
        positive, negative = control.out(0), control.out(1)
    latent = graph.node(
        "EmptyLatentImage",
        width=values.width,
        height=values.height,
        batch_size=step.course.wish.pictures,
    )
    sampled = graph.node(
        "KSampler",
        model=loader.out(0),
        positive=positive,
        negative=negative,
        latent_image=latent.out(0),
        seed=step.course.seed,
        steps=values.steps,
        cfg=values.cfg,
        sampler_name=values.sampler,
        scheduler=values.scheduler,
        denoise=1.0,
    )
    images = graph.node("VAEDecode", samples=sampled.out(0), vae=links["vae"]).out(0)
    if step.faces:
        more["faces"] = _face_check(graph, images, loader.out(4))
    judged = graph.node(
        _ROUND,
        images=images,
        course=rounds.text_of(step.course),
        look=loader.out(4),
        **links,
        **more,
    )
    outputs = [judged.out(index) for index in range(_OUTPUTS)]
    ui = report_ui(step.lines) if shown else None
    return io.NodeOutput(*outputs, expand=graph.finalize(), ui=ui)


def _face_check(graph: GraphBuilder, images: Any, look: Any) -> Any:
    """A Consistency Filter on the look's character; return the link to its report."""
    return graph.node(
        "AnimStudio_ConsistencyFilter",
        images=images,
        look=look,
        character=NONE,
        character_2=NONE,
        character_3=NONE,
        engine="auto",
        threshold=-1.0,
        score="max",
        best_k=3,
        which_face="best match",
        no_face="reject",
        keep_at_most=0,
        when_none="pass the best",
    ).out(4)
