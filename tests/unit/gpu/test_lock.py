"""One process at a time has the GPU, and its death gives it back."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from animation_studio.errors import GpuError
from animation_studio.gpu.lock import GpuLock

ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from pathlib import Path
from animation_studio.gpu.lock import GpuLock
lock = GpuLock(Path(sys.argv[1]))
print(lock.try_acquire(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the lock of tmp_path."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_one_holder_at_a_time(tmp_path):
    first, second = GpuLock(tmp_path / "a" / "b"), GpuLock(tmp_path / "a" / "b")
    assert not first.held
    assert first.try_acquire()
    assert first.try_acquire()
    assert first.held
    assert not second.try_acquire()
    assert not second.held
    first.release()
    assert not first.held
    assert second.try_acquire()
    second.release()
    second.release()
    assert not second.held


def test_another_process_has_it_until_it_ends(tmp_path, holder):
    lock = GpuLock(tmp_path)
    assert not lock.try_acquire()
    holder.stdin.close()
    holder.wait(10)
    assert lock.try_acquire()
    lock.release()


def test_a_killed_holder_leaves_no_lock(tmp_path, holder):
    lock = GpuLock(tmp_path)
    assert not lock.try_acquire()
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    assert lock.try_acquire()
    lock.release()


def test_a_program_started_meanwhile_does_not_keep_it(tmp_path):
    """Also one that is given every file that may be inherited, as a careless pack does."""
    lock, other = GpuLock(tmp_path), GpuLock(tmp_path)
    assert lock.try_acquire()
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    ) as child:
        child.stdout.readline()
        lock.release()
        assert other.try_acquire()
        other.release()


def test_taken_on_one_thread_and_released_on_another(tmp_path):
    lock, other = GpuLock(tmp_path), GpuLock(tmp_path)
    taker = threading.Thread(target=lock.try_acquire)
    taker.start()
    taker.join()
    assert lock.held
    assert not other.try_acquire()
    lock.release()
    assert other.try_acquire()
    other.release()


def test_many_threads_of_many_locks_never_hold_it_together(tmp_path):
    holders, worst, rounds = [], [], []

    def take(lock):
        for _ in range(200):
            if lock.try_acquire():
                holders.append(lock)
                worst.append(len(holders))
                holders.remove(lock)
                rounds.append(1)
                lock.release()

    locks = [GpuLock(tmp_path) for _ in range(4)]
    threads = [threading.Thread(target=take, args=[lock]) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(worst) == 1
    assert rounds


FORK = """
import os, sys
from pathlib import Path
from animation_studio.gpu.lock import GpuLock
lock = GpuLock(Path(sys.argv[1]))
assert lock.try_acquire()
if os.fork() == 0:
    print("child", lock.held)
    lock.release()
    print("child", lock.try_acquire(), flush=True)
    os._exit(0)
os.wait()
print("parent", lock.held, GpuLock(Path(sys.argv[1])).try_acquire())
"""


def test_a_fork_neither_has_nor_gives_back_its_parents_lock(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == ["child False", "child False", "parent True False"]


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    lock = GpuLock(tmp_path / "file" / "state")
    with pytest.raises(GpuError) as caught:
        lock.try_acquire()
    assert str(lock.path) in str(caught.value)
    assert "gpu.state_folder in services.yaml" in str(caught.value)
    assert not lock.held


# flock(2) as file systems answer it that have no locks.
REFUSING = """
#include <errno.h>
int flock(int file, int operation) { errno = %s; return -1; }
"""
TRY = """
import sys
from pathlib import Path
from animation_studio.errors import GpuError
from animation_studio.gpu.lock import GpuLock
try:
    print(GpuLock(Path(sys.argv[1])).try_acquire())
except GpuError as error:
    print(error)
"""


@pytest.mark.parametrize("number", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_told_apart_from_another_holder(tmp_path, number):
    library = tmp_path / "refusing.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-o", library, "-"],
        input=REFUSING % number,
        text=True,
        check=True,
    )
    result = subprocess.run(
        [sys.executable, "-c", TRY, str(tmp_path / "state")],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be used: " in result.stdout
    assert "gpu.state_folder" in result.stdout


def test_a_lock_that_nobody_holds_any_more_is_given_back(tmp_path):
    lock, other = GpuLock(tmp_path), GpuLock(tmp_path)
    assert lock.try_acquire()
    del lock
    assert other.try_acquire()
    other.release()
