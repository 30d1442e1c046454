"""What a node shows on itself after a run; web/report.js draws it."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["report_ui"]


def report_ui(lines: Sequence[str], warnings: Sequence[str] = ()) -> dict[str, list[object]]:
    """Return the ui part of a NodeOutput: plain lines, and warnings that stand out."""
    return {"animstudio_report": [{"lines": list(lines), "warnings": list(warnings)}]}
