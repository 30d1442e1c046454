"""Valid documents of a JSON schema: random ones, and whether there is only one.

Of the schemas that the pack asks for: type, enum, const, properties, required, items, lengths,
limits of numbers, anyOf/oneOf, $ref into $defs. Patterns are not obeyed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import islice
from typing import Any

__all__ = ["legal_documents", "random_document"]

_WORDS = (
    *("luca", "runs", "beach", "sea", "sand", "warm", "light", "golden", "wide", "shot", "smile"),
    *("evening", "cliff", "boat", "clouds", "soft", "bright", "town", "street", "waves", "jump"),
)
_MOST_ITEMS = 3
_MOST_LETTERS = 60

Schema = Mapping[str, Any]


def random_document(schema: Schema, source: random.Random) -> Any:
    """Return a valid document, of moderate size. Optional properties are always there."""
    return _random(schema, source, schema.get("$defs", {}))


def _random(schema: Schema, source: random.Random, definitions: Schema) -> Any:
    schema = _resolved(schema, definitions)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return source.choice(schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return _random(source.choice(schema[several]), source, definitions)
    kind = _kind(schema, source)
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _random(each, source, definitions) for name, each in properties.items()}
    if kind == "array":
        least = schema.get("minItems", 0)
        most = max(least, min(schema.get("maxItems", _MOST_ITEMS), _MOST_ITEMS))
        items = schema.get("items", {"type": "string"})
        return [_random(items, source, definitions) for _ in range(source.randint(least, most))]
    if kind == "string":
        return _string(schema, source)
    return _scalar(kind, schema, source)


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    while "$ref" in schema or len(schema.get("allOf", ())) == 1:
        inner = schema.get("$ref")
        schema = definitions[inner.rpartition("/")[2]] if inner else schema["allOf"][0]
    return schema


def _kind(schema: Schema, source: random.Random) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return source.choice(kind) if isinstance(kind, list) else kind


def _string(schema: Schema, source: random.Random) -> str:
    least = schema.get("minLength", 0)
    most = max(least, min(schema.get("maxLength", _MOST_LETTERS), _MOST_LETTERS))
    text = ""
    for _ in range(source.randint(1, 6)):
        text = f"{text} {source.choice(_WORDS)}".strip()
    return text[:most].strip().ljust(least, "a")


def _scalar(kind: str, schema: Schema, source: random.Random) -> Any:
    if kind == "boolean":
        return source.random() < 0.5
    if kind == "null":
        return None
    low = schema.get("minimum", 0)
    high = schema.get("maximum", low + 10)
    if kind == "integer":
        return source.randint(int(low), int(high))
    return source.uniform(low, high)


def legal_documents(schema: Schema, most: int) -> list[Any]:
    """Return up to `most` of the documents that are legal; [] where there are too many kinds.

    Only constants, enums and closed objects of them are counted.
    """
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return list(schema["enum"])[:most]
    if "properties" in schema and schema.get("additionalProperties") is False:
        documents: list[dict[str, Any]] = [{}]
        for name, inner in schema["properties"].items():
            values = legal_documents(inner, most)
            longer = ({**one, name: value} for one in documents for value in values)
            documents = list(islice(longer, most))
        return documents
    return []
