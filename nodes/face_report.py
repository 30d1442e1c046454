"""Saving a consistency report with its contact sheet."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..animation_studio.bridge import outputs
from .types import CATEGORY

__all__ = ["SaveReport"]


class SaveReport(io.ComfyNode):
    """A report as a JSON file in the output folder, the contact sheet beside it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AnimStudio_SaveReport",
            display_name="Save Report",
            category=CATEGORY,
            description="Saves the report of Consistency Filter, Until Consistent or Calibrate "
            "Threshold as JSON, with its picture beside it.",
            inputs=[
                io.String.Input("report", force_input=True, tooltip="The report, as JSON."),
                io.String.Input(
                    "filename_prefix",
                    default="animation_studio/report",
                    tooltip="A name below ComfyUI's output folder, with its %placeholders%.",
                ),
                io.Image.Input(
                    "contact_sheet",
                    optional=True,
                    tooltip="The contact sheet or histogram that belongs to it.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, report: str, filename_prefix: str, contact_sheet: Any = None) -> io.NodeOutput:
        """Save the report."""
        reports, images = outputs.save_report(report, filename_prefix, contact_sheet)
        return io.NodeOutput(ui={"images": images, "reports": reports})
