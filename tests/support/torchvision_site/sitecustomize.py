"""Lets torchvision be imported beside a torch that its compiled part is not for.

Python runs this at its start where this folder is on PYTHONPATH: in every process of a vLLM whose
model sees. torchvision's compiled part is for one build of torch (the index has that for CUDA);
beside another it does not load, and then `import torchvision` fails, because it describes operators
that nobody declared. Nothing of vLLM calls them.
"""

import importlib.util

import torch

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# Declared for as long as this lives.
declared = None


def loads() -> bool:
    """Whether torchvision's own compiled part declares its operators, tried as it does itself."""
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        return True
    try:
        torch.ops.load_library(f"{package.submodule_search_locations[0]}/_C.so")
    except OSError:
        return False
    return True


if not loads():
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for operator in OPERATORS:
        declared.define(operator)
