"""Turning a refusal of the library into the sentence that ComfyUI shows before a run."""

from __future__ import annotations

from collections.abc import Callable

from ..animation_studio.errors import StudioError

__all__ = ["problem_of"]


def problem_of(check: Callable[[], object]) -> bool | str:
    """Return True when `check` passes, else its message, as `validate_inputs` must."""
    try:
        check()
    except StudioError as error:
        return str(error)
    return True
