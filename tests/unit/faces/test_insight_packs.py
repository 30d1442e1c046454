"""Model packs that are odd, damaged, too large for the memory, or none at all."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from animation_studio.errors import FaceError
from animation_studio.faces.insight_engine import InsightEngine
from animation_studio.files import sha256_of
from tests.support.faces import STANDIN_PACK


@pytest.fixture(scope="module")
def pack(insightface_root):
    return insightface_root / "models" / STANDIN_PACK


@pytest.fixture(scope="module")
def engine(pack):
    return InsightEngine(pack)


@pytest.fixture(scope="module")
def crops(engine, face_pictures):
    """Six aligned faces."""
    picture = face_pictures["t1"]
    return [engine.align(picture, face) for face in engine.detect([picture])[0]]


@pytest.fixture
def own_pack(pack, tmp_path):
    """A pack of the test's own, to break."""
    folder = tmp_path / "own"
    shutil.copytree(pack, folder)
    return folder


def test_a_file_that_changes_is_read_again(own_pack):
    before = InsightEngine(own_pack).model
    model = onnx.load(own_pack / "rec.onnx")
    model.doc_string = "another"
    onnx.save(model, own_pack / "rec.onnx")
    after = InsightEngine(own_pack).model
    assert after.sha256 == sha256_of(own_pack / "rec.onnx") != before.sha256


def test_a_recogniser_of_one_face_at_a_time(engine, own_pack, home, crops):
    """As fr_feature is before it becomes a stand-in: its batch axis is 1."""
    shutil.copy(home.faces / "models" / "fr_feature.onnx", own_pack / "rec.onnx")
    single = InsightEngine(own_pack)
    np.testing.assert_allclose(single.embed(crops), engine.embed(crops), atol=1e-4)


def test_a_recogniser_of_a_fixed_batch(engine, own_pack, crops):
    model = onnx.load(own_pack / "rec.onnx")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, own_pack / "rec.onnx")
    fours = InsightEngine(own_pack)
    np.testing.assert_allclose(fours.embed(crops), engine.embed(crops), atol=1e-4)


def greedy(path, faces):
    """Make a recogniser ask for 70 TB of memory when it gets more than `faces` at once."""
    model = onnx.load(path)
    graph, output = model.graph, model.graph.output[0].name
    last = graph.node[-1]
    last.output[0] = "vectors"
    constants = {"zero": 0, "most": faces, "one": 1, "huge": 1 << 44}
    graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), name)
        for name, value in constants.items()
    )
    graph.node.extend(
        [
            helper.make_node("Shape", [graph.input[0].name], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["count"]),
            helper.make_node("Greater", ["count", "most"], ["many"]),
            helper.make_node("Where", ["many", "huge", "one"], ["length"]),
            helper.make_node(
                "ConstantOfShape",
                ["length"],
                ["nothing"],
                value=helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0]),
            ),
            helper.make_node("ReduceMax", ["nothing"], ["none"], keepdims=0),
            helper.make_node("Add", ["vectors", "none"], [output]),
        ]
    )
    onnx.save(model, path)


def test_out_of_memory_takes_smaller_batches(engine, own_pack, crops):
    greedy(own_pack / "rec.onnx", 3)
    short = InsightEngine(own_pack)
    np.testing.assert_allclose(short.embed(crops * 3), engine.embed(crops * 3), atol=1e-4)
    assert short._batch <= 3


def test_out_of_memory_with_a_single_face(own_pack):
    greedy(own_pack / "rec.onnx", 0)
    with pytest.raises(FaceError, match=r"rec\.onnx: the model failed.*llocat.*memory ran out"):
        InsightEngine(own_pack)


def test_a_detector_out_of_memory(own_pack, face_pictures):
    """A size that is fixed and absurd: the picture is enlarged to 300 GB."""
    model = onnx.load(own_pack / "det.onnx")
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 320000
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "any"
    onnx.save(model, own_pack / "det.onnx")
    engine = InsightEngine(own_pack)
    with pytest.raises(FaceError, match=r"det\.onnx: the model failed while looking for faces"):
        engine.detect([face_pictures["astronaut"]])


