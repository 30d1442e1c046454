"""The plan: what a picture is to show, as a language model or a person writes it.

    plan = checked_plan(data, vocabulary)       # PlanError lists everything that is wrong
    schema = plan_schema(vocabulary)            # what a server holds its model to

The order of the fields is the order in which a model writes them: what it understood first, then
slots, its reasoning, and the words of the prompt last, because they follow from all the others.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import core_schema

from ..errors import PlanError
from ..registry import NONE
from .quoting import JOINERS, UNSEEN
from .vocabulary import NameKind, Vocabulary

__all__ = [
    "MAX_CHARACTERS",
    "NAMES",
    "OPENPOSE",
    "BackgroundName",
    "CharacterName",
    "ControlName",
    "EmotionName",
    "ExpressionName",
    "Phrases",
    "Plan",
    "PlanControl",
    "PlanLine",
    "PlanParts",
    "PoseName",
    "Sentence",
    "StyleName",
    "Words",
    "checked_plan",
    "closed_schema",
    "plan_problems",
    "plan_schema",
    "problems_in",
]

# In a field's JSON schema: of which kind its names are, to be replaced by the keys themselves.
NAMES = "x-names"
# The type of control that a pose of the library is for.
OPENPOSE = "openpose"
# Stands for broken bytes.
_BROKEN = "\ufffd"
# Kinds that a picture may also be without.
_OPTIONAL: tuple[NameKind, ...] = ("background", "style", "expression", "pose")
MAX_CHARACTERS = 4


def _text(value: object) -> object:
    """Text on one line, without what no prompt, file or screen can hold, and what nobody sees.

    A random or broken model writes lone surrogates and control characters, and directions show a
    text otherwise than it is; the line breaks of a plan by hand are layout.
    """
    if not isinstance(value, str):
        return value
    kept = (" " if c.isspace() else c for c in value if c.isspace() or _is_text(c))
    words = (word.strip(JOINERS) for word in "".join(kept).split())
    return " ".join(word for word in words if word)


def _is_text(character: str) -> bool:
    seen = unicodedata.category(character) not in UNSEEN and character != _BROKEN
    return seen or character in JOINERS


def _listed(value: object) -> object:
    """One text or mapping where a list is wanted is a list of one; nothing is none."""
    if value is None:
        return []
    return [value] if isinstance(value, str | dict) else value


@dataclass(frozen=True)
class _Name:
    """Makes a text one of the vocabulary's names; the vocabulary is the validation's context."""

    kind: NameKind

    def __get_pydantic_core_schema__(
        self, source: type[str], handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.with_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), NAMES: self.kind}

    def _known(self, value: str, info: ValidationInfo) -> str:
        if self.kind in _OPTIONAL and value.strip().casefold() in ("", NONE):
            return NONE
        known = info.context
        return known.resolve(self.kind, value) if isinstance(known, Vocabulary) else value


def _distinct(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _not_empty(values: list[str]) -> list[str]:
    return [value for value in values if value]


CharacterName: TypeAlias = Annotated[str, _Name("character")]
BackgroundName: TypeAlias = Annotated[str, _Name("background")]
StyleName: TypeAlias = Annotated[str, _Name("style")]
ExpressionName: TypeAlias = Annotated[str, _Name("expression")]
PoseName: TypeAlias = Annotated[str, _Name("pose")]
ControlName: TypeAlias = Annotated[str, _Name("control")]
EmotionName: TypeAlias = Annotated[str, _Name("emotion")]
# Before pydantic looks: it refuses lone surrogates.
Words: TypeAlias = Annotated[str, Field(max_length=100), BeforeValidator(_text)]
Sentence: TypeAlias = Annotated[str, Field(max_length=300), BeforeValidator(_text)]
Phrases: TypeAlias = Annotated[
    list[Words], Field(max_length=6), BeforeValidator(_listed), AfterValidator(_not_empty)
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PlanControl(_Part):
    """A control that the picture wants, and why.

    `pose` is one of the library, for openpose alone. With another type it is an error in a plan
    by hand, whose author meant something; elsewhere it becomes none: no model is asked again for
    that.
    """

    reason: Sentence = Field(default="", description="why the picture needs it")
    type: ControlName = Field(description="the kind of control")
    pose: PoseName = Field(default=NONE, description="a pose of the library, for openpose")

    def __str__(self) -> str:
        return self.type if self.pose == NONE else f"{self.type} ({self.pose})"

    @field_validator("pose")
    @classmethod
    def _of_openpose(cls, pose: str, info: ValidationInfo) -> str:
        if pose == NONE or info.data.get("type", OPENPOSE) == OPENPOSE:
            return pose
        if isinstance(info.context, Vocabulary) and info.context.by_hand:
            raise ValueError(
                f"a pose is for {OPENPOSE}, and the type is {info.data['type']!r}. Leave the pose "
                f"out, or make the type {OPENPOSE}."
            )
        return NONE


class PlanLine(_Part):
    """A line that is spoken."""

    character: CharacterName = Field(description="who speaks")
    emotion: EmotionName = Field(default="neutral", description="how it is spoken")
    text: Sentence = Field(description="the words that are spoken")

    def __str__(self) -> str:
        return f"{self.character} [{self.emotion}]: {self.text}"


def _spoken(lines: list[PlanLine]) -> list[PlanLine]:
    return [line for line in lines if line.text]


class PlanParts(_Part):
    """The words of the prompt, each a short phrase of its own.

    They never hold trigger words or a character's looks: the registry's are put in by code.
    """

    action: Phrases = Field(default=[], description="who does what, how body and face look")
    setting: Phrases = Field(default=[], description="the place and what stands in it")
    light: Phrases = Field(default=[], description="time of day, light, weather, colours")
    camera: Phrases = Field(default=[], description="shot, angle, lens, composition")
    avoid: Phrases = Field(default=[], description="what must not appear in the picture")


class Plan(_Part):
    """What a picture is to show. Names are keys of the configuration; texts are free.

    `characters` has the one whose LoRA is loaded first. `others` are people whom the sentence
    names and the cast has not. Every field may be left out when a plan is written by hand. Of
    `controls` a graph that has room for one takes `control` and `pose`.
    """

    intent: Sentence = Field(default="", description="what the sentence asks for")
    characters: Annotated[
        list[CharacterName],
        Field(max_length=MAX_CHARACTERS),
        BeforeValidator(_listed),
        AfterValidator(_distinct),
    ] = Field(default=[], description="who of the cast is in the picture, the main one first")
    others: Annotated[
        list[Words], Field(max_length=4), BeforeValidator(_listed), AfterValidator(_not_empty)
    ] = Field(default=[], description="people the sentence names who are not of the cast")
    action: Sentence = Field(default="", description="what happens, in one short sentence")
    emotion: EmotionName = Field(default="neutral", description="what the main character feels")
    expression: ExpressionName = Field(default=NONE, description="what the face shows")
    location: Words = Field(default="", description="where it is, in free words")
    background: BackgroundName = Field(
        default=NONE, description="the location, if it is one of the backgrounds"
    )
    style: StyleName = Field(default=NONE, description="how the picture is drawn")
    time: Words = Field(default="", description="time of day")
    light: Words = Field(default="", description="light and weather")
    camera: Words = Field(default="", description="shot and angle of the camera")
    composition: Words = Field(default="", description="where things stand in the picture")
    controls: Annotated[list[PlanControl], Field(max_length=2), BeforeValidator(_listed)] = Field(
        default=[], description="controls the picture wants, most often none"
    )
    lines: Annotated[
        list[PlanLine], Field(max_length=8), BeforeValidator(_listed), AfterValidator(_spoken)
    ] = Field(default=[], description="what is spoken, only if the sentence asks for speech")
    reasoning: Sentence = Field(
        default="", description="how the picture's words follow from all of the above"
    )
    parts: PlanParts = Field(default=PlanParts(), description="the words of the prompt")

    @property
    def character(self) -> str:
        """The main character's key, `none` where nobody of the cast is in the picture."""
        return self.characters[0] if self.characters else NONE

    @property
    def control(self) -> str:
        """The type of the first control that can be used as it stands, or `none`.

        An openpose can that names a pose: without one its map would be black. Others can; their
        map comes from a picture, which the graph must have.
        """
        return self._usable[0]

    @property
    def pose(self) -> str:
        """The pose of that same control, `none` for one that is not openpose."""
        return self._usable[1]

    @property
    def _usable(self) -> tuple[str, str]:
        for one in self.controls:
            if one.type != OPENPOSE:
                return one.type, NONE
            if one.pose != NONE:
                return one.type, one.pose
        return NONE, NONE


