"""Bad input about faces gets a clear message or a verdict of its own, and ComfyUI goes on."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest

from animation_studio.errors import PromptFailedError, PromptRejectedError
from tests.support.face_graphs import (
    LUCA,
    OTHER,
    judged,
    make,
    make_luca,
    node,
    noise,
    put,
    report_of,
    shown,
)


def spoil(folder, kind):
    """Put one bad reference in the place of all of luca's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = folder / "luca_1.npy"
    if kind == "pickled":
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif kind == "zeros":
        np.save(file, np.zeros(128, np.float32))
    elif kind == "shape":
        np.save(file, np.ones((3, 7), np.float32))
    elif kind == "not an array":
        file.write_bytes(b"hello")
    elif kind == "another model":
        np.save(file, np.ones(128, np.float32))
        note = {
            "format": "animation_studio/reference/1",
            "model": {
                "engine": "insightface",
                "name": "buffalo_l/w600k_r50",
                "sha256": "ab" * 32,
                "dimensions": 512,
                "metric": "cosine",
            },
            "npy_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        file.with_suffix(".json").write_text(json.dumps(note))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pickled", "luca_1.npy"),
        ("zeros", "luca_1.npy"),
        ("shape", "luca_1.npy"),
        ("not an array", "luca_1.npy"),
        ("another model", "luca_1"),
        ("none", "Face References"),
    ],
)
def test_bad_references_are_told_before_anything_is_sampled(
    comfyui, face_pictures, references, kind, said
):
    if kind != "none":
        spoil(references / "luca", kind)
    name = put(comfyui, face_pictures, f"only_{kind.replace(' ', '_')}", LUCA)
    with pytest.raises(PromptFailedError, match=said) as caught:
        judged(comfyui, [name])
    assert "AnimStudio_ConsistencyFilter" in str(caught.value) or "filter" in str(caught.value)
    # Lazy: the candidates were not even asked for.
    assert comfyui.run(
        {"pictures": node("PreviewImage", images=["p", 0]), "p": node("LoadImage", image=name)}
    )


def test_odd_pictures_get_verdicts_of_their_own(comfyui, face_pictures, references):
    make_luca(comfyui, face_pictures)
    name = put(comfyui, face_pictures, "luca_flip", LUCA, "flip")
    kinds = ["nan", "grey", "alpha", "tiny", "noise", "crowd"]
    extra = {kind: node("Test_OddPicture", kind=kind, images=["one", 0]) for kind in kinds}
    reports = {}
    for kind in kinds:
        chain = {"one": node("LoadImage", image=name), kind: extra[kind]}
        result = judged(comfyui, [name], chain, images=[kind, 0])
        reports[kind] = report_of(comfyui, result)["pictures"][0]
    assert [kind for kind in kinds if reports[kind]["keep"]] == ["alpha", "crowd"]
    assert reports["nan"]["unreadable"]
    assert "NaN" in reports["nan"]["reason"]
    for kind in ("grey", "tiny", "noise"):
        assert "no face" in reports[kind]["reason"]
        assert reports[kind]["score"] is None
    assert len(reports["crowd"]["faces"]) == 20


def test_unknown_words_are_named(comfyui, face_pictures, references):
    make_luca(comfyui, face_pictures)
    name = put(comfyui, face_pictures, "other", OTHER)
    for inputs, said in (
        ({"score": "median"}, "score is 'median'"),
        ({"which_face": "smallest"}, "which_face is 'smallest'"),
        ({"no_face": "maybe"}, "no_face is 'maybe'"),
        ({"engine": "magic"}, "magic"),
        ({"engine": "clip_vision"}, "clip_vision"),
        ({"engine": "insightface: buffalo_l"}, "insightface"),
        ({"character": "none"}, "no character"),
        ({"character_2": "nobody"}, "nobody"),
    ):
        with pytest.raises(PromptFailedError, match=said):
            judged(comfyui, [name], **inputs)
    with pytest.raises(PromptRejectedError, match="nobody"):
        judged(comfyui, [name], character="nobody")


def test_a_picture_without_a_face_makes_no_reference(comfyui, face_pictures, references):
    with pytest.raises(PromptFailedError, match="no face was found"):
        make(comfyui, [noise(comfyui)])
    assert not references.exists()
    mixed = make(comfyui, [noise(comfyui), put(comfyui, face_pictures, "luca", LUCA)])
    assert "picture 1: no face was found" in shown(mixed, "refs")[1]
    assert len(list((references / "luca").glob("*.npy"))) == 1
