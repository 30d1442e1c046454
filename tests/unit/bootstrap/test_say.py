"""What a user can meet is one sentence and an exit status."""

from __future__ import annotations

import errno

import pytest

from scripts.bootstrap.say import Problem, guarded, plural_list


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (Problem("Port 1 is in use."), 1, "Port 1 is in use."),
        (OSError(errno.ENOSPC, "No space left", "/x/y"), 1, "The disk is full: /x/y"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "/x: permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), 1, "/x: No such file"),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_errors_are_sentences(capsys, error, status, words):
    def work():
        raise error

    assert guarded(work) == status
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_the_status_of_the_work_is_kept():
    assert guarded(lambda: 3) == 3


def test_lists_are_bounded():
    assert plural_list([]) == "nothing"
    assert plural_list(["a", "b"]) == "a, b"
    assert plural_list(list("abcde"), most=2) == "a, b and 3 more"
