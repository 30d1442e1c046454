"""Prompts for tests: the bundled ones, changed by class and input, and a plain core one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

WORKFLOWS = Path(__file__).parents[2] / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
CHECKPOINT = "sd_xl_base_1.0.safetensors"

Prompt = dict[str, dict[str, Any]]


def bundled(name: str) -> Prompt:
    """Return a bundled prompt in HTTP form, free to change."""
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def page_form(name: str) -> dict[str, Any]:
    """Return a bundled workflow in page form."""
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def node_id(prompt: Prompt, class_type: str, nth: int = 0) -> str:
    """Return the id of the nth node of a class."""
    return [key for key, node in prompt.items() if node["class_type"] == class_type][nth]


def changed(prompt: Prompt, class_type: str, nth: int = 0, **inputs: Any) -> Prompt:
    """Return a copy of `prompt` with inputs of one node set."""
    result = copy.deepcopy(prompt)
    result[node_id(prompt, class_type, nth)]["inputs"].update(inputs)
    return result


def plain(positive: str, negative: str, *, seed: int, cfg: float, steps: int, size: int) -> Prompt:
    """Return a prompt that encodes and samples by core nodes only, as the bundled ones do."""
    return {
        "1": _node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "2": _node("CLIPTextEncode", clip=["1", 1], text=positive),
        "3": _node("CLIPTextEncode", clip=["1", 1], text=negative),
        "4": _node("EmptyLatentImage", width=size, height=size, batch_size=1),
        "5": _node(
            "KSampler",
            model=["1", 0],
            positive=["2", 0],
            negative=["3", 0],
            latent_image=["4", 0],
            seed=seed,
            steps=steps,
            cfg=cfg,
            sampler_name="dpmpp_2m",
            scheduler="normal",
            denoise=1.0,
        ),
        "6": _node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": _node("AnimStudio_SaveTake", images=["6", 0], filename_prefix="plain"),
    }


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}
