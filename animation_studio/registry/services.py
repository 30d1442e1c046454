"""Typed form of `services.yaml`: the servers that share the GPU with ComfyUI, and their needs."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from .models import PathText, _Model

__all__ = [
    "ALL",
    "AUTO_SERVICE",
    "NO_SERVICE",
    "SERVICE_CHOICES",
    "GpuSettings",
    "Needs",
    "Role",
    "ServiceEntry",
    "ServiceKind",
    "TimeOuts",
]

ServiceKind: TypeAlias = Literal["vllm", "ollama", "llama_cpp", "openai", "gpt_sovits"]
Role: TypeAlias = Literal["llm", "voice"]

# What nodes offer beside the services' own names.
ALL, NO_SERVICE, AUTO_SERVICE = "as needed", "none", "auto"
SERVICE_CHOICES = (ALL, NO_SERVICE, AUTO_SERVICE)

MAX_GB = 1024.0
MAX_SECONDS = 3600.0
MAX_PARALLEL = 256


def _base_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("should be an address such as http://127.0.0.1:8000")
    if parts.username or parts.password:
        raise ValueError("holds a password; name the variable that has the key as api_key_env")
    if parts.query or parts.fragment:
        raise ValueError("should end with the path, without ? and #")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("has no valid port") from None
    return value.rstrip("/")


def _variable_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError("should be the name of an environment variable, not the key itself")
    return value


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("should be a path that begins with /, such as /health")
    return value


def _argument(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a zero character, which no command takes")
    return value


Gigabytes: TypeAlias = Annotated[float, Field(gt=0.0, le=MAX_GB)]
Seconds: TypeAlias = Annotated[float, Field(gt=0.0, le=MAX_SECONDS)]
BaseUrl: TypeAlias = Annotated[str, AfterValidator(_base_url)]
Command: TypeAlias = Annotated[list[Annotated[str, AfterValidator(_argument)]], Field(min_length=1)]


class TimeOuts(_Model):
    """How long each act of a service may take, in seconds. `answer` bounds every short question.

    `generate` bounds one whole answer of a language model, waiting in its queue included.
    """

    answer: Seconds = 5.0
    generate: Seconds = 300.0
    sleep: Seconds = 60.0
    wake: Seconds = 60.0
    stop: Seconds = 60.0
    start: Seconds = 300.0


class ServiceEntry(_Model):
    """A server beside ComfyUI: where it answers, how it gives memory back, how it comes again.

    `base_url` is the server's root, without /v1. `vram_gb` is what it takes awake (GiB), None where
    that is not known. Of the services that name the same `group` at most one is awake at a time.
    `stop` and `start` are commands as lists of arguments, run without a shell. Of a language model,
    `vision` says whether it sees pictures (None: not known), `parallel` how many requests it gets
    at once.
    """

    name: str = ""
    kind: ServiceKind
    base_url: BaseUrl
    model: str | None = None
    api_key_env: Annotated[str, AfterValidator(_variable_name)] | None = None
    sleep_level: Annotated[int, Field(ge=1, le=2)] = 1
    vram_gb: Gigabytes | None = None
    group: str | None = None
    vision: bool | None = None
    parallel: Annotated[int, Field(ge=1, le=MAX_PARALLEL)] = 4
    stop: Command | None = None
    start: Command | None = None
    health: Annotated[str, AfterValidator(_path)] | None = None
    timeouts: TimeOuts = Field(default_factory=TimeOuts)

    @property
    def role(self) -> Role:
        """What it is for: voice for GPT-SoVITS, llm for all others."""
        return "voice" if self.kind == "gpt_sovits" else "llm"

    @model_validator(mode="after")
    def _can_come_back(self) -> ServiceEntry:
        if self.stop is not None and self.start is None:
            raise ValueError("has `stop` and no `start`: what is stopped must come back; add it")
        return self


class Needs(_Model):
    """GiB that must be free for each purpose where a node says no figure of its own.

    A language model or voice takes its own `vram_gb` where it is known.
    """

    image: Gigabytes = 12.0
    llm: Gigabytes = 13.0
    voice: Gigabytes = 4.0


class GpuSettings(_Model):
    """The `gpu:` section. `device` is NVML's index; None is the GPU that ComfyUI uses.

    `automatic_leases` lets nodes that use a service, or sample, take their lease without a guard.
    `after_crash` says whether services that a crash left paused are resumed at the next start, or
    only offered. `settle_seconds` is how long memory may take to come back after a service said
    that it sleeps. ComfyUIs that share a GPU share a `state_folder`.
    """

    device: Annotated[int, Field(ge=0, le=63)] | None = None
    needs_gb: Needs = Field(default_factory=Needs)
    automatic_leases: bool = True
    after_crash: Literal["resume", "offer"] = "resume"
    settle_seconds: Seconds = 5.0
    state_folder: PathText | None = None
