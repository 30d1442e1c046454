"""A ComfyUI with a stand-in language model beside it, and the graphs that tests ask it for.

    llm.script.plan = {...}; result = llm.run(rounds(unique("Luca jumps")))
    [record] = llm.records(result)

The model is a real server on a real port that says what a test scripts; the memory it holds is a
scripted GPU's, so that ComfyUI and it have to take turns.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from animation_studio.errors import PromptFailedError, PromptRejectedError
from animation_studio.runs.messages import RunResult
from tests.support import nvml_standin
from tests.support.face_graphs import node
from tests.support.nvml_standin import ScriptedGpu
from tests.support.pictures import saved
from tests.support.scripted_llm import BEACH, ScriptedLlm
from tests.support.server import ComfyServer, Prepared
from tests.support.services import only_service
from tests.support.standin_service import StandIn

__all__ = [
    "ACCEPTED",
    "BACKGROUND",
    "CHANGES",
    "CHARACTER",
    "CONTROL",
    "EXPRESSION",
    "GB",
    "GUARD",
    "JUDGE",
    "LINES",
    "NEGATIVE",
    "PLAN",
    "POSE",
    "REFINE",
    "SCENE",
    "SD15",
    "SDXL",
    "STYLE",
    "TEXT",
    "WRITER",
    "Studio",
    "entry_of",
    "judged",
    "rounds",
    "started",
    "unique",
    "words_only",
]

GB = 10**9
# Seconds in which a stand-in's whole answer must be there.
GENERATE_SECONDS = 8.0
Prompt = dict[str, Any]
# Widgets as a fresh node in the page has them.
WRITER: Prompt = {
    "sentence": "Luca running on the beach, excited", "service": "auto", "seed": 1,
    "temperature": 0.3, "dialect": "prose", "character": "none",
}  # fmt: skip
JUDGE: Prompt = {
    "service": "auto", "threshold": 0.7, "slot_threshold": 0.3, "defects": True,
    "when_none": "block",
}  # fmt: skip
REFINE: Prompt = {"service": "auto", "seed": 1, "temperature": 0.7, "dialect": "prose"}
GUARD: Prompt = {
    "purpose": "image", "needed_gb": 0.0, "service": "auto", "pause": "as needed",
    "level": "configured", "timeout": 60, "on_failure": "error", "resume": "end of prompt",
}  # fmt: skip
# The outputs of every node that makes a plan.
(PLAN, CHARACTER, BACKGROUND, STYLE, EXPRESSION, SCENE, NEGATIVE, CONTROL, POSE, LINES, TEXT) = (
    range(11)
)
ACCEPTED = 11  # of Refine
# A change of BEACH whose framing failed.
CHANGES: Prompt = {
    "reasoning": "nearer", "camera": "close-up", "composition": "his face",
    "parts": {"camera": ["close-up of the face"]},
}  # fmt: skip
SHIPPED = Path(__file__).resolve().parents[2] / "configs" / "lora_registry.yaml"
SD15, SDXL = "v1-5-pruned-emaonly.safetensors", "sd_xl_base_1.0.safetensors"
# No message for a user: what Python or pydantic say of themselves.
RAW = ("TypeError", "AttributeError", "KeyError", "ValidationError", "pydantic", "Traceback")


class Studio:
    """A ComfyUI, and the language model beside it."""

    def __init__(self, server: ComfyServer, qwen: StandIn, gpu: ScriptedGpu) -> None:
        self.server, self.qwen, self.gpu = server, qwen, gpu
        self.script = ScriptedLlm()

    def begin(self) -> None:
        """Take a fresh script."""
        self.script = ScriptedLlm()
        self.qwen.model.says = self.script

    def is_free(self) -> bool:
        """Whether no prompt has the GPU."""
        return self.server.get_json("/animation_studio/gpu")["lease"] is None

    # Runs

    def run(self, prompt: Prompt, workflow: Prompt | None = None) -> RunResult:
        return self.server.run(prompt, workflow)

    def write(self, prompt_nodes: Prompt | None = None, **inputs: object) -> Prompt:
        """Run a Prompt Writer alone and return what its outputs show, by index."""
        return self.show(node("AnimStudio_PromptWriter", **{**WRITER, **inputs}), prompt_nodes)

    def show(self, maker: Prompt, prompt_nodes: Prompt | None = None) -> Prompt:
        """The same of any node that makes a plan."""
        shown = {
            f"show{index}": node("PreviewAny", source=["maker", index])
            for index in range(CHARACTER, TEXT + 1)
        }
        result = self.run({**(prompt_nodes or {}), "maker": maker, **shown})
        values = {
            index: result.outputs[f"show{index}"]["text"][0] for index in range(CHARACTER, TEXT + 1)
        }
        return {**values, "report": result.outputs.get("maker", {}).get("animstudio_report")}

    def fails(self, maker: Prompt) -> str:
        """Run a node that makes a plan and must fail; return the message."""
        with pytest.raises(PromptFailedError) as caught:
            self.show(maker)
        return str(caught.value)

    def refuses(self, prompt: Prompt) -> str:
        """Run or queue what must fail with a message for people; return it."""
        with pytest.raises((PromptFailedError, PromptRejectedError)) as caught:
            self.run(prompt)
        message = str(caught.value)
        assert not [word for word in RAW if word in message], message
        return message

    def messages(self, prompt: Prompt) -> list[tuple[str, Prompt]]:
        """Run a prompt and return what ComfyUI sends the page: type and data, in order."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, asyncio.wait_for(self._listen(prompt), 120)).result()

    async def _listen(self, prompt: Prompt) -> list[tuple[str, Prompt]]:
        heard: list[tuple[str, Prompt]] = []
        client, body = "page", {"prompt": prompt, "client_id": "page"}
        async with (
            aiohttp.ClientSession(self.server.url) as http,
            http.ws_connect(f"/ws?clientId={client}", max_msg_size=0) as socket,
            http.post("/prompt", json=body) as answer,
        ):
            assert answer.status == 200, await answer.text()
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    said = json.loads(message.data)
                    heard.append((said["type"], said["data"]))
                    if said["type"].removeprefix("execution_") in _ENDS:
                        break
        return heard

    # What came of it

    def records(self, result: RunResult) -> list[Prompt]:
        """The records of the takes that a run saved."""
        files = saved(self.server, result, "records")
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    def warnings(self, result: RunResult) -> list[str]:
        """What all nodes warn of."""
        return [text for one in _reports(result) for text in one["warnings"]]

    def lines(self, result: RunResult) -> list[str]:
        """What all nodes show."""
        return [text for one in _reports(result) for text in one["lines"]]

    # What it stands on

    def forget(self) -> None:
        """Empty ComfyUI's cache: what was run before is run again."""
        self.server.post_json("/free", {"unload_models": True, "free_memory": True})

    @contextmanager
    def configured(self, name: str, text: str) -> Iterator[None]:
        """Write a file of the configuration, and put back what was there afterwards."""
        file = self.server.config_dir / name
        before = file.read_text(encoding="utf-8") if file.is_file() else None
        try:
            file.write_text(text, encoding="utf-8")
            yield
        finally:
            if before is None:
                file.unlink()
            else:
                file.write_text(before, encoding="utf-8")

    def whole_cast(self) -> AbstractContextManager[None]:
        """The cast as it is shipped, with its LoRAs, for SDXL."""
        return self.configured("lora_registry.yaml", "{}")


_ENDS = ("success", "error", "interrupted")


def _reports(result: RunResult) -> list[Prompt]:
    return [
        report
        for output in result.outputs.values()
        for report in output.get("animstudio_report", [])
    ]


@contextmanager
def started(prepared: Prepared, folder: Path, arguments: Sequence[str] = ()) -> Iterator[Studio]:
    """Start a ComfyUI whose only service is `qwen`, a vLLM that sees, with memory for one of them.

    Its cast has no LoRAs (`whole_cast` gives them back), and there is a quality preset `tiny`: so a
    CPU makes a picture in a second.
    """
    library = nvml_standin.build(folder / "nvml")
    gpu = ScriptedGpu(folder / "gpu.txt")
    with StandIn("vllm", gpu=gpu, memory_awake=9 * GB) as qwen:
        config = folder / "config"
        only_service(
            prepared.standins / "config", config, "qwen", entry_of(qwen), {"settle_seconds": 0.5}
        )
        _add_tiny_preset(config)
        (config / "lora_registry.yaml").write_text(words_only(), encoding="utf-8")
        server = ComfyServer.start(
            prepared, folder / "comfyui", config=config, test_packs=True, arguments=arguments,
            environment=gpu.environment(library),
        )  # fmt: skip
        try:
            yield Studio(server, qwen, gpu)
        finally:
            server.stop()


