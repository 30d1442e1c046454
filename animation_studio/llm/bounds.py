"""What is too much in a model's answer, left out rather than sent back.

A server that holds its model to a schema can still exceed it (vLLM counts the letters of broken
UTF-8 otherwise than they come out), and one that does not hold it at all adds keys and goes on.
Neither is worth a second answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["bounded"]


def bounded(data: object, schema: Mapping[str, Any]) -> object:
    """Return `data` without what goes beyond a closed schema: keys, items, the ends of texts.

    What is of another type stays as it is, for whoever checks it.
    """
    if isinstance(data, dict):
        known: Mapping[str, Any] = schema.get("properties", {})
        return {key: bounded(value, known[key]) for key, value in data.items() if key in known}
    if isinstance(data, list) and "items" in schema:
        return [bounded(one, schema["items"]) for one in data[: schema.get("maxItems")]]
    if isinstance(data, str) and "maxLength" in schema:
        return data[: schema["maxLength"]]
    return data
