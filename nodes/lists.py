"""Values of nodes with is_input_list, which get every input as a list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..animation_studio.errors import StudioError

__all__ = ["plain_values", "single_values"]


def plain_values(lists: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first of each list that a node with is_input_list gets; plain values as they are.

    What comes by link is None where ComfyUI does not know it yet.
    """
    return {
        name: value[0] if isinstance(value, list | tuple) and value else value
        for name, value in lists.items()
    }


def single_values(lists: Mapping[str, Any], node: str, kind: type[StudioError]) -> dict[str, Any]:
    """Return the values of inputs that come as lists of one; `kind` is raised for more.

    A node that expands would expand again for each entry of a list, in every step.
    """
    for name, values in lists.items():
        if len(values) > 1:
            raise kind(
                f"{name}: {len(values)} values came as a list, and {node} takes one. Use one "
                f"{node} for each, or join them into a batch."
            )
    return plain_values(lists)