def entry_of(standin: StandIn, **more: object) -> Prompt:
    """Return what services.yaml says of a stand-in."""
    return {
        "kind": standin.kind, "base_url": standin.url, "vram_gb": 8.0, "vision": True,
        "parallel": 3, **more,
        "timeouts": {"answer": 2.0, "generate": GENERATE_SECONDS, "sleep": 5.0, "wake": 5.0},
    }  # fmt: skip


def words_only(**trigger_words: list[str]) -> str:
    """Return the shipped lora_registry.yaml without LoRAs, with a character's other words.

    The little checkpoint, which costs no time, is of a base that the LoRAs are not for.
    """
    known = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    for entries in known.values():
        for key, entry in entries.items():
            entry.pop("lora_path", None)
            entry["trigger_words"] = trigger_words.get(key, entry["trigger_words"])
    return yaml.safe_dump(known)


def _add_tiny_preset(config: Path) -> None:
    tiny = {"steps": 1, "cfg_scale": 1.0, "size": [64, 64]}
    file = config / "sdxl_config.yaml"
    known = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    known.setdefault("generation", {}).setdefault("quality_presets", {})["tiny"] = tiny
    file.write_text(yaml.safe_dump(known), encoding="utf-8")


# -- Graphs


def unique(text: str) -> str:
    """A sentence that no other test has asked about."""
    return f"{text} ({time.monotonic_ns()})"


def judged(
    *, plan: Mapping[str, Any] = BEACH, picture: Prompt | None = None, refine: bool = False,
    **judge: object,
) -> Prompt:  # fmt: skip
    """A picture judged against a plan by hand: takes of what is accepted and of what is not.

    Without a `picture` there are two of one colour, which no other test has.
    """
    colour = time.time_ns() % 2**24
    nodes = {
        "plan": node("AnimStudio_PlanFromText", text=yaml.safe_dump(dict(plan)), dialect="prose"),
        "picture": picture
        or node("EmptyImage", width=64, height=64, batch_size=2, color=colour),
        "judge": node(
            "AnimStudio_Judge", images=["picture", 0], plan=["plan", 0], **{**JUDGE, **judge}
        ),
        "accepted": node(
            "AnimStudio_SaveTake", images=["judge", 0], filename_prefix="accepted",
            judgement=["judge", 5],
        ),
        "rejected": node("AnimStudio_SaveTake", images=["judge", 1], filename_prefix="rejected"),
        "scores": node("PreviewAny", source=["judge", 4]),
    }  # fmt: skip
    if refine:
        nodes["refine"] = node(
            "AnimStudio_Refine", plan=["plan", 0], judgement=["judge", 3], **REFINE
        )
        for index in (TEXT, ACCEPTED):
            nodes[f"refined{index}"] = node("PreviewAny", source=["refine", index])
    return nodes


def rounds(
    sentence: object,
    *,
    shown: str = "",
    pictures_from: Prompt | None = None,
    base: str = SD15,
    **inputs: object,
) -> Prompt:
    """An Until Accepted of small pictures, and what comes out of it.

    With `shown` the pictures are those of `pictures_from`, as Test_ScriptedVAE takes them.
    """
    values = {
        "sentence": sentence, "writer": "auto", "judge": "auto", "seed": 5, "temperature": 0.3,
        "dialect": "prose", "character": "none", "quality": "tiny", "rounds": 3, "pictures": 1,
        "threshold": 0.7, "slot_threshold": 0.3, "defects": True, "check_faces": "never",
        **inputs,
    }  # fmt: skip
    nodes = {
        "ckpt": node("CheckpointLoaderSimple", ckpt_name=base),
        "until": node(
            "AnimStudio_UntilAccepted",
            **{"model": ["ckpt", 0], "clip": ["ckpt", 1], "vae": ["ckpt", 2], **values},
        ),
        "take": node(
            "AnimStudio_SaveTake", images=["until", 0], look=["until", 3], sampling=["until", 4],
            judgement=["until", 5], filename_prefix="accepted",
        ),
        "was": node("PreviewAny", source=["until", 1]),
        "made": node("PreviewAny", source=["until", 7]),
        "plan": node("PreviewAny", source=["until", 6]),
    }  # fmt: skip
    if shown:
        nodes["pictures"] = pictures_from or node("Test_Flat", pictures=LEVELS)
        nodes["vae"] = node(
            "Test_ScriptedVAE", images=["pictures", 0], shown=shown, mark=unique("")
        )
        nodes["until"]["inputs"]["vae"] = ["vae", 0]
    return nodes


# What `rounds` shows by default: pictures 0 to 9 of one colour, picture n of the level n / 10.
LEVELS = ", ".join(f"1 64 64 3 {level / 10}" for level in range(10))
