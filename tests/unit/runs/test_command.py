import io

import pytest

from animation_studio.errors import ServerUnreachableError
from animation_studio.runs.client import ComfyClient
from animation_studio.runs.command import ProgressLines, main
from animation_studio.runs.messages import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


STEPS = [
    Progress(None, None, 0, 0, "queued"),
    Progress("5", "KSampler", 0, 0, "running"),
    Progress("5", "KSampler", 1, 2, "step"),
    Progress("5", "KSampler", 2, 2, "step"),
    Progress("7", "SaveImage", 0, 0, "running"),
]


def written(stream):
    lines = ProgressLines(stream)
    for step in STEPS:
        lines(step)
    lines.close()
    return stream.getvalue()


def test_a_log_gets_one_line_for_each_step():
    assert written(io.StringIO()) == (
        "  queued\n  5 KSampler\n  5 KSampler: 1/2\n  5 KSampler: 2/2\n  7 SaveImage\n"
    )


def test_in_a_terminal_steps_share_a_line():
    assert written(Terminal()) == (
        "  queued\n  5 KSampler\n  5 KSampler: 1/2\r  5 KSampler: 2/2\n  7 SaveImage\n"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("{", "is not JSON"),
        ("[]", "holds no JSON object"),
        ('{"nodes": [], "links": []}', "workflows/api/"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, capsys, content, said):
    file = tmp_path / "prompt.json"
    if content is not None:
        file.write_text(content)
    assert main([str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:8188", "http://127.0.0.1:8188"),
        ("http://studio:8188/", "http://studio:8188"),
        ("https://studio/comfy/", "https://studio/comfy"),
    ],
)
def test_addresses_are_taken_as_people_write_them(address, url):
    assert ComfyClient(address).address == url


@pytest.mark.parametrize("address", ["ftp://studio", "http://", "unix:///tmp/x"])
def test_other_addresses_are_refused(address):
    with pytest.raises(ServerUnreachableError, match="write it like"):
        ComfyClient(address)
