"""What ComfyUI says about a run, as values: progress, outputs, failures; no network here.

Message and answer shapes are those of ComfyUI 0.3.75's `server.py` and `execution.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import PromptFailedError, PromptRejectedError

__all__ = [
    "OutputFile",
    "Progress",
    "RunResult",
    "RunState",
    "check_prompt",
    "output_files",
    "rejection",
]

_LONGEST_DETAIL = 400


@dataclass(frozen=True)
class Progress:
    """One step of a run: a node has started, or is at `value` of `max` (0 of 0: not counted).

    `node_id` and `class_type` are None where the message is about the run as a whole.
    """

    node_id: str | None
    class_type: str | None
    value: float
    max: float
    message: str


@dataclass(frozen=True)
class OutputFile:
    """A file that a node saved, by ComfyUI's words: folder `type` (output, temp), subfolder, name.

    `kind` is the singular of the key in the node's answer: image, record, audio, ...
    """

    node: str
    filename: str
    subfolder: str
    type: str
    kind: str


@dataclass(frozen=True)
class RunResult:
    """What a finished run gave."""

    prompt_id: str
    outputs: Mapping[str, Mapping[str, Any]]
    files: tuple[OutputFile, ...]
    cached: tuple[str, ...]
    seconds: float


@dataclass
class RunState:
    """Follows one prompt through ComfyUI's messages, in whatever order and number they come."""

    prompt_id: str
    prompt: Mapping[str, Any]
    outputs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    cached: tuple[str, ...] = ()
    failure: str | None = None
    finished: bool = False

    def feed(self, message: Mapping[str, Any]) -> Progress | None:
        """Take one message; return what to show for it, if anything.

        Messages of other prompts, unknown types and malformed ones change nothing. The end is
        `executing` with node null: `execution_error` alone is not, because a node that blocks one
        output with a message sends it while the others go on.
        """
        data = message.get("data")
        if not isinstance(data, Mapping) or data.get("prompt_id") != self.prompt_id:
            return None
        kind = message.get("type")
        if kind == "executing":
            return self._executing(data)
        if kind == "progress":
            value, highest = data.get("value"), data.get("max")
            if isinstance(value, (int, float)) and isinstance(highest, (int, float)):
                return self._progress(data.get("node"), value, highest, "step")
        elif kind == "execution_cached":
            return self._cached(data.get("nodes"))
        elif kind == "executed":
            if isinstance(data.get("output"), Mapping):
                self.outputs[str(data.get("node"))] = data["output"]
        elif kind == "execution_error":
            self.failure = self.failure or _failure(data)
        elif kind == "execution_interrupted":
            self.failure = self.failure or _interruption(data)
        return None

    def settle(self, entry: Mapping[str, Any]) -> None:
        """Take the prompt's entry of /history, which exists once the run has ended."""
        status = entry.get("status")
        for item in (status or {}).get("messages", []):
            self.feed({"type": item[0], "data": item[1]})
        if isinstance(entry.get("outputs"), Mapping):
            self.outputs.update(entry["outputs"])
        if status and status.get("status_str") == "error" and self.failure is None:
            self.failure = "The run failed; ComfyUI's log says why."
        self.finished = True

    def result(self, seconds: float) -> RunResult:
        """Return what the finished run gave. Raises PromptFailedError where it failed."""
        if self.failure is not None:
            raise PromptFailedError(self.failure)
        files = tuple(output_files(self.outputs))
        return RunResult(self.prompt_id, dict(self.outputs), files, self.cached, seconds)

    def _executing(self, data: Mapping[str, Any]) -> Progress | None:
        if data.get("node") is None:
            self.finished = True
            return None
        # A node inside an expanded one is shown as the node that the user sees.
        return self._progress(data.get("display_node") or data["node"], 0, 0, "running")

    def _cached(self, nodes: object) -> Progress | None:
        if not isinstance(nodes, list) or not nodes:
            return None
        self.cached = tuple(str(node) for node in nodes)
        return Progress(None, None, 0, 0, f"{len(nodes)} of {len(self.prompt)} nodes are unchanged")

    def _progress(self, node: object, value: float, highest: float, message: str) -> Progress:
        node_id = str(node)
        entry = self.prompt.get(node_id)
        class_type = entry.get("class_type") if isinstance(entry, Mapping) else None
        return Progress(node_id, class_type, value, highest, message)