def checked_plan(data: object, vocabulary: Vocabulary, what: str = "plan") -> Plan:
    """Return `data` as a plan whose names are all of the vocabulary.

    Raises PlanError, which begins with `what` and lists everything that is wrong.
    """
    problems = plan_problems(data, vocabulary)
    if isinstance(problems, Plan):
        return problems
    listed = "; ".join(f"{place}: {said}" if place else said for place, said in problems)
    raise PlanError(f"{what}: {listed}")


def plan_problems(data: object, vocabulary: Vocabulary) -> Plan | list[tuple[str, str]]:
    """Return `data` as a plan, or what is wrong with it as (place, sentence) pairs.

    A place is a path such as `lines.0.character`, empty for the whole.
    """
    if not isinstance(data, Mapping):
        return [("", f"should be a mapping with the keys {', '.join(Plan.model_fields)}")]
    try:
        return Plan.model_validate(data, context=vocabulary)
    except ValidationError as error:
        return problems_in(error)


def problems_in(error: ValidationError) -> list[tuple[str, str]]:
    """Return what a validation found as (place, sentence) pairs."""
    return [
        (".".join(map(str, detail["loc"])), _said(detail["type"], str(detail["msg"])))
        for detail in error.errors(include_url=False, include_input=False)
    ]


def _said(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "there is no such key"
    return message.removeprefix("Value error, ")


def plan_schema(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the JSON schema of a plan; see `closed_schema`."""
    return closed_schema(Plan, vocabulary)


def closed_schema(model: type[BaseModel], vocabulary: Vocabulary) -> dict[str, Any]:
    """Return a model's JSON schema with enums of the vocabulary's keys where names are wanted.

    Everything is required and nothing may be added, as strict structured output wants it; there
    are no references, and every text and list is bounded, so that an answer has to end.
    """
    schema = model.model_json_schema()
    return _closed(schema, schema.get("$defs", {}), vocabulary)


def _closed(
    node: Mapping[str, Any], definitions: Mapping[str, Any], vocabulary: Vocabulary
) -> dict[str, Any]:
    """A part of the schema without references, defaults and names of kinds."""
    if "$ref" in node:
        node = definitions[str(node["$ref"]).rpartition("/")[2]]
    if "allOf" in node:
        node = definitions[str(node["allOf"][0]["$ref"]).rpartition("/")[2]]
    if NAMES in node:
        kind: NameKind = node[NAMES]
        keys = [*vocabulary.of(kind), *([NONE] if kind in _OPTIONAL else [])]
        return {"type": "string", "enum": keys}
    kept = {key: node[key] for key in ("type", "minLength", "maxLength") if key in node}
    if node["type"] == "array":
        items = _closed(node["items"], definitions, vocabulary)
        # A list of names of which there are none can only be empty.
        most = 0 if _is_hollow(items) else node["maxItems"]
        return {**kept, "items": {"type": "string"} if most == 0 else items, "maxItems": most}
    if node["type"] == "object":
        properties = {
            name: _closed(inner, definitions, vocabulary)
            for name, inner in node["properties"].items()
        }
        return {
            **kept,
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    return kept


def _is_hollow(items: Mapping[str, Any]) -> bool:
    """Whether nothing can be an item: it, or what it must hold, is a name and there is none."""
    if items.get("enum") == []:
        return True
    return any(_is_hollow(inner) for inner in items.get("properties", {}).values())
