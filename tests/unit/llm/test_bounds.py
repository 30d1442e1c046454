"""What goes beyond a schema is left out; what is of another type stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from animation_studio.llm.bounds import bounded
from animation_studio.llm.plan import checked_plan, plan_schema
from animation_studio.llm.vocabulary import Vocabulary

SCHEMA = plan_schema(Vocabulary({"character": ("luca",), "emotion": ("neutral",)}))
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=400),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)


def test_a_plan_that_says_too_much_is_cut() -> None:
    data = {
        "characters": ["luca"] * 9,
        "action": "x" * 999,
        "mood": "new",
        "parts": {"action": ["y" * 999] * 9, "sound": ["waves"]},
    }
    plan = checked_plan(bounded(data, SCHEMA), Vocabulary({"character": ("luca",)}))
    assert plan.characters == ["luca"]
    assert plan.action == "x" * 300
    assert plan.parts.action == ["y" * 100] * 6


def test_another_type_stays() -> None:
    assert bounded({"action": 3, "parts": "running"}, SCHEMA) == {"action": 3, "parts": "running"}
    assert bounded([1], SCHEMA) == [1]


@given(st.dictionaries(st.sampled_from([*SCHEMA["properties"], "other"]), ANY))
def test_once_is_enough(data: dict[str, object]) -> None:
    once = bounded(data, SCHEMA)
    assert bounded(once, SCHEMA) == once