def output_files(outputs: Mapping[str, Mapping[str, Any]]) -> Iterator[OutputFile]:
    """Yield every file named in the nodes' answers, by node and key."""
    for node, answer in outputs.items():
        for key, values in answer.items():
            for value in values if isinstance(values, (list, tuple)) else ():
                if isinstance(value, Mapping) and isinstance(value.get("filename"), str):
                    yield OutputFile(
                        node=node,
                        filename=value["filename"],
                        subfolder=str(value.get("subfolder") or ""),
                        type=str(value.get("type") or "output"),
                        kind=key.removesuffix("s"),
                    )


def check_prompt(prompt: object) -> None:
    """Refuse what ComfyUI answers with a traceback or a riddle. Raises PromptRejectedError."""
    if not isinstance(prompt, Mapping) or not prompt:
        raise PromptRejectedError("The prompt is empty or not a JSON object of nodes by their id.")
    if isinstance(prompt.get("nodes"), list):
        raise PromptRejectedError(
            "This is a workflow in the page's format; ComfyUI's HTTP API takes the API form. Use "
            "the file of the same name under workflows/api/, or export it with File > Export (API)."
        )
    for node, entry in prompt.items():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("class_type"), str):
            raise PromptRejectedError(f"Node {node} of the prompt has no class_type.")
        inputs = entry.get("inputs")
        if not isinstance(inputs, Mapping):
            raise PromptRejectedError(f"{_node(node, entry)} has no inputs; write {{}} for none.")
        for name, value in inputs.items():
            if _is_link(value) and value[0] not in prompt:
                raise PromptRejectedError(
                    f"{_node(node, entry)}, input {name}: it is linked to node {value[0]}, which "
                    "is not in the prompt."
                )


def rejection(answer: object) -> str | None:
    """Say in readable sentences why ComfyUI refused a prompt; None if its answer has no errors.

    `answer` is the JSON body of POST /prompt: {error: {type, message, details}, node_errors: {id:
    {class_type, errors: [{type, message, details, extra_info: {input_name}}]}}}.
    """
    if not isinstance(answer, Mapping):
        return None
    node_errors = answer.get("node_errors")
    sentences = list(_node_sentences(node_errors)) if isinstance(node_errors, Mapping) else []
    if not sentences:
        error = answer.get("error")
        if isinstance(error, Mapping):
            sentences = [_joined(str(error.get("message") or ""), str(error.get("details") or ""))]
        elif error:
            sentences = [_joined(str(error), "")]
    if not sentences:
        return None
    if len(sentences) == 1:
        return f"ComfyUI refused the prompt: {sentences[0]}"
    return "ComfyUI refused the prompt:\n" + "\n".join(f"- {text}" for text in sentences)


def _node_sentences(node_errors: Mapping[str, Any]) -> Iterator[str]:
    for node, entry in node_errors.items():
        if not isinstance(entry, Mapping):
            continue
        for error in entry.get("errors") or ():
            if not isinstance(error, Mapping):
                continue
            extra = error.get("extra_info")
            name = extra.get("input_name") if isinstance(extra, Mapping) else None
            details = str(error.get("details") or "")
            where = _node(node, entry)
            if name:
                where += f", input {name}"
                # Core begins the details with the input's name, which is said already.
                details = details.removeprefix(str(name)).lstrip(":,- ")
            yield f"{where}: {_joined(str(error.get('message') or ''), details)}"


def _failure(data: Mapping[str, Any]) -> str:
    where = _node(data.get("node_id"), {"class_type": data.get("node_type")})
    kind = str(data.get("exception_type") or "error").rpartition(".")[2]
    message = " ".join(str(data.get("exception_message") or "").split())
    return f"{where} failed: {kind}: {message or 'no message'}"


def _interruption(data: Mapping[str, Any]) -> str:
    where = _node(data.get("node_id"), {"class_type": data.get("node_type")})
    return f"The run was interrupted at {where[0].lower()}{where[1:]}."


def _node(node: object, entry: Mapping[str, Any]) -> str:
    class_type = entry.get("class_type")
    return f"Node {node} ({class_type})" if class_type else f"Node {node}"


def _joined(message: str, details: str) -> str:
    message, details = message.strip().rstrip("."), " ".join(details.split())
    if len(details) > _LONGEST_DETAIL:
        details = details[:_LONGEST_DETAIL] + " ..."
    text = f"{message}: {details}" if message and details else message or details
    return (text or "no reason given").rstrip(".") + "."


def _is_link(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )
