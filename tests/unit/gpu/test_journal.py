"""The journal of what is paused survives crashes, damage and other versions."""

import json
import logging
import os
import subprocess
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest

from animation_studio.errors import GpuError
from animation_studio.gpu.journal import Holder, Journal, JournalState, Pause, alive

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 11, 21, 17, 0, tzinfo=timezone.utc)


def pause(service="qwen_vl", **changes):
    values = {
        "service": service,
        "how": "sleep",
        "level": 1,
        "phase": "paused",
        "until": "prompt_end",
        "freed": 12 << 30,
        "since": NOW,
        "pid": os.getpid(),
        "holder": "prompt 1",
    }
    return Pause(**(values | changes))


def test_what_is_put_is_read_by_another(tmp_path):
    journal = Journal(tmp_path / "state")
    assert journal.read() == JournalState()
    holder = Holder.of_this_process("prompt 1", "image")
    journal.set_holder(holder)
    journal.put(pause())
    journal.put(pause("qwen", how="stop", level=0))
    journal.put(pause(phase="resuming", note="out of memory"))
    state = Journal(tmp_path / "state").read()
    assert state.holder == holder
    assert state.paused == [
        pause(phase="resuming", note="out of memory"),
        pause("qwen", how="stop", level=0),
    ]
    journal.remove("qwen_vl")
    journal.remove("nobody")
    journal.set_holder(None)
    assert Journal(tmp_path / "state").read() == JournalState(
        paused=[pause("qwen", how="stop", level=0)]
    )
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["gpu_journal.json"]


def test_the_file_is_for_people_and_other_versions_too(tmp_path):
    journal = Journal(tmp_path)
    journal.put(pause())
    content = json.loads(journal.path.read_bytes())
    assert content["format"] == "animation_studio/gpu_journal/1"
    assert content["paused"][0]["since"] == "2026-11-21T17:00:00Z"
    content["added_later"] = content["paused"][0]["added_later"] = 1
    journal.path.write_text(json.dumps(content))
    assert journal.read().paused == [pause()]
    assert not journal.problem


DAMAGED = {
    "empty": b"",
    "cut": b'{"format": "animation_studio/gpu_journal/1", "paused": [{"service": "qw',
    "zeros": bytes(512),
    "another form": b"[1, 2]",
    "not ours": b'{"format": "something", "paused": []}',
    "no number": b'{"format": "animation_studio/gpu_journal/-1", "paused": []}',
    "wrong values": b'{"format": "animation_studio/gpu_journal/1", "paused": [{"service": 3}]}',
    "deep": b"[" * 200_000,
    "large": b" " * ((1 << 20) + 1),
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_reads_as_empty_and_is_kept_aside(tmp_path, caplog, data):
    journal = Journal(tmp_path)
    journal.path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert journal.read() == JournalState()
        assert journal.read() == JournalState()
    assert str(journal.path) in journal.problem
    assert [record.getMessage() for record in caplog.records] == [journal.problem]
    assert journal.path.read_bytes() == data

    journal.put(pause())
    assert (tmp_path / "gpu_journal.damaged-1.json").read_bytes() == data
    assert journal.read().paused == [pause()]
    assert "gpu_journal.damaged-1.json" in journal.problem


def test_a_folder_in_its_place_is_moved_aside_too(tmp_path):
    journal = Journal(tmp_path)
    journal.path.mkdir()
    assert journal.read() == JournalState()
    journal.put(pause())
    assert (tmp_path / "gpu_journal.damaged-1.json").is_dir()
    assert journal.read().paused == [pause()]


def test_of_damaged_files_the_last_three_are_kept(tmp_path):
    journal = Journal(tmp_path)
    for number in range(5):
        journal.path.write_text(f"damage {number}")
        journal.put(pause())
        newest = max(tmp_path.glob("*damaged*"), key=lambda path: path.read_text())
        os.utime(newest, (number, number))
    kept = {path.read_text() for path in tmp_path.glob("gpu_journal.damaged-*.json")}
    assert kept == {"damage 2", "damage 3", "damage 4"}


def test_a_later_versions_file_is_left_alone(tmp_path):
    journal = Journal(tmp_path)
    data = b'{"format": "animation_studio/gpu_journal/2", "paused": {"other": "form"}}'
    journal.path.write_bytes(data)
    assert journal.read() == JournalState()
    assert "later version" in journal.problem
    for write in (
        lambda: journal.put(pause()),
        lambda: journal.remove("qwen_vl"),
        lambda: journal.set_holder(None),
    ):
        with pytest.raises(GpuError, match="later version"):
            write()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        ("gpu_journal.json", data)
    ]
    journal.path.unlink()
    journal.put(pause())
    assert not journal.problem


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    journal = Journal(tmp_path / "file")
    with pytest.raises(GpuError, match=r"gpu\.state_folder in services\.yaml"):
        journal.put(pause())


def test_threads_lose_nothing_of_each_other(tmp_path):
    journal = Journal(tmp_path)

    def put(number):
        for _ in range(5):
            journal.put(pause(f"service {number}"))

    threads = [threading.Thread(target=put, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.service for entry in journal.read().paused} == {
        f"service {number}" for number in range(6)
    }


KILLED = """
import itertools, sys
from datetime import datetime, timezone
from pathlib import Path
from animation_studio.gpu.journal import Journal, Pause
journal = Journal(Path(sys.argv[1]))
print(flush=True)
for number in itertools.count():
    journal.put(Pause(service="a", how="sleep", level=1, phase="paused", until="prompt_end",
        freed=number, since=datetime.now(timezone.utc), pid=1, holder="x" * 5000))
"""


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path):
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            journal = Journal(tmp_path)
            while not journal.read().paused:
                pass
            writer.kill()
        assert journal.read().paused[0].service == "a"
        assert not journal.problem


def test_alive_knows_its_own_process_and_one_that_ended():
    holder = Holder.of_this_process("prompt 1", "image")
    assert alive(holder)
    # The number of a process that ended, taken again by a later one.
    assert not alive(holder.model_copy(update={"started": holder.started - 100}))
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as child:
        other = holder.model_copy(update={"pid": child.pid, "started": 0.0})
        assert alive(other)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not alive(other)  # ended, and not collected yet
    assert not alive(other)
    assert not alive(holder.model_copy(update={"pid": 0}))
