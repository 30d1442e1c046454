"""The cache of parsed LoRAs: keyed by what is on disk, bounded in bytes, safe between threads."""

from __future__ import annotations

import gc
import json
import os
import threading
import weakref

import pytest
import torch
from safetensors.torch import save_file

from animation_studio.errors import LoraError
from animation_studio.lora import AdapterCache, shared_cache

SIZE = (64 * 2 + 2 * 32) * 4


@pytest.fixture
def write(tmp_path):
    def save(name, value=1.0, rank=2):
        path = tmp_path / f"{name}.safetensors"
        module = "lora_unet_mid_block_attentions_0_proj_in"
        state = {
            f"{module}.lora_up.weight": torch.full((64, rank), value),
            f"{module}.lora_down.weight": torch.ones(rank, 32),
        }
        save_file(state, path)
        return path

    return save


def test_the_same_file_is_read_once(write):
    cache, path = AdapterCache(1 << 20), write("luca")
    first = cache.get(path)
    assert cache.get(str(path)) is first
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.evictions) == (1, 1, 0)
    assert (stats.adapters, stats.nbytes, stats.max_bytes) == (1, SIZE, 1 << 20)


def test_a_changed_file_is_read_again_and_the_old_one_forgotten(write):
    cache, path = AdapterCache(1 << 20), write("luca")
    old = cache.get(path)
    write("luca", value=2.0)
    os.utime(path, ns=(1, 1))
    new = cache.get(path)
    up = next(name for name in new.tensors if name.endswith("lora_up.weight"))
    assert [adapter.tensors[up].max() for adapter in (old, new)] == [1.0, 2.0]
    assert cache.stats().adapters == 1
    assert cache.stats().nbytes == SIZE


def test_a_peft_folder_changes_with_its_configuration(tmp_path):
    module = "base_model.model.mid_block.attentions.0.proj_in"
    state = {
        f"{module}.lora_A.weight": torch.ones(2, 4),
        f"{module}.lora_B.weight": torch.ones(4, 2),
    }
    save_file(state, tmp_path / "adapter_model.safetensors")
    cache, alphas = AdapterCache(1 << 20), []
    for index, alpha in enumerate((2, 8)):
        config = tmp_path / "adapter_config.json"
        config.write_text(json.dumps({"r": 2, "lora_alpha": alpha}))
        os.utime(config, ns=(index, index))
        tensors = cache.get(tmp_path).tensors
        alphas.append(tensors["lora_unet_mid_block_attentions_0_proj_in.alpha"].item())
    assert alphas == [2, 8]
    assert cache.stats().misses == 2


def test_the_least_recently_used_goes_first(write):
    cache = AdapterCache(2 * SIZE)
    paths = {name: write(name) for name in "abc"}
    kept = {name: cache.get(paths[name]) for name in "ab"}
    assert cache.get(paths["a"]) is kept["a"]
    cache.get(paths["c"])
    assert cache.stats().evictions == 1
    assert cache.stats().nbytes == 2 * SIZE
    assert cache.get(paths["a"]) is kept["a"]
    assert cache.get(paths["b"]) is not kept["b"]


def test_what_is_dropped_is_freed(write):
    cache = AdapterCache(SIZE)
    dropped = weakref.ref(cache.get(write("a")))
    cache.get(write("b"))
    gc.collect()
    assert dropped() is None


def test_a_file_above_the_bound_is_read_and_not_kept(write):
    cache, small = AdapterCache(SIZE), write("small")
    kept = cache.get(small)
    large = cache.get(write("large", rank=4))
    assert large.nbytes == 2 * SIZE
    assert cache.get(small) is kept
    assert cache.stats().adapters == 1


def test_a_deleted_file_is_an_error_although_it_was_kept(write):
    cache, path = AdapterCache(1 << 20), write("luca")
    cache.get(path)
    path.unlink()
    with pytest.raises(LoraError, match="there is no such LoRA file"):
        cache.get(path)


def test_clear_forgets_everything(write):
    cache, path = AdapterCache(1 << 20), write("luca")
    first = cache.get(path)
    cache.clear()
    assert cache.stats().nbytes == cache.stats().misses == 0
    assert cache.get(path) is not first


def test_threads_get_the_same_adapter(write):
    cache, path = AdapterCache(1 << 20), write("luca")
    found, start = [], threading.Barrier(8)

    def work():
        start.wait()
        found.append(cache.get(path))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert cache.stats().misses == 1


def test_the_shared_cache_is_one_of_2_gib():
    assert shared_cache() is shared_cache()
    assert shared_cache().stats().max_bytes == 2 << 30
