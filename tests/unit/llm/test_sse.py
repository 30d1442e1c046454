"""Server-sent events: however the bytes are cut, the events are the same, and nothing grows."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animation_studio.llm.sse import EVENT_LIMIT, SseError, SseEvent, SseParser

ENDS = ["\n", "\r\n", "\r"]
# What stands in a line: no line end, and nothing that UTF-8 cannot hold.
TEXTS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
EVENTS = st.lists(
    st.tuples(st.lists(TEXTS, min_size=1, max_size=3), st.sampled_from(["", "error", "ping"])),
    max_size=6,
)


def parsed(pieces: list[bytes]) -> list[SseEvent]:
    parser = SseParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return [*events, *parser.end()]


def cut(body: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({min(place, len(body)) for place in places} | {0, len(body)})
    return [body[start:end] for start, end in pairwise(marks)]


@given(
    EVENTS,
    st.sampled_from(ENDS),
    st.booleans(),
    st.lists(st.integers(0, 500), max_size=30),
    st.sampled_from(["", ": ping", "id: 7", "retry: 3", "unknown: x", "bare"]),
)
def test_events_are_the_same_however_the_bytes_are_cut(
    events: list[tuple[list[str], str]], end: str, space: bool, places: list[int], noise: str
) -> None:
    lines = []
    for texts, name in events:
        lines += [noise] if noise else []
        lines += [f"event: {name}"] if name else []
        # Only one space belongs to the field, so a text that begins with one needs it.
        lines += [f"data: {text}" if space or text[:1] == " " else f"data:{text}" for text in texts]
        lines.append("")
    body = "".join(f"{line}{end}" for line in lines).encode()
    expected = [SseEvent("\n".join(texts), name) for texts, name in events]
    assert parsed([body]) == expected
    assert parsed(cut(body, places)) == expected
    assert parsed([body[i : i + 1] for i in range(len(body))]) == expected


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_any_bytes_are_parsed_the_same_however_they_are_cut(body: bytes, places: list[int]) -> None:
    assert parsed(cut(body, places)) == parsed([body])


def test_the_last_event_needs_no_empty_line() -> None:
    assert parsed([b"data: one\n\ndata: two"]) == [SseEvent("one"), SseEvent("two")]


def test_a_byte_order_mark_is_no_part_of_a_field() -> None:
    assert parsed([b"\xef\xbb\xbfdata: one\n\n"]) == [SseEvent("one")]


def test_comments_and_lines_without_data_are_no_events() -> None:
    assert parsed([b": ping\n\nevent: ping\n\nid: 4\n\n\n\n"]) == []


def test_another_kind_of_body_is_told_from_events() -> None:
    page, stream = SseParser(), SseParser()
    page.feed(b"<html>\n<p>data\n</html>\n")
    stream.feed(b"data")
    assert not page.spoken
    assert not stream.spoken
    stream.feed(b":")
    stream.end()
    assert stream.spoken


@pytest.mark.parametrize(
    "piece",
    [b"x" * 65536, b"data: x" * 9000, b"data: " + b"x" * 60000 + b"\n", b":" + b"x" * 65536],
)
def test_a_line_or_an_event_without_end_is_refused(piece: bytes) -> None:
    parser = SseParser()

    def feed() -> None:
        for _ in range(2 * EVENT_LIMIT // len(piece)):
            parser.feed(piece)

    with pytest.raises(SseError, match="more than"):
        feed()
    assert len(parser._buffer) <= EVENT_LIMIT + len(piece)
