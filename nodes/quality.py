"""The quality preset: one word becomes the values of sampler and latent."""

from __future__ import annotations

from comfy_api.latest import io

from ..animation_studio.bridge import studio
from ..animation_studio.registry import OWN, SamplingValues, sampling_for
from .choices import problem_of
from .types import CATEGORY, SamplingType

__all__ = ["QualityPreset"]


class QualityPreset(io.ComfyNode):
    """Sampling values of a preset, as the core KSampler and EmptyLatentImage take them by link."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        names = studio.vocabulary()
        return io.Schema(
            node_id="AnimStudio_QualityPreset",
            display_name="Quality Preset",
            category=CATEGORY,
            description="Steps, cfg, sampler, scheduler and size from one word: draft, standard, "
            "high, ultra, or the character's own values.",
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=[OWN, *studio.registry().quality],
                    default=OWN,
                    tooltip="A preset of sdxl_config.yaml, or the values of the character that is "
                    "connected as sampling (without one: the preset 'standard').",
                ),
                SamplingType.Input(
                    "character_sampling",
                    optional=True,
                    tooltip="The sampling output of the Character LoRA Loader. A named preset "
                    "still takes size and scheduler from it, unless it says its own.",
                ),
            ],
            outputs=[
                io.Int.Output("steps", display_name="steps", tooltip="Sampling steps."),
                io.Float.Output("cfg", display_name="cfg", tooltip="Guidance scale."),
                io.Combo.Output(
                    "sampler_name",
                    display_name="sampler_name",
                    options=names.samplers,
                    tooltip="For a KSampler's sampler_name.",
                ),
                io.Combo.Output(
                    "scheduler",
                    display_name="scheduler",
                    options=names.schedulers,
                    tooltip="For a KSampler's scheduler.",
                ),
                io.Int.Output("width", display_name="width", tooltip="Width in pixels."),
                io.Int.Output("height", display_name="height", tooltip="Height in pixels."),
                SamplingType.Output(
                    "sampling", display_name="sampling", tooltip="All values, for Save Take."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, preset: str | None) -> bool | str:
        """Check the preset against the configuration as it stands now."""
        if preset in (None, OWN):
            return True
        return problem_of(lambda: studio.registry().quality_preset(preset))

    @classmethod
    def fingerprint_inputs(cls, preset: str | None, **_: object) -> str:
        """Change when the values that come out change."""
        if preset is None:
            return studio.registry().content_hash
        return studio.sampling_fingerprint(None if preset == OWN else preset)

    @classmethod
    def execute(
        cls, preset: str, character_sampling: SamplingValues | None = None
    ) -> io.NodeOutput:
        """Return the values of `preset`."""
        if preset == OWN and character_sampling is not None:
            values = character_sampling
        else:
            values = sampling_for(
                studio.registry(),
                quality="standard" if preset == OWN else preset,
                own=character_sampling,
                vocabulary=studio.vocabulary(),
            )
        return io.NodeOutput(*values.outputs, values)
