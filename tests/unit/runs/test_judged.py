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
    assert store.seeds(RECIPE) == {7}
    for kept, given in zip(store.get(RECIPE, 7), batch, strict=True):
        assert (kept == given).all()


def test_seeds_and_recipes_do_not_mix(tmp_path):
    store = JudgedPictures(tmp_path)
    store.add(RECIPE, 7, [picture(1)])
    assert store.seeds(OTHER) == set()
    for recipe, seed in ((RECIPE, 77), (RECIPE, 70), (OTHER, 7)):
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
    assert store.seeds(RECIPE) == set()


def test_a_strangers_file_is_left_alone(tmp_path):
    store = JudgedPictures(tmp_path, limit=1)
    (tmp_path / "notes").mkdir()
    note = tmp_path / "notes" / "mine.png"
    note.write_bytes(b"mine")
    store.add(RECIPE, 1, [picture(1)])
    assert note.read_bytes() == b"mine"


def test_what_could_not_be_read_is_judged_too(tmp_path):
    store = JudgedPictures(tmp_path)
    store.add(RECIPE, 7, [picture(1), "the picture holds NaN"])
    first, second = JudgedPictures(tmp_path).get(RECIPE, 7)
    assert (first == picture(1)).all()
    assert second == "the picture holds NaN"


SIZE = 16 * 16 * 3


def test_the_oldest_are_forgotten_first(tmp_path):
    store = JudgedPictures(tmp_path, limit=3 * SIZE)
    for seed in range(6):
        recipe = OLD if seed < 3 else NEW
        store.add(recipe, seed, [picture(seed)])
        os.utime(tmp_path / recipe / f"{seed}_0of1.png", (seed, seed))
    store.add(NEW, 6, [picture(6)])
    left = sorted(store.seeds(OLD) | store.seeds(NEW))
    assert left == list(range(left[0], 7))
    assert 0 < left[0] < 6


def test_what_a_run_needs_stays_but_not_for_ever(tmp_path):
    store = JudgedPictures(tmp_path, limit=2 * SIZE)
    for seed in range(4):
        store.add(RECIPE, seed, [picture(seed)], needed=range(seed))
    assert store.seeds(RECIPE) == {0, 1, 2, 3}
    for seed in range(4, 30):
        store.add(RECIPE, seed, [picture(seed)], needed=range(seed))
    assert 0 not in store.seeds(RECIPE)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.png")) <= 8 * SIZE


def test_what_is_not_to_last_stays_off_the_disk_and_within_bounds(tmp_path):
    store = JudgedPictures(tmp_path, limit=3 * SIZE)
    for seed in range(9):
        store.add(RECIPE, seed, [picture(seed)], lasting=False)
    assert store.seeds(RECIPE) == {6, 7, 8}
    assert (store.get(RECIPE, 8)[0] == picture(8)).all()
    assert not list(tmp_path.rglob("*.png"))


def test_a_disk_that_takes_nothing_loses_nothing_of_the_run(tmp_path):
    store = JudgedPictures(tmp_path)
    (tmp_path / RECIPE).write_text("in the way")
    store.add(RECIPE, 69, [picture(69)])
    assert "cannot be written" in store.problem
    assert (store.get(RECIPE, 69)[0] == picture(69)).all()
    (tmp_path / RECIPE).unlink()
    store.add(RECIPE, 70, [picture(70)])
    assert store.problem == ""
    assert store.seeds(RECIPE) == {69, 70}


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
