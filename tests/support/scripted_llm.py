"""What a stand-in language model says to Prompt Writer, Judge, Refine and Until Accepted.

    script = ScriptedLlm()
    standin.model.says = script
    script.plan = {...}; script.p_yes = lambda question: 0.9; script.changes = [{...}]
    script.p_seen = lambda question, level: ...  # where it depends on the picture

Whatever is not scripted the stand-in answers itself: a valid random document of the schema.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from animation_studio.llm.plan import Plan
from tests.support.standin_chat import constraints

__all__ = ["BEACH", "ScriptedLlm", "good"]

# A good answer to "Luca running on the beach, excited".
BEACH: dict[str, Any] = {
    "intent": "Luca runs on a beach and is excited",
    "characters": ["luca"],
    "others": [],
    "action": "the boy runs along the beach with his arms wide",
    "emotion": "excited",
    "expression": "excited",
    "location": "beach",
    "background": "none",
    "style": "pixar_3d",
    "time": "late afternoon",
    "light": "golden hour",
    "camera": "wide shot",
    "composition": "he runs towards us",
    "controls": [],
    "lines": [],
    "reasoning": "a wide shot shows the run and the sea",
    "parts": {
        "action": ["running along the beach", "arms wide"],
        "setting": ["sandy beach", "calm sea"],
        "light": ["golden hour"],
        "camera": ["wide shot"],
        "avoid": ["crowd"],
    },
}


class ScriptedLlm:
    """Answers by what is asked; safe to change between runs. `questions` are those of the judge."""

    def __init__(self) -> None:
        self.plan: Mapping[str, Any] | None = BEACH
        self.changes: list[Mapping[str, Any]] = []
        self.p_yes: Callable[[str], float] = good
        # With the mean of the picture's pixels, 0 to 1, in place of `p_yes`.
        self.p_seen: Callable[[str, float], float] | None = None
        self.first_of_two = 0.5
        self.questions: list[str] = []
        self.plans_asked = self.changes_asked = 0

    def __call__(self, body: Mapping[str, Any]) -> Any:
        """Return what is said to a request, None for the stand-in's own answer."""
        held = constraints(body)
        if not held:
            return None
        if held[0].choices:
            return self._choice(body, held[0].choices)
        properties = held[0].schema.get("properties", {})
        if set(properties) == set(Plan.model_fields):
            self.plans_asked += 1
            return None if self.plan is None else json.dumps(self.plan)
        if "reasoning" in properties:
            self.changes_asked += 1
            return self._change(properties) if self.changes else None
        return None

    def _change(self, properties: Mapping[str, Any]) -> str:
        """The scripted change; what else may change is said again as the plan has it."""
        change, plan = self.changes.pop(0), self.plan or BEACH
        parts = {**plan["parts"], **change.get("parts", {})}
        wanted = properties.get("parts", {}).get("properties", {})
        said = {name: change.get(name, plan[name]) for name in properties if name != "parts"}
        return json.dumps({**change, **said, "parts": {name: parts[name] for name in wanted}})

    def _choice(self, body: Mapping[str, Any], choices: tuple[str, ...]) -> Mapping[str, float]:
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        if set(choices) == {"A", "B"}:
            return {"A": self.first_of_two, "B": 1 - self.first_of_two}
        self.questions.append(text)
        p_yes = self.p_seen(text, level_of(content)) if self.p_seen else self.p_yes(text)
        return {"Yes": p_yes, "No": 1 - p_yes}


def level_of(content: Any) -> float:
    """The mean, 0 to 1, of the pixels of a message's first picture."""
    url = next(part["image_url"]["url"] for part in content if part["type"] == "image_url")
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as picture:
        return float(np.asarray(picture.convert("RGB")).mean() / 255)


def good(question: str) -> float:
    """What a picture without faults is answered: yes to the plan, no to defects."""
    return 0.1 if is_defect(question) else 0.9


def is_defect(question: str) -> bool:
    """Whether a question asks for a defect, by the pack's own list of them."""
    from animation_studio.llm.questions import DEFECTS

    return any(text in question for _, text, _ in DEFECTS)
