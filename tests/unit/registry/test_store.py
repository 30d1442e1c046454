"""Edits are seen without restart, and nothing is read again without an edit."""

import os
import threading
from pathlib import Path

from animation_studio.registry import RegistryStore, SamplerVocabulary

ENTRY = "characters: {{luca: {{name: {}}}}}"


def test_nothing_is_read_again_while_nothing_changed(write):
    store = RegistryStore([write(lora_registry=ENTRY.format("A"))])
    assert store.current() is store.current()


def test_an_edit_of_the_same_size_is_seen(write):
    folder = write(lora_registry=ENTRY.format("A"))
    file = folder / "lora_registry.yaml"
    store = RegistryStore([folder])
    first = store.current()
    before = file.stat()
    file.write_text(ENTRY.format("B"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert store.current().character("luca").name == "B"
    assert first.character("luca").name == "A", "a registry in use does not change"


def test_a_file_put_in_place_with_the_old_time_and_size_is_seen(write, tmp_path):
    folder = write(lora_registry=ENTRY.format("A"))
    file = folder / "lora_registry.yaml"
    store = RegistryStore([folder])
    store.current()
    before = file.stat()
    other = tmp_path / "other.yaml"
    other.write_text(ENTRY.format("B"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert store.current().character("luca").name == "B"


def test_files_that_come_go_and_break_are_seen(write):
    base = write("base", lora_registry=ENTRY.format("Base"))
    user = Path(base).parent / "user"
    store = RegistryStore([base, user])
    assert store.current().character("luca").name == "Base"
    file = write("user", lora_registry=ENTRY.format("User")) / "lora_registry.yaml"
    assert store.current().character("luca").name == "User"
    file.write_text("characters:\n\t- broken")
    assert set(store.current().unreadable) == {"lora_registry.yaml"}
    file.unlink()
    assert store.current().character("luca").name == "Base"
    assert store.current().problems == ()


def test_threads_see_whole_registries_while_files_are_replaced(write, tmp_path):
    """Both files are always replaced by whole ones, so no thread may ever see a problem."""
    folder = write(lora_registry=ENTRY.format("V0"), character_presets="luca: {}")
    store = RegistryStore([folder])
    done = threading.Event()
    seen: list[set[str]] = []
    faults: list[object] = []

    def read() -> None:
        names = set()
        while not done.is_set():
            registry = store.current()
            names.add(registry.character("luca").name)
            faults.extend(registry.problems)
        seen.append(names)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for version in range(1, 60):
        new = tmp_path / "new.yaml"
        new.write_text(ENTRY.format(f"V{version}"))
        new.replace(folder / "lora_registry.yaml")
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(seen) == 6, "a thread died"
    assert set.union(*seen) <= {f"V{version}" for version in range(60)}
    assert store.current().character("luca").name == "V59"


def test_samplers_that_come_later_are_known_at_once(tmp_path):
    (tmp_path / "sdxl_config.yaml").write_text("generation: {scheduler: res_2s/beta57}")
    known = SamplerVocabulary(samplers=["euler"], schedulers=["normal"])
    store = RegistryStore([tmp_path], known)
    assert store.current().problems
    known.samplers.append("res_2s")
    known.schedulers.append("beta57")
    assert not store.current().problems
    assert store.current().defaults.scheduler == "res_2s/beta57"
