"""Answers that have to be JSON: found in what models write around it, and repaired once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animation_studio.llm.checked import json_object

OBJECTS = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=8,
    ),
)
# Prose as models write it: no braces, since an object of its own would be another answer.
PROSE = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), max_size=40)


@given(OBJECTS, PROSE, PROSE, st.sampled_from(["{}", "```json\n{}\n```", "```\n{}```", " {} "]))
def test_the_object_is_found_in_whatever_stands_around_it(
    data: dict[str, object], before: str, after: str, form: str
):
    text = json.dumps(data, ensure_ascii=False)
    assert json_object(before + form.replace("{}", text) + after) == data


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('Here {name} is: {"a": 1}', {"a": 1}),
        ('<think>{"long": "draft of it"}</think>{"a": 1}', {"a": 1}),
        ('thoughts whose beginning the server kept</think>\n{"a": 1}', {"a": 1}),
        ('{"a": "</think>"}', {"a": "</think>"}),
        ('{"a": 1} or rather {"a": 2, "b": 3}', {"a": 2, "b": 3}),
        ('{"a": {"b": {}}}', {"a": {"b": {}}}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
    ],
)
def test_of_several_the_answer(text: str, data: object):
    assert json_object(text) == data


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the answer is empty"),
        (" \n" * 500_000, "the answer is empty"),
        ("I would rather not.", "the answer holds no JSON object"),
        ("[1, 2]", "the answer holds no JSON object"),
        ('{"a": {"b": 1}, "c": ', "the JSON breaks at character 22"),
        ('{"a": "half of', "the JSON breaks at character 7"),
        ('{"a": "half of {}', "the JSON breaks at character 7"),
        ("{" * 1_000_000, "the JSON breaks at character 2"),
        ('{"{' * 300_000, "the JSON breaks"),
        ('{"a":' * 200_000, "without end"),
        ('{"a": ' + "9" * 5000 + "}", "without end"),
    ],
)
def test_what_is_no_object_is_told(text: str, said: str):
    with pytest.raises(ValueError, match=said):
        json_object(text)


@given(OBJECTS.filter(lambda data: len(data) > 0), st.data())
def test_half_an_object_is_none(data: dict[str, object], draw: st.DataObject):
    text = json.dumps(data)
    cut = draw.draw(st.integers(1, len(text) - 1))
    with pytest.raises(ValueError, match="JSON breaks"):
        json_object(text[:cut])
