"""The character LoRA loader: names become patched models and prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..animation_studio.bridge import look_loading, studio
from ..animation_studio.registry import AUTO_WEIGHT, ENTRY_KINDS, NONE, EntryKind, LookRequest
from .choices import problem_of
from .report import report_ui
from .types import CATEGORY, LookType, SamplingType

__all__ = ["CharacterLoraLoader"]

_TIPS = {
    "character": "Who is in the picture: LoRA, trigger words, base prompt, negative prompt.",
    "background": "Where it is: LoRA and trigger words.",
    "style": "How it is drawn: LoRA and trigger words.",
    "pose": "What the body does, in words (and a LoRA if the entry has one). The drawn pose is "
    "the Pose node's.",
    "expression": "What the face shows, in words (and a LoRA if the entry has one).",
}


def _request(values: Mapping[str, Any]) -> LookRequest:
    return LookRequest(
        choices={kind: values.get(kind) or NONE for kind in ENTRY_KINDS},
        weights={kind: values.get(f"{kind}_weight", AUTO_WEIGHT) for kind in ENTRY_KINDS},
        scene=values.get("scene_text") or "",
        negative=values.get("negative_text") or "",
    )


def _kind_inputs(kind: EntryKind) -> list[io.Input]:
    return [
        io.Combo.Input(
            kind,
            options=[NONE, *studio.registry().choices(kind)],
            default=NONE,
            tooltip=f"{_TIPS[kind]} From lora_registry.yaml; press R after editing it.",
        ),
        io.Float.Input(
            f"{kind}_weight",
            default=AUTO_WEIGHT,
            min=AUTO_WEIGHT,
            max=10.0,
            step=0.05,
            tooltip=f"Strength of the {kind}'s LoRA on model and text encoders. "
            f"{AUTO_WEIGHT:g} takes the weight of the configuration; 0 leaves the LoRA out and "
            "keeps the words.",
        ),
    ]


class CharacterLoraLoader(io.ComfyNode):
    """LoRAs, prompts and sampling values of a character in a scene, by name."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node with the names that the configuration has now."""
        return io.Schema(
            node_id="AnimStudio_CharacterLoraLoader",
            display_name="Character LoRA Loader",
            category=CATEGORY,
            description="Puts a character, background, style, pose and expression of your cast "
            "into model, text encoders and prompt.",
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint's model, SDXL or SD 1.5."),
                io.Clip.Input("clip", tooltip="The checkpoint's text encoders."),
                *(widget for kind in ENTRY_KINDS for widget in _kind_inputs(kind)),
                io.String.Input(
                    "scene_text",
                    default="",
                    multiline=True,
                    dynamic_prompts=True,
                    placeholder="the scene, in your words",
                    tooltip="What happens, in prompt syntax. Trigger words need not be repeated; "
                    "where they are, they still appear once.",
                ),
                io.String.Input(
                    "negative_text",
                    default="",
                    multiline=True,
                    dynamic_prompts=True,
                    placeholder="what must not appear, beside the character's own",
                    tooltip="Added to the character's negative prompt.",
                ),
            ],
            outputs=[
                io.Model.Output("model_out", display_name="model", tooltip="With all LoRAs."),
                io.Clip.Output("clip_out", display_name="clip", tooltip="With all LoRAs."),
                io.Conditioning.Output(
                    "positive", display_name="positive", tooltip="The assembled prompt, encoded."
                ),
                io.Conditioning.Output(
                    "negative", display_name="negative", tooltip="The negative prompt, encoded."
                ),
                LookType.Output(
                    "look", display_name="look", tooltip="Everything above by name, for Save Take."
                ),
                SamplingType.Output(
                    "sampling",
                    display_name="sampling",
                    tooltip="The character's own sampling values, for Quality Preset.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, character: str | None) -> bool | str:
        """Check the character against configuration and files.

        The other kinds speak up when they are loaded: ComfyUI would repeat one message for each
        input that is named here.
        """
        request = LookRequest(choices={"character": character or NONE})
        return problem_of(lambda: studio.check_look(request))

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> str:
        """Change when a chosen entry, its preset or its LoRA file does, or pictures lack room."""
        from ..animation_studio.bridge import guards

        room = guards.lack_of_room()
        if any(values.get(kind) is None for kind in ENTRY_KINDS):
            # A choice that comes by link is not known yet: any change of the cast counts.
            return studio.cast_fingerprint() + room
        return studio.look_fingerprint(_request(values)) + room

    @classmethod
    def execute(cls, model: Any, clip: Any, **values: Any) -> io.NodeOutput:
        """Load the look, and make room for the pictures that are made with it."""
        # Here, so that the arbiter and its models cost nothing at ComfyUI's start.
        from ..animation_studio.bridge import guards

        warnings = guards.room_for_pictures(str(cls.hidden.unique_id))
        loaded = look_loading.load_look(model, clip, _request(values))
        return io.NodeOutput(
            loaded.model,
            loaded.clip,
            loaded.positive,
            loaded.negative,
            loaded.look,
            loaded.look.sampling,
            ui=report_ui(loaded.lines, [*loaded.look.warnings, *warnings]),
        )
