"""A plan as yes/no questions about a picture of it: one a slot, and some for common defects.

Where a slot is empty its part is asked about: a plan by hand may hold nothing but parts.

A vision model knows neither names nor keys, so characters, places and styles are described by
what the registry says of their looks. Texts of plan and registry stand in quotes, as data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..registry import NONE, Character, EntryKind, Registry, normalised
from ..registry.prompts import split_pieces
from .judgement import Asked
from .plan import Plan
from .quoting import one_line, quoted

__all__ = ["DEFECTS", "plan_summary", "questions_for"]

# Pieces of a base prompt that say how a picture is made and not what somebody looks like.
_MAKING = re.compile(
    r"\b(style|lighting|shading|quality|masterpiece|resolution|render(ed|ing)?|animation|animated"
    r"|cinematic|detail(s|ed)?|[23]d|cgi|anime|cartoon|painting|illustration|art|artstation|photo"
    r"|photograph|photorealistic|realistic|unreal engine|octane|best|hd|uhd|hdr|[48]k|score \d.*)\b"
)
# In words for people: whoever is not one, so that nobody can be counted.
_SEVERAL = re.compile(
    r"\b(\w+[^s\W]s|\w*(men|people)|children|crowd|group|family|couple|audience|class|team|gang"
    r"|two|three|four|five|six|seven|eight|nine|ten|many|some|several|\d+)\b"
)
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True)
class _Said:
    """What a plan says in one slot; `text` is empty where the question needs none."""

    slot: str
    question: str
    suggestion: str
    text: str = ""

    def asked(self) -> Asked:
        question = self.question.format(text=quoted(self.text))
        return Asked(slot=self.slot, kind="plan", question=question, suggestion=self.suggestion)


_LOOKS = "Does the picture show this character: {text}?"
_CHARACTER = "Show the character larger, from the front and unhidden; raise the LoRA's weight."
_OTHER = "Name this person in the action's words, with looks and place."

# Slot, question, suggestion, for the texts that stand in the plan as they are.
_TEXTS = (
    ("time", "Is the time of day in the picture {text}?", "Say the time of day by its light."),
    ("light", "Does the picture have this light or weather: {text}?", "Say light plainly, once."),
    (
        "camera",
        "Is the picture taken with this camera shot or angle: {text}?",
        "Choose a common shot, and say it in the camera's words.",
    ),
    (
        "composition",
        "Are things placed like this in the picture: {text}?",
        "Make it simpler: fewer things, with one clear place each.",
    ),
)

# Slot, question, suggestion of each common defect.
DEFECTS = (
    (
        "hands",
        "Does the picture show hands or fingers that are deformed, fused, or too many or too few?",
        "Avoid deformed hands; keep hands out of the picture, or show them larger.",
    ),
    (
        "limbs",
        "Does somebody in the picture have extra or missing arms or legs?",
        "Avoid extra limbs; choose a simpler pose or a closer shot.",
    ),
    (
        "face",
        "Does the picture show a deformed face or deformed eyes?",
        "Avoid deformed faces; show the face larger.",
    ),
    (
        "sharpness",
        "Is the picture as a whole blurred, noisy or broken?",
        "Avoid blur and noise; take fewer things into the picture.",
    ),
    (
        "lettering",
        "Does the picture show a watermark, a logo, a signature or a caption?",
        "Avoid text, watermark, logo, signature.",
    ),
    (
        "double",
        "Does the same person appear more than once in the picture?",
        "Avoid clones; say who is in the picture, and where, once.",
    ),
    (
        "cut off",
        "Is somebody's head cut off by the edge of the picture?",
        "Avoid cropped heads; choose a wider shot.",
    ),
)


def questions_for(plan: Plan, registry: Registry, defects: bool = True) -> list[Asked]:
    """Return a question for each slot, or its part, that says something, then those for defects.

    Slots are unique, and so are questions, of which none is longer than 300 characters. Raises
    ConfigError for a name of the plan that the registry has not, or not in working order.
    """
    asked = [one.asked() for one in _heard(plan, registry)]
    if defects:
        asked += [
            Asked(slot=slot, kind="defect", question=question, suggestion=suggestion)
            for slot, question, suggestion in DEFECTS
        ]
    return list(_distinct(asked))


def plan_summary(plan: Plan, registry: Registry) -> str:
    """Return what a picture of the plan shows, as one line of quoted texts for a vision model.

    Empty for a plan that says nothing. Raises ConfigError as `questions_for`.
    """
    said = [one for one in _heard(plan, registry) if one.text]
    return "; ".join(f"{one.slot.split()[0]}: {quoted(one.text)}" for one in said)


def _heard(plan: Plan, registry: Registry) -> Iterator[_Said]:
    """What is left where texts of signs that nobody sees say nothing."""
    for one in _said(plan, registry):
        if one_line(one.text) or "{text}" not in one.question:
            yield one


def _said(plan: Plan, registry: Registry) -> Iterator[_Said]:
    for key in plan.characters:
        if looks := _looks(registry.character(key), registry):
            yield _Said(f"character {one_line(key, 60)}", _LOOKS, _CHARACTER, looks)
    for number, other in enumerate(plan.others, 1):
        yield _Said(f"other {number}", "Does the picture show this person: {text}?", _OTHER, other)
    yield from _count(plan)
    yield from _doing(plan, registry)
    yield from _place(plan, registry)
    texts = _texts(plan)
    for slot, question, suggestion in _TEXTS:
        if text := texts[slot]:
            yield _Said(slot, question, suggestion, text)
    if plan.style != NONE:
        yield _Said(
            "style",
            "Is the picture drawn in this style: {text}?",
            "Leave out words of other styles; raise the style's weight.",
            _words(registry, "style", plan.style),
        )


def _texts(plan: Plan) -> dict[str, str]:
    """The texts of `_TEXTS`; light and camera are the parts' where no slot speaks of them."""
    slots = {slot: getattr(plan, slot) for slot, _, _ in _TEXTS}
    if not one_line(plan.time):
        slots["light"] = _slot_or(plan.light, plan.parts.light)
    if not one_line(plan.composition):
        slots["camera"] = _slot_or(plan.camera, plan.parts.camera)
    return slots


