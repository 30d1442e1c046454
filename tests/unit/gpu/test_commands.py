"""Commands of services.yaml: what they print, how they end, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from animation_studio.errors import ServiceError
from animation_studio.gpu.commands import Launched, launch, run_command

IGNORES_TERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);"
    "time.sleep(60)"
)


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


def parent_of(folder: Path, child: str) -> list[str]:
    """A command that starts a child, writes both process ids into the folder and waits."""
    return python(
        "import os, pathlib, subprocess, sys, time;"
        f"child = subprocess.Popen([sys.executable, '-I', '-S', '-c', {child!r}]);"
        f"new = pathlib.Path({str(folder)!r}) / 'new';"
        "new.write_text(f'{os.getpid()} {child.pid}');"
        "new.rename(new.with_name('pids'));"
        "time.sleep(60)"
    )


async def pids_in(folder: Path) -> list[int]:
    while not (folder / "pids").exists():
        await asyncio.sleep(0.01)
    return [int(word) for word in (folder / "pids").read_text().split()]


def is_there(pid: int) -> bool:
    """Whether a process runs, or has ended and was not collected by its parent (a zombie)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def runs(pid: int) -> bool:
    """Whether a process runs; an orphan that has ended is another's to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until_ended(pids: list[int]) -> None:
    """Wait until the first is gone without a trace, and the others, its children, run no more."""
    while is_there(pids[0]) or any(map(runs, pids)):
        await asyncio.sleep(0.01)


def run(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run within ten seconds, so that what hangs fails."""
    asyncio.run(asyncio.wait_for(coroutine, 10))


def test_a_command_that_succeeds_says_nothing() -> None:
    run(run_command(python("print('ready')"), 5, "stop of x"))


def test_a_command_that_fails_is_told_with_its_last_words() -> None:
    code = "import sys; print('port taken'); sys.exit(3)"
    with pytest.raises(ServiceError) as caught:
        run(run_command(python(code), 5, "stop of x"))
    for part in ("stop of x: ", sys.executable, "exit status 3", "port taken", "services.yaml"):
        assert part in str(caught.value)


def test_a_command_killed_by_a_signal_says_which() -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    with pytest.raises(ServiceError, match="signal SIGKILL"):
        run(run_command(python(code), 5, "stop of x"))


def test_arguments_are_not_shown_since_they_may_hold_a_key() -> None:
    arguments = [*python("import sys; sys.exit(1)"), "--api-key", "sk-secret"]
    with pytest.raises(ServiceError) as caught:
        run(run_command(arguments, 5, "stop of x"))
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "not executable", "no program"])
def test_a_command_that_cannot_be_run_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tool"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"\x7fnothing")
        path.chmod(0o755 if kind == "no program" else 0o644)
    with pytest.raises(ServiceError, match=r"stop of x: the command .*tool") as caught:
        run(run_command([str(path), "argument"], 5, "stop of x"))
    assert "services.yaml" in str(caught.value)


def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    words = ["$HOME", "a;b", "`id`", "x y", "*"]
    code = f"import json, sys; open({str(tmp_path / 'out')!r}, 'w').write(repr(sys.argv[1:]))"
    run(run_command([*python(code), *words], 5, "stop of x"))
    assert (tmp_path / "out").read_text() == repr(words)


def test_fifty_megabytes_neither_block_nor_stay() -> None:
    code = (
        "import sys\nfor _ in range(800): sys.stdout.write('x' * 65535 + '\\n')\n"
        "print('the end'); sys.exit(1)"
    )
    with pytest.raises(ServiceError, match="the end") as caught:
        run(run_command(python(code), 9, "stop of x"))
    assert len(str(caught.value)) < 5000


def test_a_command_has_no_input_to_wait_for() -> None:
    run(run_command(python("import sys; sys.exit(len(sys.stdin.read()))"), 5, "stop of x"))


def test_what_a_command_prints_is_shown_without_orders_to_a_terminal() -> None:
    code = (
        r"import sys; sys.stdout.buffer.write(b'\x1b[31mred\x1b[0m \xff\x07 line\r\n'); sys.exit(1)"
    )
    with pytest.raises(ServiceError, match="red") as caught:
        run(run_command(python(code), 5, "stop of x"))
    assert "\x1b" not in str(caught.value)
    assert "\x07" not in str(caught.value)


def test_a_command_that_leaves_a_child_behind_has_ended(tmp_path: Path) -> None:
    """The child holds the pipe open, as a server does that a script starts."""
    child = "import time; time.sleep(60)"
    code = (
        "import subprocess, sys, pathlib;"
        f"child = subprocess.Popen([sys.executable, '-I', '-S', '-c', {child!r}]);"
        f"pathlib.Path({str(tmp_path / 'pids')!r}).write_text(str(child.pid))"
    )

    async def check() -> None:
        await run_command(python(code), 5, "start of x")
        (pid,) = await pids_in(tmp_path)
        assert is_there(pid)
        os.kill(pid, signal.SIGKILL)

    run(check())


