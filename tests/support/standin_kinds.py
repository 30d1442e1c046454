"""How each kind of stand-in behaves: its routes, its state, the GPU memory that it holds.

The vLLM is the real one's state machine as shared/facts has it, measured on vLLM 0.32 or read from
its engine: pausing shows at once in /is_sleeping and memory goes later; `wait` lets answers end;
waking does not undo a sleep that is still to come, which is noted as `harm`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from tests.support.standin_chat import Chatting
from tests.support.standin_parts import Answer, Question

__all__ = ["KINDS", "Model"]

GB = 10**9


class Model(Chatting):
    """What all kinds have: a name, memory, a key, work that takes time, a chat (see Chatting).

    `changed` is to be called where memory changes while no request is answered.
    """

    asleep = False
    changed: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, **settings: Any) -> None:
        self.name = "tiny"
        self.memory_awake = 10 * GB
        self.api_key = ""
        self.work_seconds = 0.0
        self.chat_only = False
        # Requests for work that came while it slept, and what would have destroyed a real one.
        self.work_while_asleep = 0
        self.harm: list[str] = []
        self.lock = threading.RLock()
        self.prepare_chat()
        self.prepare()
        for name, value in settings.items():
            assert hasattr(self, name), name
            setattr(self, name, value)

    def prepare(self) -> None:
        """Set the kind's own attributes."""

    def begin(self) -> None:
        """Be as after a start."""

    def memory_bytes(self) -> int:
        return self.memory_awake

    def answer(self, question: Question) -> Answer | None:
        """Answer a question, after as long as it takes; None when the asker left."""
        method, _, path = question.route.partition(" ")
        guarded = path.startswith("/v1") and self.api_key
        if guarded and question.headers.get("Authorization") != f"Bearer {self.api_key}":
            return Answer(401, {"error": "Unauthorized"})
        name = method.lower() + path.replace("/", "_").replace(".", "_")
        route = getattr(self, name, None)
        return route(question) if route is not None else Answer(404, {"detail": "Not Found"})

    # OpenAI's routes

    def get_v1_models(self, _: Question) -> Answer:
        return Answer(200, {"object": "list", "data": [{"id": self.name, "object": "model"}]})

    def post_v1_completions(self, question: Question) -> Answer | None:
        return Answer(404, {"detail": "Not Found"}) if self.chat_only else self.work(question)

    def work(self, question: Question) -> Answer | None:
        if question.body["model"] != self.name:
            said = f"The model `{question.body['model']}` does not exist."
            return Answer(404, {"error": {"message": said, "code": 404}})
        if not self.takes(self.work_seconds, question):
            return None
        return Answer(200, {"choices": [{"text": " world", "finish_reason": "length"}]})