def _slot_or(slot: str, parts: Sequence[str]) -> str:
    """A slot's text; where it says nothing that of the parts, of which the prompt is made."""
    return slot if one_line(slot) else ", ".join(parts)


def _count(plan: Plan) -> Iterator[_Said]:
    number = len(plan.characters) + len(plan.others)
    if not 0 < number < len(_NUMBERS) or any(map(_SEVERAL.search, _folded(plan.others))):
        return
    who = "is exactly one person" if number == 1 else f"are exactly {_NUMBERS[number]} people"
    verb, _, people = who.partition(" ")
    yield _Said(
        "count",
        f"{verb.capitalize()} there {people} in the picture, whether human or a creature?",
        "Say the number of people in the camera's words; avoid a crowd; choose a closer shot.",
    )


def _doing(plan: Plan, registry: Registry) -> Iterator[_Said]:
    names = {name for key in plan.characters for name in _names(registry.character(key))}

    def about(question: str, text: str) -> str:
        named = not names.isdisjoint(re.findall(r"\w+", text.casefold()))
        return question + " Names do not matter." * named

    action = _slot_or(plan.action, plan.parts.action)
    # What the sentence asked for. No change of the plan touches it, so that rounds cannot drift.
    if plan.intent and normalised(plan.intent) != normalised(action):
        yield _Said(
            "intent",
            about("Is this what the picture shows: {text}?", plan.intent),
            "Say who does what, and where, in the words of action and setting.",
            plan.intent,
        )
    if action:
        yield _Said(
            "action",
            about("Does the picture show this action: {text}?", action),
            "Say the action in fewer, plainer words; show the whole body; add a pose.",
            action,
        )
    if plan.expression != NONE:
        yield _Said(
            "expression",
            "Does the main character's face show this: {text}?",
            "Say in the action's words what mouth, eyes and brows do; show the face larger.",
            _words(registry, "expression", plan.expression),
        )
    if (
        plan.emotion != "neutral"
        and (plan.characters or plan.others)
        and not _says_emotion(plan, registry)
    ):
        yield _Said(
            "emotion",
            "Does the main character look {text}?",
            "Choose the expression that shows it, or say what face and body do.",
            plan.emotion,
        )


def _says_emotion(plan: Plan, registry: Registry) -> bool:
    """Whether the expression says the emotion: it is called so, or has the word among its own.

    Else both are asked about: a change that sets an expression must not end the question that
    failed.
    """
    if plan.expression == NONE:
        return False
    entry = registry.entry("expression", plan.expression)
    texts = _folded([plan.expression, entry.name, *entry.trigger_words])
    return set(_each(normalised(plan.emotion))) <= {word for text in texts for word in _each(text)}


def _place(plan: Plan, registry: Registry) -> Iterator[_Said]:
    """The location in its own words; a background's where there are none, or only its name."""
    text = plan.location
    if plan.background != NONE:
        entry = registry.entry("background", plan.background)
        if not text or normalised(text) in _folded([plan.background, entry.name]):
            text = _words(registry, "background", plan.background)
    text = _slot_or(text, plan.parts.setting)
    if text:
        yield _Said(
            "location",
            "Does the picture show this place: {text}?",
            "Say two or three things that stand there, in the setting's words.",
            text,
        )


def _looks(character: Character, registry: Registry) -> str:
    """What a character looks like: without names, styles, and words of how a picture is made."""
    styles = registry.entries["style"].values()
    left_out = {piece for one in styles for piece in _pieces(one.trigger_words)}
    names = _names(character)
    kept = [
        piece
        for piece in _pieces([character.preset.base_prompt, *character.entry.trigger_words])
        if piece not in left_out
        and not _MAKING.search(piece)
        and not names.issuperset(_each(piece))
    ]
    return ", ".join(kept) or character.entry.description


def _words(registry: Registry, kind: EntryKind, key: str) -> str:
    """What an entry looks like: its trigger words, else what it is called."""
    entry = registry.entry(kind, key)
    return ", ".join(_pieces(entry.trigger_words)) or entry.description or entry.name


def _names(character: Character) -> set[str]:
    """The words of everything that a character may be called."""
    called = _folded([character.id, character.entry.name, character.name])
    return {word for name in called for word in _each(name)}


def _each(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _folded(texts: Iterable[str]) -> list[str]:
    return [normalised(text) for text in texts]


def _pieces(texts: Sequence[str]) -> list[str]:
    """The pieces of prompt text, each once, as they are compared; groups are taken apart."""
    found: dict[str, None] = {}
    for text in texts:
        for group in split_pieces(text):
            for piece in _folded(normalised(group).split(",")):
                # A file that is named in a prompt (embedding:x, <lora:x:1>) looks like nothing.
                if piece and not piece.startswith(("<", "embedding:")):
                    found.setdefault(piece)
    return list(found)


def _distinct(asked: Iterable[Asked]) -> Iterator[Asked]:
    """Each question once; a slot whose name is taken gets a number."""
    slots: set[str] = set()
    questions: set[str] = set()
    for one in asked:
        if one.question in questions:
            continue
        slot, number = one.slot, 2
        while slot in slots:
            slot, number = f"{one.slot} {number}", number + 1
        slots.add(slot)
        questions.add(one.question)
        yield one if slot == one.slot else one.model_copy(update={"slot": slot})
