"""Files are written whole or not at all, and read only up to a size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from animation_studio.errors import StudioError
from animation_studio.files import read_limited, sha256_of, write_atomically

ROOT = Path(__file__).parents[2]


def test_a_file_is_written_with_its_folders_and_an_ordinary_mode(tmp_path):
    path = tmp_path / "a" / "b" / "record.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode == plain.stat().st_mode
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


# The kernel refuses the 4097th byte, as a full disk would.
WRITE_TOO_MUCH = """
import resource, signal, sys
from pathlib import Path
from animation_studio.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_atomically(Path(sys.argv[1]), b"new" * 4096)
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize("existing", [True, False])
def test_a_write_that_fails_half_way_leaves_what_was_there(tmp_path, existing):
    path = tmp_path / "record.json"
    if existing:
        path.write_bytes(b"old")
    result = subprocess.run(
        [sys.executable, "-c", WRITE_TOO_MUCH, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "File too large\n"
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == (
        [("record.json", b"old")] if existing else []
    )


def test_a_folder_in_the_files_place_is_kept_and_nothing_is_left_over(tmp_path):
    (tmp_path / "record.json").mkdir()
    with pytest.raises(OSError, match=r"record\.json"):
        write_atomically(tmp_path / "record.json", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]
    assert (tmp_path / "record.json").is_dir()


def test_reading_stops_at_the_limit(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_bytes(b"12345")
    assert read_limited(path, 5, "configuration file") == b"12345"
    with pytest.raises(StudioError, match="configuration file has 5 bytes; at most 4") as error:
        read_limited(path, 4, "configuration file")
    assert str(path) in str(error.value)


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(StudioError, match="this is not a file"):
            read_limited(path, 10, "pose")
    with pytest.raises(FileNotFoundError):
        read_limited(tmp_path / "nothing", 10, "pose")


def test_a_file_whose_size_says_less_than_it_holds_is_not_cut_short():
    """Files of /proc say 0 bytes and hold some, as a file does that grows while it is read."""
    assert len(read_limited(Path("/proc/self/status"), 1 << 20, "status")) > 100
    with pytest.raises(StudioError, match="at most 10 are read"):
        read_limited(Path("/proc/self/status"), 10, "status")


def test_the_hash_of_a_file_larger_than_one_piece(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"a" * (1 << 20) + b"b")
    expected = subprocess.run(
        ["sha256sum", str(path)], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert sha256_of(path) == expected
