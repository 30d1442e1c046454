"""Text is read as a file of its name would be."""

import pytest

from animation_studio.registry.yaml_source import read_yaml, read_yaml_text

TEXTS = [
    "a: 1\nb: {c: [x, yes]}\n",
    "\ufeffa: 16:9",
    "a: 1\na: 2",
    "a: [",
    "- a",
    "a: \x00",
    "",
    "a:\n\tb: 1",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_and_file_say_the_same(tmp_path, text):
    file = tmp_path / "some.yaml"
    file.write_bytes(text.encode())
    assert read_yaml_text(text, str(file)) == read_yaml(file)


def test_text_has_a_bound_of_its_own():
    source = read_yaml_text("a" * (4 * 2**20 + 1), "plan")
    assert not source.readable
    assert "4,194,304" in str(source.problems[0])
