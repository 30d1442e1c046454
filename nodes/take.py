"""Saving a take: the picture and how it was made."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .types import CATEGORY, LookType, SamplingType

__all__ = ["SaveTake"]


class SaveTake(io.ComfyNode):
    """A PNG that carries its workflow, and a JSON record beside it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AnimStudio_SaveTake",
            display_name="Save Take",
            category=CATEGORY,
            description="Saves pictures with their workflow (drop one on the page and the graph is "
            "back) and a JSON record of entries, file hashes, prompts, seed and versions.",
            inputs=[
                io.Image.Input("images", tooltip="The pictures to save."),
                io.String.Input(
                    "filename_prefix",
                    default="animation_studio/take",
                    tooltip="A name below ComfyUI's output folder, with its %placeholders%.",
                ),
                LookType.Input(
                    "look",
                    optional=True,
                    tooltip="From the Character LoRA Loader: entries, weights and prompts go into "
                    "the record.",
                ),
                SamplingType.Input(
                    "sampling",
                    optional=True,
                    tooltip="From Quality Preset: the sampling values go into the record.",
                ),
                io.String.Input(
                    "report",
                    optional=True,
                    force_input=True,
                    tooltip="From Consistency Filter or Until Consistent: each picture's verdict "
                    "goes into its record.",
                ),
                io.String.Input(
                    "gpu_report",
                    optional=True,
                    force_input=True,
                    tooltip="From VRAM Guard or Resume LLM: what they did goes into the record.",
                ),
                io.String.Input(
                    "judgement",
                    optional=True,
                    force_input=True,
                    tooltip="The report of Judge or Until Accepted: plan, answers and rounds go "
                    "into the record of their picture.",
                ),
            ],
            outputs=[],
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        images: Any,
        filename_prefix: str,
        look: Any = None,
        sampling: Any = None,
        report: str = "",
        gpu_report: str = "",
        judgement: str = "",
    ) -> io.NodeOutput:
        """Save the pictures."""
        # Here, so that records and their models cost nothing at ComfyUI's start.
        from ..animation_studio.bridge import takes

        context = takes.TakeContext(
            prompt=cls.hidden.prompt or {},
            node=str(cls.hidden.unique_id),
            extra=cls.hidden.extra_pnginfo or {},
            look=look,
            sampling=sampling,
            report=report,
            gpu_report=gpu_report,
            judgement=judgement,
        )
        saved = takes.save_takes(images, filename_prefix, context)
        return io.NodeOutput(ui={"images": saved.images, "records": saved.records})