@pytest.mark.parametrize("name", ["det.onnx", "rec.onnx"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", None])
def test_a_damaged_file(own_pack, name, content):
    """Empty, a web page, or cut in the middle."""
    whole = (own_pack / name).read_bytes()
    (own_pack / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(FaceError, match=rf"{name}: insightface cannot open.*get the model pack"):
        InsightEngine(own_pack)


def small_model(path, inputs, outputs):
    """An ONNX of inputs and outputs [1, *shape] that is neither detector nor recogniser."""
    node = helper.make_node("Identity", ["in"], ["out"])
    graph = helper.make_graph(
        [node],
        "small",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, outputs)],
    )
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


@pytest.mark.parametrize("shape", [[1, 3, 50, 60], [1, 3, 96, 96], [1, 3, 192, 192]])
def test_a_model_that_is_neither(own_pack, shape):
    """Unknown to insightface, or one of its models of age and landmarks."""
    small_model(own_pack / "rec.onnx", shape, shape)
    with pytest.raises(FaceError, match=r"no recogniser.*found: det\.onnx, rec\.onnx"):
        InsightEngine(own_pack)


@pytest.mark.parametrize("shape", [[1, 10], [1, 3, "h", "w"]])
def test_a_model_that_insightface_stumbles_over(own_pack, shape):
    small_model(own_pack / "rec.onnx", shape, shape)
    with pytest.raises(FaceError, match=r"own"):
        InsightEngine(own_pack)


def test_a_recogniser_that_gives_no_vectors(own_pack):
    small_model(own_pack / "rec.onnx", [1, 3, 112, 112], [1, 3, 112, 112])
    with pytest.raises(FaceError, match=r"rec\.onnx: the model failed.*shape \[1, 3, 112, 112\]"):
        InsightEngine(own_pack)


def test_a_recogniser_of_an_odd_size(own_pack):
    small_model(own_pack / "rec.onnx", [1, 3, 160, 160], [1, 3, 160, 160])
    with pytest.raises(FaceError, match="160x160"):
        InsightEngine(own_pack)


def test_a_detector_without_points(own_pack):
    model = onnx.load(own_pack / "det.onnx")
    del model.graph.output[6:]
    onnx.save(model, own_pack / "det.onnx")
    with pytest.raises(FaceError, match=r"det\.onnx: this detector gives no points"):
        InsightEngine(own_pack)


def test_a_detector_that_gives_no_numbers(own_pack, face_pictures):
    """As a GPU with faulty memory or a half-precision model does."""
    model = onnx.load(own_pack / "det.onnx")
    name = model.graph.output[3].name
    for node in model.graph.node:
        node.output[:] = ["boxes" if output == name else output for output in node.output]
    nan = numpy_helper.from_array(np.array([np.nan], np.float32), "nan")
    model.graph.initializer.append(nan)
    model.graph.node.append(helper.make_node("Add", ["boxes", "nan"], [name]))
    onnx.save(model, own_pack / "det.onnx")
    with pytest.raises(FaceError, match=r"det\.onnx.*not finite"):
        InsightEngine(own_pack).detect([face_pictures["astronaut"]])


def test_folders_without_a_pack(tmp_path, pack):
    with pytest.raises(FaceError, match=r"nowhere: this folder .* is not there"):
        InsightEngine(tmp_path / "nowhere")
    with pytest.raises(FaceError, match=r"no detector and no recogniser.*no \.onnx file"):
        InsightEngine(tmp_path)
    shutil.copy(pack / "det.onnx", tmp_path / "det.onnx")
    with pytest.raises(FaceError, match=r"no recogniser .*found: det\.onnx"):
        InsightEngine(tmp_path)


def test_a_pack_with_a_manifest(engine, own_pack, face_pictures):
    """insightface 2.1's own form: the manifest says what each file is, and its hash."""
    tasks = {}
    for task, name, std in (("detection", "det.onnx", 128), ("recognition", "rec.onnx", 127.5)):
        (own_pack / task).mkdir()
        (own_pack / name).rename(own_pack / task / "model.onnx")
        digest = hashlib.sha256((own_pack / task / "model.onnx").read_bytes()).hexdigest()
        tasks[task] = {
            "file": f"{task}/model.onnx",
            "sha256": digest,
            "preprocessing": {"mean": 127.5, "std": std},
        }
    manifest = {
        "manifest_version": 2,
        "model_id": "own",
        "tasks": tasks,
        "license": "MODEL.LICENSE",
    }
    (own_pack / "manifest.json").write_text(json.dumps(manifest))
    described = InsightEngine(own_pack)
    picture = face_pictures["astronaut"]
    assert described.detect([picture]) == engine.detect([picture])
    [face] = described.detect([picture])[0]
    crop = described.align(picture, face)
    np.testing.assert_allclose(described.embed([crop]), engine.embed([crop]), atol=1e-4)
    (own_pack / "manifest.json").write_text(json.dumps({**manifest, "tasks": []}))
    with pytest.raises(FaceError, match="insightface cannot open"):
        InsightEngine(own_pack)