class Vllm(Model):
    """vLLM of one model. Without `dev_mode` it has no sleep routes; `keeps_memory` as without
    --enable-sleep-mode; `knows_mode` as since 0.17, with `refuses_mode` it is an error; `in_flight`
    are other people's answers, `finish_reason` how its own end."""

    knows = ("structured_outputs", "response_format")

    def prepare(self) -> None:
        self.memory_asleep = int(1.2 * GB)
        self.dev_mode = True
        self.knows_mode = True
        self.refuses_mode = False
        self.keeps_memory = False
        self.finish_reason = "length"
        self.sleep_seconds = 0.0
        self.wake_seconds = 0.0
        self.wake_out_of_memory = 0
        self.in_flight = 0
        self.aborted = 0
        self.begin()

    def begin(self) -> None:
        self.paused = False
        self.tags: set[str] = set()
        self.level = 0
        self.noise = False
        self.sleeps_under_way = 0

    @property
    def asleep(self) -> bool:  # type: ignore[override]
        return self.paused or bool(self.tags)

    def memory_bytes(self) -> int:
        return self.memory_asleep if self.tags and not self.keeps_memory else self.memory_awake

    def answer(self, question: Question) -> Answer | None:
        path = question.route.partition(" ")[2]
        dev = ("/sleep", "/wake_up", "/is_sleeping", "/collective_rpc", "/reset_prefix_cache")
        if path in dev and not self.dev_mode:
            return Answer(404, {"detail": "Not Found"})
        return super().answer(question)

    def get_health(self, _: Question) -> Answer:
        return Answer(200)

    def get_is_sleeping(self, _: Question) -> Answer:
        return Answer(200, {"is_sleeping": self.asleep})

    def get_metrics(self, _: Question) -> Answer:
        states = {"awake": not self.tags, "weights_offloaded": self.level == 1}
        states["discard_all"] = self.level == 2
        return Answer(200, "".join(_metric(name, on) for name, on in states.items()))

    def post_sleep(self, question: Question) -> Answer:
        level = int(question.query.get("level", ["1"])[0])
        mode = question.query.get("mode", ["abort"])[0]
        if self.refuses_mode and "mode" in question.query:
            return Answer(422, {"detail": [{"msg": "Extra inputs are not permitted"}]})
        if level not in (0, 1, 2) or (self.knows_mode and mode not in ("wait", "abort", "keep")):
            return Answer(400, {"error": {"message": "bad query", "code": 400}})
        with self.lock:
            self.paused = True
            self.sleeps_under_way += 1
        if mode == "abort" and self.knows_mode:
            self.aborted += self.in_flight
            self.in_flight = 0
        # The server goes on with it whether or not the asker stays.
        while self.in_flight and self.knows_mode and not question.over():
            time.sleep(0.002)
        time.sleep(self.sleep_seconds)
        with self.lock:
            self.sleeps_under_way -= 1
            if "weights" not in self.tags:
                self.tags, self.level = {"weights", "kv_cache"}, level
                self.noise = level == 2
        # An abort brings those who wait to their end, too.
        while mode == "abort" and self.sleeps_under_way and not question.over():
            time.sleep(0.001)
        return Answer(200, {"status": "sleeping", "level": level})

    def post_wake_up(self, question: Question) -> Answer:
        tags = set(question.query.get("tags", [])) or {"weights", "kv_cache"}
        if self.sleeps_under_way:
            self.harm.append("woken while a sleep was still to come")
        time.sleep(self.wake_seconds)
        with self.lock:
            if self.tags and self.wake_out_of_memory:
                self.wake_out_of_memory -= 1
                said = "Call to wake_up method failed: CUDA Error: out of memory at cumem.cpp:62"
                return Answer(500, {"error": {"message": said, "code": 500}})
            self.tags -= tags
            if not self.tags:
                self.paused, self.level = False, 0
        return Answer(200, {"status": "sleeping" if self.tags else "awake"})

    def post_collective_rpc(self, question: Question) -> Answer:
        if question.body["method"] == "reload_weights":
            if "weights" in self.tags:
                self.harm.append("weights read into memory that is not there")
            self.noise = False
        return Answer(200, {"results": [None]})

    def post_reset_prefix_cache(self, _: Question) -> Answer:
        return Answer(200, {"success": True})

    def work(self, question: Question) -> Answer | None:
        if self.asleep:
            self.work_while_asleep += 1
        while self.asleep:
            if question.gone():
                return None
            time.sleep(0.002)
        answer = super().work(question)
        if answer is not None and answer.status == 200:
            text = "!!!!" if self.noise else " world"
            answer.data["choices"] = [{"text": text, "finish_reason": self.finish_reason}]
        return answer


def _metric(state: str, on: bool) -> str:
    labels = f'engine="0",model_name="tiny",sleep_state="{state}"'
    return f"vllm:engine_sleep_state{{{labels}}} {1.0 if on else 0.0}\n"


class Ollama(Model):
    """Ollama: `loaded` models by name with their GPU bytes; `in_flight` answers delay unloading."""

    def prepare(self) -> None:
        self.loaded: dict[str, int] = {"tiny": 4 * GB}
        self.installed = ["tiny", "other"]
        self.in_flight = 0
        self.load_error = ""

    @property
    def asleep(self) -> bool:  # type: ignore[override]
        return not self.loaded

    def memory_bytes(self) -> int:
        return sum(self.loaded.values())

    def get_api_version(self, _: Question) -> Answer:
        return Answer(200, {"version": "0.12.0"})

    def get_api_ps(self, _: Question) -> Answer:
        models = [
            {"name": n, "model": n, "size": b, "size_vram": b} for n, b in self.loaded.items()
        ]
        return Answer(200, {"models": models})

    def post_api_generate(self, question: Question) -> Answer | None:
        name = question.body["model"]
        if name not in self.installed:
            return Answer(404, {"error": f"model '{name}' not found"})
        if question.body.get("keep_alive") == 0 and not question.body.get("prompt"):
            threading.Thread(target=self._unload, args=(name,), daemon=True).start()
            return Answer(
                200, {"model": name, "response": "", "done": True, "done_reason": "unload"}
            )
        if self.load_error:
            return Answer(500, {"error": self.load_error})
        self.loaded.setdefault(name, 4 * GB)
        if not question.body.get("prompt"):
            return Answer(200, {"model": name, "response": "", "done": True, "done_reason": "load"})
        if not self.takes(self.work_seconds, question):
            return None
        return Answer(200, {"model": name, "response": " w", "done": True, "done_reason": "length"})

    def work(self, question: Question) -> Answer | None:
        name = question.body["model"]
        if name not in self.installed:
            said = f'model "{name}" not found, try pulling it first'
            return Answer(404, {"error": {"message": said, "type": "api_error"}})
        if self.load_error:
            return Answer(500, {"error": {"message": self.load_error}})
        self.name = name
        self.loaded.setdefault(name, 4 * GB)
        return super().work(question)

    def _unload(self, name: str) -> None:
        while self.in_flight:
            time.sleep(0.002)
        self.loaded.pop(name, None)
        self.changed()


