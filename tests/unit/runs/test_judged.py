"""Pictures that were judged are found again, bounded in size, and never half written."""

from __future__ import annotations

import os

import numpy as np
import pytest

from animation_studio.errors import StudioError
from animation_studio.runs.judged import JudgedPictures

RECIPE, OTHER, OLD, NEW = ("a" * 32, "b" * 32, "c" * 32, "d" * 32)


def picture(seed, side=16):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_a_batch_comes_back_as_it_was(tmp_path):
    store = JudgedPictures(tmp_path)
    batch = [picture(seed) for seed in range(12)]
    store.add(RECIPE, 7, batch)
    assert (RECIPE, 7) in store
    for kept, given in zip(store.get(RECIPE, 7), batch, strict=True):
        assert (kept == given).all()


def test_seeds_and_recipes_do_not_mix(tmp_path):
    store = JudgedPictures(tmp_path)
    store.add(RECIPE, 7, [picture(1)])
    for recipe, seed in ((RECIPE, 77), (RECIPE, 70), (OTHER, 7)):
        assert (recipe, seed) not in store
        assert store.get(recipe, seed) is None


@pytest.mark.parametrize("harm", [b"", b"\x89PNG\r\n\x1a\n broken", None])
def test_a_damaged_picture_is_not_judged(tmp_path, harm):
    store = JudgedPictures(tmp_path)
    store.add(RECIPE, 7, [picture(1), picture(2)])
    file = tmp_path / RECIPE / "7_1of2.png"
    if harm is None:
        file.unlink()
    else:
        file.write_bytes(harm)
    assert store.get(RECIPE, 7) is None
    store.forget(RECIPE, 7)
    assert (RECIPE, 7) not in store


def test_a_strangers_file_is_left_alone(tmp_path):
    store = JudgedPictures(tmp_path, limit=1)
    (tmp_path / "notes").mkdir()
    note = tmp_path / "notes" / "mine.png"
    note.write_bytes(b"mine")
    store.add(RECIPE, 1, [picture(1)])
    assert note.read_bytes() == b"mine"


def test_the_oldest_are_forgotten_first(tmp_path):
    store = JudgedPictures(tmp_path, limit=3 * 16 * 16 * 3)
    for seed in range(6):
        recipe = OLD if seed < 3 else NEW
        store.add(recipe, seed, [picture(seed)])
        os.utime(tmp_path / recipe / f"{seed}_0of1.png", (seed, seed))
    store.add(NEW, 6, [picture(6)])
    left = [seed for recipe in (OLD, NEW) for seed in range(7) if (recipe, seed) in store]
    assert left == list(range(left[0], 7))
    assert 0 < left[0] < 6


def test_what_a_run_may_still_need_is_not_forgotten(tmp_path):
    store = JudgedPictures(tmp_path, limit=1)
    for seed in range(3):
        store.add(RECIPE, seed, [picture(seed)])
    assert all((RECIPE, seed) in store for seed in range(3))


def test_a_disk_that_takes_nothing_loses_nothing_of_the_run(tmp_path):
    store = JudgedPictures(tmp_path)
    (tmp_path / RECIPE).write_text("in the way")
    for seed in range(70):
        store.add(RECIPE, seed, [picture(seed)])
    assert "cannot be written" in store.problem
    assert (store.get(RECIPE, 69)[0] == picture(69)).all()
    assert (RECIPE, 0) not in store
    (tmp_path / RECIPE).unlink()
    store.add(RECIPE, 70, [picture(70)])
    assert store.problem == ""


@pytest.mark.parametrize(
    "recipe", ["", "..", "../" + "a" * 29, "A" * 32, "a" * 33, "a" * 32 + "\n"]
)
def test_a_recipe_is_no_path(tmp_path, recipe):
    store = JudgedPictures(tmp_path / "judged")
    with pytest.raises(StudioError, match="32 hexadecimal"):
        store.add(recipe, 1, [picture(1)])
    with pytest.raises(StudioError):
        store.get(recipe, 1)
    assert not list(tmp_path.rglob("*.png"))
