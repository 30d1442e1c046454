"""Choices: which one an answer is, and how likely each of them was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animation_studio.llm import structured
from animation_studio.llm.choices import chosen, probabilities
from animation_studio.llm.messages import NoChoice
from tests.support.chats import ask, client_of
from tests.support.standin_kinds import KINDS
from tests.support.standin_parts import Answer
from tests.support.standin_service import StandIn

CHAT = "POST /v1/chat/completions"
LLMS = [kind for kind in KINDS if kind != "gpt_sovits"]
YES_NO = ("Yes", "No")


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    structured._found.clear()


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn("vllm") as standin:
        yield standin


def bodies(server: StandIn) -> list[Any]:
    return [one.body for one in server.log if one.route == CHAT]


@pytest.mark.parametrize("kind", LLMS)
def test_probabilities_are_of_all_tokens_that_begin_a_choice(kind: str) -> None:
    first = {"Yes": 0.3, "Y": 0.2, " yes": 0.1, "No": 0.15, "N": 0.05, "Maybe": 0.2}
    with StandIn(kind, says=[first]) as server:
        answer = ask(client_of(server), choices=YES_NO)
    assert answer.text == "Yes"
    assert answer.probabilities == pytest.approx({"Yes": 0.75, "No": 0.25})


@pytest.mark.parametrize("kind", LLMS)
def test_a_server_without_logprobs_gives_the_choice_alone(kind: str) -> None:
    with StandIn(kind, gives_logprobs=False) as server:
        answer = ask(client_of(server), choices=YES_NO)
    assert answer.text in YES_NO
    assert answer.probabilities is None


def test_without_a_form_the_probabilities_come_from_the_first_word(server: StandIn) -> None:
    server.steer({"model": {"structured": (), "says": [{"Yes": 0.6, "No": 0.2, "The": 0.2}]}})
    answer = ask(client_of(server), choices=YES_NO)
    assert answer.probabilities == pytest.approx({"Yes": 0.75, "No": 0.25})
    assert not answer.enforced


def test_thoughts_before_a_choice_have_no_part_in_its_probability(server: StandIn) -> None:
    server.steer({"model": {"reasoning": "No, no. Yes?", "reasoning_field": ""}})
    server.model.says = [{"Yes": 0.9, "No": 0.1}]
    answer = ask(client_of(server), choices=YES_NO)
    assert answer.probabilities == pytest.approx({"Yes": 0.9, "No": 0.1})


@pytest.mark.parametrize("most", [5, 3, 0])
def test_fewer_logprobs_are_asked_for_where_many_are_refused(server: StandIn, most: int) -> None:
    def says(body: Mapping[str, Any]) -> Any:
        if body.get("top_logprobs", 0) > most:
            said = f"Requested sample logprobs of 20, which is greater than max allowed: {most}"
            return Answer(400, {"error": {"message": said, "code": 400}})
        return {"Yes": 0.9, "No": 0.1}

    server.model.says = says
    client = client_of(server)
    told = [ask(client, choices=YES_NO).probabilities is not None for _ in range(2)]
    assert told == [most >= 5] * 2
    wanted = [body.get("top_logprobs") for body in bodies(server)[1:]]
    assert wanted == ([20, 5, 5] if most >= 5 else [20, 5, None, None])


@pytest.mark.parametrize("text", ["I cannot tell.", "Nothing", "yesterday", "A", "{}"])
def test_an_answer_that_is_no_choice(server: StandIn, text: str) -> None:
    server.steer({"model": {"structured": (), "says": [text]}})
    with pytest.raises(NoChoice) as caught:
        ask(client_of(server), choices=YES_NO)
    assert f'answered neither "Yes" nor "No" but "{text}"' in str(caught.value)
    assert str(caught.value).startswith("Service writer (http://127.0.0.1:")


def test_an_answer_that_was_cut_after_its_first_word_says_enough(server: StandIn) -> None:
    server.steer({"model": {"structured": (), "says": ["No, " + "because " * 100]}})
    assert ask(client_of(server), max_tokens=16, choices=YES_NO).text == "No"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("Yes", "Yes"),
        ("  yes.", "Yes"),
        ("**No**", "No"),
        ('"No", it said', "No"),
        ("YES!", "Yes"),
        ("- No", "No"),
        ("Yesterday", None),
        ("Not at all", None),
        ("I say yes", None),
        ("", None),
        ("!?", None),
    ],
)
def test_the_first_word_is_the_choice(text: str, choice: str | None) -> None:
    assert chosen(text, YES_NO) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [("A", "A"), ("b)", "B"), ("**A**: it fits", "A"), ("A.", "A"), ("A boat is there", None)],
)
def test_a_letter_stands_alone(text: str, choice: str | None) -> None:
    assert chosen(text, ("A", "B")) == choice


def test_a_choice_of_several_words_goes_before_its_beginning() -> None:
    assert chosen("no way, never", ("No", "No way")) == "No way"


def entry(**tokens: float) -> dict[str, Any]:
    top = [{"token": token, "logprob": math.log(share)} for token, share in tokens.items()]
    return {**top[0], "top_logprobs": top}


@pytest.mark.parametrize(
    ("entries", "text", "start"),
    [
        ([entry(Yes=0.6, No=0.2)], "Yes", 0),
        ([entry(Y=0.6, N=0.2), entry(es=1.0)], "Yes", 0),
        ([entry(**{" Yes": 0.6, " No": 0.2})], "Yes", 0),
        ([entry(**{'"Yes': 0.6, '"No': 0.1, ' "No': 0.1})], '"Yes"', 1),
        ([entry(**{'{"a": ': 1.0}), entry(**{'"Y': 0.6, '"N': 0.2})], '{"a": "Yes"}', 7),
        ([entry(**{"**": 1.0}), entry(**{"Yes**": 0.6, "No**": 0.2, "Nobody": 0.2})], "**Yes**", 2),
    ],
)
def test_probabilities_are_read_where_the_choice_begins(
    entries: list[dict[str, Any]], text: str, start: int
) -> None:
    shares = probabilities(entries, text, start, YES_NO)
    assert shares == pytest.approx({"Yes": 0.75, "No": 0.25})


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [{}],
        [{"token": 4}],
        [{"token": "Yes", "logprob": None, "top_logprobs": None}],
        [{"token": "Yes", "logprob": float("nan"), "top_logprobs": [3, {"token": []}]}],
        [{"token": "Yes", "logprob": -9999.0, "top_logprobs": []}],
        [entry(Something=1.0)],
    ],
)
def test_what_is_no_probability_is_none(entries: list[dict[str, Any]]) -> None:
    assert probabilities(entries, "Yes", 0, YES_NO) is None


@pytest.mark.parametrize(
    ("entries", "known"),
    [
        # Told after the mask, as vLLM does: what is not among them cannot come.
        ([entry(Yes=0.9, masked=1e-300)], True),
        # Told before it, as llama.cpp does: "No" is less likely than the last that is told.
        ([entry(Yes=0.9, The=0.05, It=0.001)], True),
        ([entry(Yes=0.5, The=0.3, It=0.2)], False),
        # The token that came is told although it is not among the likeliest.
        ([entry(Yes=0.001, The=0.3, It=0.2)], False),
        ([entry(Yes=0.001, The=0.3, No=0.2)], True),
        ([entry(Yes=0.99)], True),
        ([entry(Yes=0.6)], False),
    ],
)
def test_a_choice_that_is_not_told_may_be_likely_or_not(
    entries: list[dict[str, Any]], known: bool
) -> None:
    assert (probabilities(entries, "Yes", 0, YES_NO) is not None) is known


@given(
    st.dictionaries(st.text(max_size=4), st.floats(allow_nan=True), max_size=6),
    st.text(max_size=6),
    st.integers(-1, 8),
)
def test_probabilities_are_together_one_whatever_a_server_tells(
    tokens: dict[str, float], text: str, start: int
) -> None:
    top = [{"token": token, "logprob": value} for token, value in tokens.items()]
    entries = [{"token": text[:3], "logprob": -1.0, "top_logprobs": top}]
    shares = probabilities(entries, text, start, YES_NO)
    assert shares is None or sum(shares.values()) == pytest.approx(1.0)
