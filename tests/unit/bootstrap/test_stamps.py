"""A stamp says what a folder was made from; a damaged one says nothing."""

from __future__ import annotations

import pytest

from scripts.bootstrap.stamps import (
    NAME,
    differences,
    digest_of_text,
    read_stamp,
    remove_stamp,
    write_stamp,
)


def test_what_was_written_is_read(tmp_path):
    write_stamp(tmp_path, {"python": "3.11", "torch": ["torch==2.7.0"]})
    assert read_stamp(tmp_path) == {"python": "3.11", "torch": ["torch==2.7.0"]}
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("content", [b"", b'{"python": "3.', b"[]", b"\xff\xfe\x00"])
def test_a_damaged_stamp_counts_as_none(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    assert read_stamp(tmp_path) == {}


def test_a_folder_that_is_not_there_has_no_stamp(tmp_path):
    assert read_stamp(tmp_path / "env") == {}
    assert differences({}, {"python": "3.11"}) == ["python"]


def test_other_inputs_are_named():
    stamp = {"python": "3.11", "requirements": "a", "packages": ["x"]}
    assert differences(stamp, {"python": "3.11", "requirements": "a"}) == []
    assert differences(stamp, {"python": "3.12", "requirements": "b"}) == ["python", "requirements"]


def test_removing_is_safe_to_repeat(tmp_path):
    write_stamp(tmp_path, {"a": 1})
    remove_stamp(tmp_path)
    remove_stamp(tmp_path)
    assert read_stamp(tmp_path) == {}


def test_line_ends_do_not_change_a_digest():
    assert digest_of_text("a\r\nb\r\n") == digest_of_text("a\nb\n") != digest_of_text("a\nc\n")
