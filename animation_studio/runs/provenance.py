"""How a picture was made, read from the prompt that made it.

ComfyUI gives an output node the whole prompt: node id -> {"class_type", "inputs"}, an input being a
value or a link [node id, output index]. From the node that saves, everything upstream is what made
the picture.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

__all__ = ["GraphNode", "Prompt", "PromptGraph", "linked_node", "recipe_of"]

Prompt: TypeAlias = Mapping[str, Mapping[str, object]]

_SEEDS = ("seed", "noise_seed")
# Nodes whose seed is a language model's.
_WRITERS = {"AnimStudio_PromptWriter", "AnimStudio_Refine"}
# Keys of a sampler's settings in ComfyUI's KSampler and KSamplerAdvanced, and in the parts of
# SamplerCustomAdvanced (RandomNoise, BasicScheduler, KSamplerSelect, CFGGuider).
_SAMPLING = (
    "steps",
    "cfg",
    "sampler_name",
    "scheduler",
    "denoise",
    "add_noise",
    "start_at_step",
    "end_at_step",
)
# Inputs that name a model file in ComfyUI's loaders.
_MODEL_INPUTS = (
    "ckpt_name",
    "unet_name",
    "vae_name",
    "clip_name",
    "clip_name1",
    "clip_name2",
    "clip_name3",
    "lora_name",
    "control_net_name",
)


class GraphNode:
    """One node of a prompt with its literal inputs."""

    def __init__(self, key: str, node: Mapping[str, object]) -> None:
        self.key = key
        self.class_type = str(node.get("class_type", ""))
        inputs = node.get("inputs")
        self.inputs: Mapping[str, object] = inputs if isinstance(inputs, dict) else {}


class PromptGraph:
    """What stands upstream of one node of a prompt.

    `known` gives values of outputs that only the run knew, by node id and output index; a link
    neither it nor the prompt explains is written as "NODE_ID.OUTPUT (CLASS)".
    """

    def __init__(
        self,
        prompt: Prompt,
        node: str,
        known: Mapping[tuple[str, int], object] | None = None,
    ) -> None:
        self._prompt = prompt
        self._known = known or {}
        self.nodes = list(self._upstream(node))

    def samplers(self) -> list[dict[str, object]]:
        """Return seed and sampling values of every upstream node that has any.

        The seeds of language models are none.
        """
        found: list[dict[str, object]] = []
        for node in self.nodes:
            if node.class_type in _WRITERS:
                continue
            values = {key: self.value(node.inputs[key]) for key in _SAMPLING if key in node.inputs}
            for seed in (key for key in _SEEDS if key in node.inputs):
                values = {"seed": self.value(node.inputs[seed]), **values}
            if values:
                found.append({"node": node.key, "class": node.class_type, **values})
        return found

    def models(self) -> list[dict[str, object]]:
        """Return the model files that upstream loaders name."""
        return [
            {"node": node.key, "class": node.class_type, key: self.value(node.inputs[key])}
            for node in self.nodes
            for key in _MODEL_INPUTS
            if key in node.inputs
        ]

    def of_class(self, *class_types: str) -> list[dict[str, object]]:
        """Return the inputs of the upstream nodes of the given classes; links to nodes left out."""
        return [
            {"node": node.key, "class": node.class_type}
            | {
                key: self.value(value)
                for key, value in node.inputs.items()
                if self._is_plain(value)
            }
            for node in self.nodes
            if node.class_type in class_types
        ]

    def value(self, value: object) -> object:
        """Return what an input's value is: itself, or what its link is known to give."""
        link = _link(value)
        if link is None:
            return value
        if link in self._known:
            return self._known[link]
        node = self._node(link[0])
        if _is_primitive(node):
            return node.inputs["value"]
        return f"{link[0]}.{link[1]} ({node.class_type})"

    def _is_plain(self, value: object) -> bool:
        link = _link(value)
        return link is None or link in self._known or _is_primitive(self._node(link[0]))

    def _node(self, key: str) -> GraphNode:
        return GraphNode(key, self._prompt.get(key, {}))

    def _upstream(self, start: str) -> Iterator[GraphNode]:
        seen, waiting = {start}, [start]
        while waiting:
            key = waiting.pop(0)
            node = self._node(key)
            yield node
            for value in node.inputs.values():
                link = _link(value)
                if link and link[0] not in seen:
                    seen.add(link[0])
                    waiting.append(link[0])


def linked_node(prompt: Prompt, node: str, name: str) -> GraphNode | None:
    """Return the node that the input `name` of a node is linked to, None where it is not."""
    link = _link(GraphNode(node, prompt.get(node, {})).inputs.get(name))
    return GraphNode(link[0], prompt.get(link[0], {})) if link else None


def _is_primitive(node: GraphNode) -> bool:
    """Whether a node is one of core's (PrimitiveInt, ...) that pass their one widget on."""
    named = node.class_type.startswith("Primitive") and "value" in node.inputs
    return named and _link(node.inputs["value"]) is None


def _link(value: object) -> tuple[str, int] | None:
    if isinstance(value, list) and len(value) == 2:
        key, output = value
        if isinstance(key, str) and type(output) is int:
            return key, output
    return None


def recipe_of(
    node_of: Callable[[str], Mapping[str, object]],
    values: Mapping[str, object],
    stamp: Callable[[str], str],
) -> str | None:
    """Return 32 hexadecimal digits of everything that makes `values`, or None if it cannot be told.

    `values` are inputs of a node: plain ones, or links [node id, output index] whose whole upstream
    counts: classes, inputs and the fingerprints that ComfyUI took of nodes that have one. Node ids
    and places in the graph do not count. `node_of` gives a node of the running prompt; `stamp` what
    changes when the file that a text names does ("" for a text that names none). None: a node
    upstream makes something new at each run.
    """
    seen: dict[str, str] = {}

    def of_node(key: str) -> str:
        if key not in seen:
            node = node_of(key)
            inputs = node.get("inputs")
            parts = of_values(inputs if isinstance(inputs, Mapping) else {})
            changed = node.get("is_changed", False)
            for one in changed if isinstance(changed, list) else [changed]:
                if isinstance(one, float) and math.isnan(one):
                    raise _EverChangingError
            seen[key] = _digest([str(node.get("class_type")), parts, repr(changed)])
        return seen[key]

    def of_values(inputs: Mapping[str, object]) -> list[object]:
        parts: list[object] = []
        for name in sorted(inputs):
            value = inputs[name]
            link = _link(value)
            if link is not None:
                parts.append([name, of_node(link[0]), link[1]])
            elif isinstance(value, str):
                parts.append([name, value, stamp(value)])
            else:
                parts.append([name, repr(value)])
        return parts

    try:
        return _digest(of_values(values))
    except _EverChangingError:
        return None


class _EverChangingError(Exception):
    """A node of the graph never gives the same twice."""


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
