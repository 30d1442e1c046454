"""Faces: references of a character, the consistency filter, and a threshold from measurements."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ..animation_studio.bridge import face_engines, studio
from ..animation_studio.registry import NONE
from .face_inputs import (
    CHARACTERS,
    PASS_BEST,
    best_k_input,
    character_inputs,
    check_character,
    engine_inputs,
    fingerprint,
    given,
    judge_inputs,
    judge_request,
    judged_characters,
    link_inputs,
    score_input,
    verdict_outputs,
    when_none_input,
)
from .lists import plain_values
from .report import report_ui
from .types import CATEGORY, ReferencesType

__all__ = ["CalibrateThreshold", "ConsistencyFilter", "FaceReferences"]

_CALIBRATED = (*CHARACTERS, "character_4")


class FaceReferences(io.ComfyNode):
    """What a character's face looks like, from pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node with the characters and engines that are there now."""
        engine, clip_vision = engine_inputs()
        characters = studio.registry().choices("character")
        return io.Schema(
            node_id="AnimStudio_FaceReferences",
            display_name="Face References",
            category=CATEGORY,
            description="Makes references of a character's face from pictures and saves them beside"
            " your configuration; the Consistency Filter compares with them. Give five or more "
            "good pictures.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="Pictures of the character, in any sizes."),
                io.Combo.Input("character", options=characters, tooltip="Whose face it is."),
                io.Combo.Input(
                    "which_face",
                    options=["largest", "all", "leftmost", "rightmost"],
                    default="largest",
                    tooltip="Which face of each picture is the character's.",
                ),
                io.Boolean.Input(
                    "save",
                    default=True,
                    tooltip="Keep them for every later run. Off: for this graph alone.",
                ),
                engine,
                clip_vision,
                ReferencesType.Input(
                    "references",
                    optional=True,
                    tooltip="References of other characters, to hand on together with these.",
                ),
            ],
            outputs=[
                ReferencesType.Output(
                    "references_out",
                    display_name="references",
                    tooltip="These references, for Consistency Filter, Until Consistent and "
                    "Calibrate Threshold.",
                ),
                io.Image.Output(
                    "crops", display_name="crops", tooltip="The faces as the engine sees them."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, character: list[str] | None) -> bool | str:
        """Check that the character is there and not broken."""
        return check_character(character)

    @classmethod
    def fingerprint_inputs(cls, character: list[str] | None, **_: Any) -> str:
        """Change when saved references are deleted, and when `auto` may be another engine."""
        from ..animation_studio.bridge import face_references

        lost = face_references.lost_references(character[0]) if character else 0
        return f"{face_engines.engine_state()} {lost}"

    @classmethod
    def execute(cls, images: list[Any], **lists: list[Any]) -> io.NodeOutput:
        """Make the references."""
        from ..animation_studio.bridge import face_references

        values = plain_values(lists)
        made = face_references.make_references(
            images,
            values["character"],
            engine=values["engine"],
            which=values["which_face"],
            save=values["save"],
            clip_vision=values.get("clip_vision"),
        )
        shown = ui.PreviewImage(made.crops, cls=cls).as_dict()
        others = [
            one
            for one in values.get("references") or ()
            if one.character != made.references.character
        ]
        return io.NodeOutput(
            (*others, made.references),
            made.crops,
            ui={**shown, **report_ui(made.lines, made.warnings)},
        )


class ConsistencyFilter(io.ComfyNode):
    """Keeps the pictures that show the character."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node with the characters and engines that are there now."""
        engine, clip_vision = engine_inputs()
        judged = verdict_outputs()
        return io.Schema(
            node_id="AnimStudio_ConsistencyFilter",
            display_name="Consistency Filter",
            category=CATEGORY,
            description="Compares the faces of pictures with a character's references and parts "
            "them into kept and rejected, each with its score and reason. When nothing passes, "
            "what comes after `kept` is not run, and the run goes on.",
            is_input_list=True,
            inputs=[
                io.Image.Input(
                    "images",
                    # So that missing references are told before the candidates are sampled.
                    lazy=True,
                    tooltip="The candidates: a batch, or a list of any sizes.",
                ),
                *judged_characters(),
                engine,
                *judge_inputs(),
                io.Combo.Input(
                    "no_face",
                    options=["reject", "keep", "error"],
                    default="reject",
                    tooltip="What becomes of a picture in which no face is found.",
                ),
                io.Int.Input(
                    "keep_at_most",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Keep only the best so many of those that pass; 0 keeps all.",
                ),
                when_none_input(),
                *link_inputs(),
                clip_vision,
            ],
            outputs=[
                io.Image.Output(
                    "kept",
                    display_name="kept",
                    is_output_list=True,
                    tooltip="What passed, in the order it came.",
                ),
                io.Image.Output(
                    "rejected",
                    display_name="rejected",
                    is_output_list=True,
                    tooltip="What did not, in the order it came.",
                ),
                judged["best"],
                judged["scores"],
                judged["report"],
                io.Image.Output(
                    "annotated",
                    display_name="annotated",
                    is_output_list=True,
                    tooltip="Every picture with its faces boxed and scored.",
                ),
                judged["contact_sheet"],
            ],
        )

    @classmethod
    def validate_inputs(cls, character: list[str] | None) -> bool | str:
        """Check that the first character is there; the others speak up in the run."""
        return check_character(character)

    @classmethod
    def fingerprint_inputs(cls, **lists: Any) -> str:
        """Change when references, presets or model packs do."""
        return fingerprint(lists)

    @classmethod
    def check_lazy_status(cls, **lists: list[Any]) -> list[str]:
        """Ask for the pictures once everything that judges them is known to be there."""
        from ..animation_studio.bridge import consistency

        values = plain_values(lists)
        consistency.panel_for(judge_request(values), given(values))
        return ["images"]

    @classmethod
    def execute(cls, images: list[Any], **lists: list[Any]) -> io.NodeOutput:
        """Judge the pictures."""
        from ..animation_studio.bridge import consistency

        values = plain_values(lists)
        done = consistency.filter_pictures(
            images,
            judge_request(values),
            given(values),
            pass_best=values["when_none"] == PASS_BEST,
        )
        # Silent blockers: one with a message is an error to the page, and the warning above says
        # it better.
        nothing = ExecutionBlocker(None)
        return io.NodeOutput(
            done.kept or [nothing],
            done.rejected or [nothing],
            nothing if done.best is None else done.best,
            done.scores,
            done.report,
            done.annotated,
            done.sheet,
            ui=report_ui(done.lines, done.warnings),
        )


class CalibrateThreshold(io.ComfyNode):
    """A threshold from the references of two or more characters."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node with the characters and engines that are there now."""
        engine, clip_vision = engine_inputs()
        return io.Schema(
            node_id="AnimStudio_CalibrateThreshold",
            display_name="Calibrate Threshold",
            category=CATEGORY,
            description="Scores each reference against the others of its character and against "
            "those of other characters, and proposes the threshold that lets through the chosen "
            "part of strangers.",
            is_output_node=True,
            inputs=[
                *character_inputs(
                    "Two or more characters with references. none in all: every character that "
                    "has references.",
                    _CALIBRATED,
                ),
                engine,
                io.Float.Input(
                    "false_accept_rate",
                    default=0.01,
                    min=0.0001,
                    max=0.5,
                    step=0.0001,
                    round=0.0001,
                    tooltip="The part of other characters' faces that may pass: 0.01 is one in a "
                    "hundred.",
                ),
                score_input(),
                best_k_input(),
                link_inputs()[0],
                clip_vision,
            ],
            outputs=[
                io.Float.Output(
                    "threshold", display_name="threshold", tooltip="The proposed threshold."
                ),
                io.Image.Output(
                    "histogram", display_name="histogram", tooltip="Genuine and impostor scores."
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="Scores, rates and warnings, as JSON."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> str:
        """Change when references, presets or model packs do."""
        return fingerprint(values, _CALIBRATED)

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """Measure and propose."""
        from ..animation_studio.bridge import face_calibration

        done = face_calibration.calibrate_threshold(
            [values[name] for name in _CALIBRATED if values.get(name, NONE) != NONE],
            engine=values["engine"],
            false_accept_rate=values["false_accept_rate"],
            score=values["score"],
            best_k=values["best_k"],
            given=given(values),
        )
        shown = ui.PreviewImage(done.histogram, cls=cls).as_dict()
        return io.NodeOutput(
            done.threshold,
            done.histogram,
            done.report,
            ui={**shown, **report_ui(done.lines, done.warnings)},
        )
