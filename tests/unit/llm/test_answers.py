"""Answers are kept, damaged ones are none, and the folder does not grow."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from animation_studio.llm.answers import Answers, digest_of


def test_an_answer_comes_back(tmp_path: Path) -> None:
    digest = digest_of("who", {"seed": 1})
    assert Answers(tmp_path / "new").get(digest) is None
    assert Answers(tmp_path / "new").put(digest, {"text": "日本 \ud800"}) == ""
    assert Answers(tmp_path / "new").get(digest) == {"text": "日本 \ud800"}


def test_digests_tell_parts_apart() -> None:
    digests = [digest_of("a", "b"), digest_of("ab"), digest_of("a"), digest_of("a", None)]
    assert len(set(digests)) == len(digests)
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        b"[]",
        b'{"format": "animation_studio/answer/1", "digest": "other", "answer": {}}',
        b'{"format": "another", "digest": "DIGEST", "answer": {}}',
        b'{"format": "animation_studio/answer/1", "digest": "DIGEST", "answer": 3}',
        b" " * (2 << 20),
    ],
)
def test_a_damaged_file_is_no_answer(tmp_path: Path, content: bytes) -> None:
    digest = digest_of("x")
    (tmp_path / f"{digest}.json").write_bytes(content.replace(b"DIGEST", digest.encode()))
    assert Answers(tmp_path).get(digest) is None
    assert Answers(tmp_path).put(digest, {"text": "new"}) == ""
    assert Answers(tmp_path).get(digest) == {"text": "new"}


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    answers = Answers(tmp_path, limit=3)
    digests = [digest_of(number) for number in range(5)]
    for number, digest in enumerate(digests):
        answers.put(digest, {"number": number})
        os.utime(tmp_path / f"{digest}.json", (number + 1, number + 1))
    answers.put(digests[0], {"number": 0})
    there = [number for number, digest in enumerate(digests) if answers.get(digest)]
    assert there == [0, 3, 4]


def test_what_cannot_be_kept_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = Answers(tmp_path / "file").put(digest_of("x"), {})
    assert "file cannot be written" in said
    assert json.dumps(said)
