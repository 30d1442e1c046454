"""Saving takes, in this process: batches, links, and a disk that refuses."""

from __future__ import annotations

import json
import resource

import pytest

from animation_studio.errors import ControlError, StudioError


@pytest.fixture
def takes(comfyui_modules, tmp_path, monkeypatch):
    import folder_paths

    from animation_studio.bridge import takes

    output = tmp_path / "output"
    output.mkdir()
    monkeypatch.setattr(folder_paths, "output_directory", str(output))
    return takes


@pytest.fixture
def context(takes):
    prompt = {"1": {"class_type": "AnimStudio_SaveTake", "inputs": {"images": ["2", 0]}}}
    return takes.TakeContext(prompt=prompt, node="1", extra={}, look=None, sampling=None)


def pictures(count, **options):
    import torch

    return torch.rand(count, 16, 24, 3, **options)


def test_a_batch_is_told_apart(takes, context, tmp_path):
    saved = takes.save_takes(pictures(3), "shots/%width%_%batch_num%", context)
    assert [image["subfolder"] for image in saved.images] == ["shots"] * 3
    records = [
        json.loads((tmp_path / "output" / "shots" / record["filename"]).read_text())
        for record in saved.records
    ]
    assert [record["batch_index"] for record in records] == [0, 1, 2]
    assert {record["batch_size"] for record in records} == {3}
    for image, record in zip(saved.images, records, strict=True):
        assert image["filename"] == record["file"]
        assert image["filename"].startswith("24_")
        assert (tmp_path / "output" / "shots" / record["file"]).is_file()
    again = takes.save_takes(pictures(1), "shots/%width%_0", context)
    assert again.images[0]["filename"] not in {record["file"] for record in records}


def test_alpha_and_values_out_of_range_are_taken(takes, context):
    import torch

    image = torch.full((1, 8, 8, 4), 7.0)
    assert takes.save_takes(image, "alpha", context).images


def test_nan_is_refused_in_words(takes, context, tmp_path):
    image = pictures(1)
    image[0, 0, 0, 0] = float("nan")
    with pytest.raises(ControlError, match="NaN"):
        takes.save_takes(image, "nan", context)
    assert not list((tmp_path / "output").iterdir())


def test_a_link_inside_the_output_folder_is_followed(takes, context, tmp_path):
    big_disk = tmp_path / "big disk"
    big_disk.mkdir()
    (tmp_path / "output" / "animation_studio").symlink_to(big_disk)
    takes.save_takes(pictures(1), "animation_studio/take", context)
    assert {path.suffix for path in big_disk.iterdir()} == {".png", ".json"}


def test_a_picture_that_cannot_be_written_takes_its_record_along(takes, context, tmp_path):
    import torch

    # No file may grow beyond 4 kB: the record fits and the picture does not, as on a full disk.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StudioError, match="cannot be saved"):
            takes.save_takes(torch.rand(1, 128, 128, 3), "take", context)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "output").iterdir())
    assert takes.save_takes(pictures(1), "take", context).images