@pytest.mark.parametrize("child", ["import time; time.sleep(60)", IGNORES_TERM])
def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path, child: str) -> None:
    async def check() -> None:
        with pytest.raises(ServiceError, match=r"had not ended after 0.6 s and was killed"):
            await run_command(parent_of(tmp_path, child), 0.6, "stop of x")
        await until_ended(await pids_in(tmp_path))

    run(check())


@pytest.mark.parametrize("child", ["import time; time.sleep(60)", IGNORES_TERM])
def test_cancelling_kills_the_command_with_its_children(tmp_path: Path, child: str) -> None:
    async def check() -> None:
        task = asyncio.create_task(run_command(parent_of(tmp_path, child), 60, "stop of x"))
        pids = await pids_in(tmp_path)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_ended(pids)

    run(check())


def test_a_second_cancellation_does_not_save_a_deaf_command(tmp_path: Path) -> None:
    async def check() -> None:
        task = asyncio.create_task(run_command(parent_of(tmp_path, IGNORES_TERM), 60, "stop of x"))
        pids = await pids_in(tmp_path)
        task.cancel()
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_ended(pids)

    run(check())


async def _ended(launched: Launched) -> int | None:
    await launched.wait(5)
    return launched.exit_status


def test_launch_writes_a_log_and_keeps_the_one_before(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "writer.log"

    async def check() -> None:
        for word in ("first", "second", "third"):
            assert await _ended(launch(python(f"print('{word}')"), log, "start of x")) == 0

    run(check())
    assert log.read_text().strip() == "third"
    assert log.with_name("writer.1.log").read_text().strip() == "second"


def test_a_launched_command_tells_its_status_and_its_last_words(tmp_path: Path) -> None:
    async def check() -> None:
        code = "import sys; print('x' * 100_000); print('no GPU'); sys.exit(4)"
        launched = launch(python(code), tmp_path / "x.log", "start of x")
        assert await _ended(launched) == 4
        assert "no GPU" in launched.tail()
        assert str(tmp_path / "x.log") in launched.tail()
        assert len(launched.tail()) < 4500

    run(check())


def test_a_launched_command_that_ends_is_no_zombie(tmp_path: Path) -> None:
    launched = launch(python("pass"), tmp_path / "x.log", "start of x")
    while is_there(launched.pid):  # nobody but its own thread waits for it
        time.sleep(0.01)
    assert launched.exit_status == 0


def test_a_launched_command_leads_a_session_of_its_own(tmp_path: Path) -> None:
    """So that Ctrl-C and the end of a terminal reach ComfyUI alone."""

    async def check() -> None:
        launched = launch(parent_of(tmp_path, "pass"), tmp_path / "x.log", "start of x")
        pids = await pids_in(tmp_path)
        assert os.getsid(launched.pid) == launched.pid
        await launched.end()
        await until_ended(pids)

    run(check())


def test_a_launched_command_outlives_who_launched_it(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; sys.path.append(sys.argv[1])\n"
        "from animation_studio.gpu.commands import launch\n"
        "code = 'import time; time.sleep(60)'\n"
        "log = pathlib.Path(sys.argv[2]) / 'x.log'\n"
        "launched = launch([sys.executable, '-I', '-S', '-c', code], log, 'x')\n"
        "(log.parent / 'new').write_text(str(launched.pid))\n"
        "(log.parent / 'new').rename(log.parent / 'pids')\n"
    )
    root = str(Path(__file__).resolve().parents[3])

    async def check() -> None:
        await run_command([sys.executable, "-c", program, root, str(tmp_path)], 9, "who launches")
        (pid,) = await pids_in(tmp_path)
        assert is_there(pid)
        os.kill(pid, signal.SIGKILL)

    run(check())


@pytest.mark.parametrize("child", ["import time; time.sleep(60)", IGNORES_TERM])
def test_ending_a_launched_command_ends_its_children(tmp_path: Path, child: str) -> None:
    async def check() -> None:
        launched = launch(parent_of(tmp_path, child), tmp_path / "x.log", "start of x")
        pids = await pids_in(tmp_path)
        await launched.end()
        await until_ended(pids)

    run(check())


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file stands here")
    with pytest.raises(ServiceError, match="its log cannot be written"):
        launch(python("pass"), tmp_path / "logs" / "x.log", "start of x")


def test_comfyui_s_allocator_is_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64,backend:cudaMallocAsync")
    out = tmp_path / "out"
    code = f"import os; open({str(out)!r}, 'w').write(os.environ['PYTORCH_CUDA_ALLOC_CONF'])"
    run(run_command(python(code), 5, "start of x"))
    assert out.read_text() == "max_split_size_mb:64"
