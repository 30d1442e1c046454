"""The check of JSON and YAML files finds what parsers pass over."""

from __future__ import annotations

import pytest

from scripts.bootstrap.datafiles import faults_of


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("a.json", b'{"a": 1, "a": 2}\n', "key given twice: a"),
        ("a.json", b'{"a": [{"b": 1, "b": 1}]}\n', "key given twice: b"),
        ("a.json", b'{"a": NaN}\n', "NaN is not JSON"),
        ("a.json", b'{"a": 1}', "no newline"),
        ("a.json", b'{"a": 1}\r\n', "CR"),
        ("a.json", b"{\n", "line 2"),
        ("a.json", b'\xef\xbb\xbf{"a": 1}\n', "byte order mark"),
        ("a.json", b'{"a": "\xff"}\n', "not UTF-8"),
        ("a.yaml", b"a:\n  b: 1\n  b: 2\n", "key given twice: b"),
        ("a.yaml", b"a:\n\tb: 1\n", "cannot start any token"),
        ("a.yaml", b"a: !!python/object:os.system {}\n", "constructor"),
    ],
)
def test_faults(tmp_path, name, data, fault):
    path = tmp_path / name
    path.write_bytes(data)
    assert any(fault in found for found in faults_of(path)), faults_of(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", '{"a": [1, {"b": null}]}\n'), ("a.yaml", "a: &x {b: 1}\nc: *x\n")],
)
def test_what_is_right_has_none(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert faults_of(path) == []