class LlamaCpp(Model):
    """llama-server: with `router` the `states` of its models, without it one model; `idle` is a
    single model that --sleep-idle-seconds put to sleep."""

    knows = ("response_format", "json_schema", "json_object")
    masks = False
    picture_refusal = (500, "image input is not supported - hint: you may need the mmproj")

    def prepare(self) -> None:
        self.router = True
        self.states: dict[str, str] = {"tiny": "loaded", "other": "unloaded"}
        self.idle = False
        self.load_seconds = 0.0
        self.load_fails = False
        self.failed: set[str] = set()

    @property
    def asleep(self) -> bool:  # type: ignore[override]
        if not self.router:
            return self.idle
        return not any(state in ("loaded", "loading") for state in self.states.values())

    def memory_bytes(self) -> int:
        if not self.router:
            return 0 if self.idle else self.memory_awake
        return sum(self.memory_awake for state in self.states.values() if state == "loaded")

    def get_health(self, _: Question) -> Answer:
        return Answer(200, {"status": "ok"})

    def get_props(self, _: Question) -> Answer:
        return Answer(200, {"is_sleeping": self.idle})

    def get_models(self, _: Question) -> Answer:
        if not self.router:
            return Answer(200, {"object": "list", "data": [{"id": self.name}]})
        data = []
        for name, state in self.states.items():
            status: dict[str, Any] = {"value": state}
            if name in self.failed:
                status.update(failed=True, exit_code=1)
            data.append({"id": name, "status": status})
        return Answer(200, {"data": data})

    def get_v1_models(self, question: Question) -> Answer:
        return self.get_models(question)

    def post_models_unload(self, question: Question) -> Answer:
        name = question.body["model"]
        if not self.router or self.states.get(name, "unloaded") == "unloaded":
            return Answer(400, {"error": {"message": "model is not loaded", "code": 400}})
        self.states[name] = "unloaded"
        return Answer(200, {"success": True})

    def post_models_load(self, question: Question) -> Answer:
        name = question.body["model"]
        if name not in self.states:
            return Answer(404, {"error": {"message": "model is not found", "code": 404}})
        if self.states[name] != "unloaded":
            return Answer(400, {"error": {"message": "model is already loaded", "code": 400}})
        self.states[name] = "loading"
        threading.Thread(target=self._load, args=(name,), daemon=True).start()
        return Answer(200, {"success": True})

    def _load(self, name: str) -> None:
        time.sleep(self.load_seconds)
        if self.load_fails:
            self.failed.add(name)
        self.states[name] = "unloaded" if self.load_fails else "loaded"
        self.changed()

    def work(self, question: Question) -> Answer | None:
        self.idle = False
        if self.router:
            if question.body["model"] not in self.states:
                return Answer(404, {"error": {"message": "model is not found", "code": 404}})
            self.name = question.body["model"]
            self.states[self.name] = "loaded"
        return super().work(question)


class OpenAI(Model):
    """Any server with OpenAI's routes and no way to give memory back."""


class GptSovits(Model):
    """GPT-SoVITS: while it is `generating` nothing is answered; /control?command=exit ends it."""

    def prepare(self) -> None:
        self.memory_awake = 4 * GB
        self.generating = 0.0

    def answer(self, question: Question) -> Answer | None:
        if not self.takes(self.generating, question):
            return None
        return super().answer(question)

    def get_openapi_json(self, _: Question) -> Answer:
        return Answer(200, {"openapi": "3.1.0", "paths": {"/tts": {}}})

    def get_control(self, question: Question) -> Answer:
        if question.query.get("command") == ["exit"]:
            return Answer(500, "Internal Server Error", die=True)
        return Answer(400, {"message": "command is required"})


KINDS: dict[str, type[Model]] = {
    "vllm": Vllm,
    "ollama": Ollama,
    "llama_cpp": LlamaCpp,
    "openai": OpenAI,
    "gpt_sovits": GptSovits,
}
