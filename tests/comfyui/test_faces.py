"""References, filter and calibration in a running ComfyUI, with dlib and real faces."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from animation_studio.errors import PromptFailedError
from tests.support.face_graphs import (
    LUCA,
    OTHER,
    THIRD,
    fields,
    files,
    judged,
    make,
    make_luca,
    node,
    noise,
    put,
    report_of,
    shown,
)
from tests.support.pictures import pixels, saved

SCHEMA = Path(__file__).parents[2] / "web" / "schemas" / "consistency_report-1.schema.json"


def test_references_are_saved_shown_and_not_twice(comfyui, face_pictures, references):
    result = make_luca(comfyui, face_pictures)
    lines, warnings = shown(result, "refs")
    assert warnings == []
    assert "5 references" in lines[0]
    assert len(result.outputs["refs"]["images"]) == 5
    saved_files = sorted((references / "luca").iterdir())
    assert [file.name for file in saved_files] == sorted(
        f"luca_{number}.{suffix}" for number in range(1, 6) for suffix in ("npy", "json", "png")
    )
    vector = np.load(references / "luca" / "luca_1.npy", allow_pickle=False)
    assert vector.shape == (128,)
    note = json.loads((references / "luca" / "luca_1.json").read_text())
    assert note["model"]["engine"] == "dlib"

    # The same faces from another graph add nothing.
    again = make(comfyui, ["luca_jpeg.png", "luca_crop.png"], which_face="leftmost")
    assert sorted((references / "luca").iterdir()) == saved_files
    assert "there already" in "".join(shown(again, "refs")[0])


def test_deleted_references_are_made_anew(comfyui, face_pictures, references):
    make_luca(comfyui, face_pictures)
    (references / "luca" / "luca_2.npy").unlink()
    again = make_luca(comfyui, face_pictures)
    assert "saved luca_6.npy" in shown(again, "refs")[0]
    assert "refs" in make_luca(comfyui, face_pictures).outputs


def test_the_filter_parts_the_pictures(comfyui, face_pictures, references):
    make_luca(comfyui, face_pictures)
    names = [
        put(comfyui, face_pictures, "other", OTHER),
        put(comfyui, face_pictures, "luca_flip", LUCA, "flip"),
        noise(comfyui),
        put(comfyui, face_pictures, "luca_brighter", LUCA, "brighter"),
        put(comfyui, face_pictures, "third", THIRD),
    ]
    result = judged(comfyui, names)
    report = report_of(comfyui, result)
    jsonschema.validate(report, json.loads(SCHEMA.read_text(encoding="utf-8")))

    assert fields(report, "keep") == [False, True, False, True, False]
    assert report["totals"] | {"best": 0} == {
        "pictures": 5, "kept": 2, "rejected": 3, "no_face": 1, "unreadable": 0, "best": 0,
    }  # fmt: skip
    scores = fields(report, "score")
    assert scores[2] is None
    assert min(scores[1], scores[3]) > 0.5 > max(scores[0], scores[4])
    assert report["engine"]["engine"] == "dlib"
    assert report["subjects"][0]["threshold"] == pytest.approx(0.5)
    assert all("/" not in name for name in report["subjects"][0]["references"])

    # The pictures come out as they went in, in their order.
    for key, chosen in (("kept", [1, 3]), ("rejected", [0, 2, 4])):
        out = files(comfyui, result, key)
        assert len(out) == len(chosen)
        for file, index in zip(out, chosen, strict=True):
            assert (pixels(file) == pixels(comfyui.input_dir / names[index])).all()
            record = json.loads(file.with_suffix(".json").read_text())
            assert record["consistency"]["score"] == scores[index]
            assert record["consistency"]["engine"]["engine"] == "dlib"
    [best] = files(comfyui, result, "best")
    index = report["totals"]["best"]
    assert (pixels(best) == pixels(comfyui.input_dir / names[index])).all()
    assert len(files(comfyui, result, "annotated")) == 5
    assert pixels(files(comfyui, result, "report")[0]).std() > 5
    lines, warnings = shown(result, "filter")
    assert "2 of 5 kept" in lines[0]
    assert warnings == []


def test_nothing_passing_is_a_normal_result(comfyui, face_pictures, references):
    make_luca(comfyui, face_pictures)
    names = [put(comfyui, face_pictures, "other", OTHER), noise(comfyui)]
    result = judged(comfyui, names)
    assert "kept" not in result.outputs
    assert len(files(comfyui, result, "rejected")) == 2
    [warning] = shown(result, "filter")[1]
    assert "none of 2 pictures passed" in warning
    assert "is not run" in warning

    best = judged(comfyui, names, when_none="pass the best")
    [kept] = files(comfyui, best, "kept")
    assert (pixels(kept) == pixels(comfyui.input_dir / names[0])).all()

    nobody = judged(comfyui, names[1:], when_none="pass the best")
    assert "kept" not in nobody.outputs
    assert "best" not in nobody.outputs
    assert "no picture has a face" in shown(nobody, "filter")[1][0]


def test_settings_of_the_filter(comfyui, face_pictures, references):
    make_luca(comfyui, face_pictures)
    names = [put(comfyui, face_pictures, f"luca_{e}", LUCA, e) for e in ("flip", "brighter")]
    names += [put(comfyui, face_pictures, "other", OTHER), noise(comfyui)]

    at_most = report_of(comfyui, judged(comfyui, names, keep_at_most=1))
    assert sum(fields(at_most, "keep")) == 1
    assert fields(at_most, "keep").index(True) == at_most["totals"]["best"]
    all_pass = report_of(comfyui, judged(comfyui, names, threshold=0.0, no_face="keep"))
    assert fields(all_pass, "keep") == [True] * 4
    none_pass = report_of(comfyui, judged(comfyui, names, threshold=1.0))
    assert fields(none_pass, "keep") == [False] * 4
    with pytest.raises(PromptFailedError, match="face"):
        judged(comfyui, names, no_face="error")
    for score in ("mean of best k", "centroid"):
        report = report_of(comfyui, judged(comfyui, names, score=score, best_k=2))
        assert fields(report, "keep") == [True, True, False, False], score
        assert report["settings"]["rule"] == score


def test_several_characters_each_need_a_face(comfyui, face_pictures, references):
    Image.fromarray(face_pictures["t1"]).save(comfyui.input_dir / "t1.png")
    for character, person in (("luca", "t1/3"), ("alberto", "t1/4")):
        make(comfyui, [put(comfyui, face_pictures, character, person)], character)
    names = ["t1.png", "luca.png", put(comfyui, face_pictures, "stranger", LUCA)]
    result = judged(comfyui, names, character_2="alberto")
    report = report_of(comfyui, result)
    assert fields(report, "keep") == [True, False, False]
    both = report["pictures"][0]["subjects"]
    assert both[0]["face"] != both[1]["face"]
    assert len(report["pictures"][0]["faces"]) == 6
    strict = report_of(comfyui, judged(comfyui, names, character_2="alberto", which_face="all"))
    assert fields(strict, "keep") == [False, False, False]


def test_a_plain_npy_counts_with_a_warning(comfyui, face_pictures, references):
    make_luca(comfyui, face_pictures)
    for note in (references / "luca").glob("*.json"):
        note.unlink()
    result = judged(comfyui, [put(comfyui, face_pictures, "luca_flip", LUCA, "flip")])
    assert report_of(comfyui, result)["pictures"][0]["keep"]
    assert any("luca_1.npy" in text for text in shown(result, "filter")[1])


def test_references_by_link_need_no_file(comfyui, face_pictures, references):
    own = put(comfyui, face_pictures, "luca_own", LUCA)
    extra = {
        "own": node("Test_Pictures", names=own),
        "refs": node(
            "AnimStudio_FaceReferences",
            images=["own", 0], character="luca", which_face="largest", save=False, engine="dlib",
        ),
    }  # fmt: skip
    names = [put(comfyui, face_pictures, "luca_flip", LUCA, "flip")]
    names.append(put(comfyui, face_pictures, "other", OTHER))
    result = judged(comfyui, names, extra, character="none", references=["refs", 0])
    assert fields(report_of(comfyui, result), "keep") == [True, False]
    assert not (references / "luca").exists()


def test_calibration_proposes_a_threshold_that_parts_them(comfyui, face_pictures, references):
    make_luca(comfyui, face_pictures)
    edits = ("crop", "darker", "jpeg", "rotated", "smaller")
    for character, person in (("alberto", OTHER), ("giulia", THIRD)):
        names = [put(comfyui, face_pictures, f"{character}_{e}", person, e) for e in edits]
        make(comfyui, names, character)
    prompt = {
        "calibrate": node(
            "AnimStudio_CalibrateThreshold",
            character="none", character_2="none", character_3="none", character_4="none",
            engine="dlib", false_accept_rate=0.05, score="max", best_k=3,
        ),
        "save": node(
            "AnimStudio_SaveReport",
            report=["calibrate", 2], filename_prefix="calibration",
            contact_sheet=["calibrate", 1],
        ),
    }  # fmt: skip
    result = comfyui.run(prompt)
    [file] = saved(comfyui, result, "reports")
    report = json.loads(file.read_text())
    assert [one["character"] for one in report["characters"]] == ["luca", "alberto", "giulia"]
    assert max(report["impostor"]) < min(report["genuine"])
    assert max(report["impostor"]) < report["threshold"] <= min(report["genuine"])
    assert not report["overlap"]
    lines, _ = shown(result, "calibrate")
    assert any("consistency_thresholds" in line for line in lines)
    with pytest.raises(PromptFailedError, match="two"):
        comfyui.run(
            {"calibrate": node("AnimStudio_CalibrateThreshold",
                               **{**prompt["calibrate"]["inputs"], "character": "luca"})}
        )  # fmt: skip


def clip_run(comfyui, names, seed=1, saved_by=1, **inputs):
    """Make references of the first picture with one CLIP vision model; judge all with another."""
    extra = {
        "own": node("Test_Pictures", names=names[0]),
        "clip": node("Test_ClipVision", seed=seed),
        "clip_before": node("Test_ClipVision", seed=saved_by),
        "refs": node(
            "AnimStudio_FaceReferences",
            images=["own", 0], character="luca", which_face="largest", save=False,
            engine="clip_vision", clip_vision=["clip_before", 0],
        ),
    }  # fmt: skip
    return judged(
        comfyui, names, extra, engine="clip_vision", clip_vision=["clip", 0],
        references=["refs", 0], **inputs,
    )  # fmt: skip


def test_clip_vision_compares_crops(comfyui, face_pictures, references):
    names = [put(comfyui, face_pictures, "luca", LUCA), noise(comfyui)]
    names.append(put(comfyui, face_pictures, "other", OTHER))
    report = report_of(comfyui, clip_run(comfyui, names, threshold=0.9999))
    assert report["engine"] | {"sha256": "", "provider": ""} == {
        "engine": "clip_vision", "model": "CLIPVisionModelProjection 224px", "dimensions": 32,
        "metric": "cosine", "sha256": "", "provider": "",
    }  # fmt: skip
    same, nobody, other = fields(report, "score")
    assert same == pytest.approx(1.0, abs=1e-4)
    assert nobody is None
    assert other < 0.9999
    assert fields(report, "keep") == [True, False, False]
    assert "Calibrate Threshold" not in " ".join(report["warnings"])
    guessed = report_of(comfyui, clip_run(comfyui, names))
    assert "Calibrate Threshold" in " ".join(guessed["warnings"])


def test_another_clip_vision_model_is_refused_by_name(comfyui, face_pictures, references):
    names = [put(comfyui, face_pictures, "luca", LUCA)]
    with pytest.raises(PromptFailedError, match="were made by clip_vision CLIPVision"):
        clip_run(comfyui, names, seed=2)
