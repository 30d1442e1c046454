"""Language models for nodes: which service, room for it on the GPU, and waiting for its answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..errors import ConfigError, ServiceError
from ..gpu.lease import LeaseRequest
from ..gpu.service import ServiceState, named
from ..llm.chat import ChatClient
from ..llm.messages import Tokens
from ..registry import AUTO_SERVICE, ServiceEntry, content_hash
from . import gpu, studio

__all__ = [
    "check_service",
    "client_of",
    "converse",
    "count_on",
    "model_of",
    "service_fingerprint",
]

T = TypeVar("T")
# How long a server may take to say which model it has.
_LOOK_SECONDS = 1.0


def check_service(name: object, *, vision: bool = False) -> str:
    """Return the key of the service that a widget means.

    `auto` is the first language model, where pictures are to be seen the first that says
    `vision: true`, or else that does not deny it. Raises ConfigError for one that is unknown, a
    voice, or blind where it may not be.
    """
    registry = studio.registry()
    if name != AUTO_SERVICE:
        entry = registry.service(str(name))
        if entry.role != "llm":
            raise ConfigError(
                f"service {name!r} is a voice ({entry.kind}), and a language model is needed: "
                f"{', '.join(registry.language_models()) or 'services.yaml has none'}."
            )
        if vision and entry.vision is False:
            raise ConfigError(
                f"service {name!r} sees no pictures (vision: false in services.yaml). Choose a "
                "vision model."
            )
        return str(name)
    keys = registry.language_models()
    if vision:
        sees = registry.services
        keys = [key for key in keys if sees[key].vision] or [
            key for key in keys if sees[key].vision is None
        ]
    if not keys:
        what = "language model that sees pictures" if vision else "language model"
        raise ConfigError(
            f"services.yaml names no {what}. Add one as configs/services.yaml shows, or write the "
            "plan by hand with Plan From Text."
        )
    return keys[0]


def service_fingerprint(name: object, *, vision: bool = False) -> str:
    """Return what changes when another model would answer."""
    key = check_service(name, vision=vision)
    entry = studio.registry().service(key)
    return content_hash(key, entry.kind, entry.base_url, model_of(key))


# The model that each server had when it was last asked, by its address.
_served: dict[str, str] = {}


def model_of(key: str) -> str:
    """Return the model that a service has, without waking it; "" where that cannot be told.

    While the server is down, or slow to say so, it is the one that it had the last time. Looks for
    no interruption, since ComfyUI asks for fingerprints where it would be lost.
    """
    entry = studio.registry().service(key)
    if entry.model is not None:
        return entry.model
    with contextlib.suppress(ServiceError, asyncio.TimeoutError):
        asked = asyncio.wait_for(client_of(key).model(), _LOOK_SECONDS)
        _served[entry.base_url] = gpu.ask(asked)
    return _served.get(entry.base_url, "")


def client_of(key: str) -> ChatClient:
    """Return what asks a service. Raises ConfigError."""
    return ChatClient(key, studio.registry().service(key))


def converse(
    key: str,
    node_id: str,
    work: Callable[[ChatClient], Coroutine[Any, Any, T]],
    *,
    lease: bool = False,
) -> tuple[T, list[str]]:
    """Let `work` ask the service `key`, awake and with room on the GPU; return warnings too.

    From a node's thread. With `lease` the GPU is leased also where `automatic_leases` is off. Ends
    within a second when ComfyUI is interrupted; `work` is cancelled and the server told. Raises
    StudioError as `gpu.take` and `work`.
    """
    warnings = _awaken(key, node_id, lease=lease)
    client = client_of(key)
    return gpu.wait_for(work(client)), warnings


def count_on(node_id: str, what: str) -> Tokens:
    """Return what shows on a node how many tokens an answer has."""
    return lambda count: gpu.show(node_id, f"{what}: {count} tokens")


def _awaken(key: str, node_id: str, *, lease: bool) -> list[str]:
    """Take the lease for a language model, unless this prompt has it and the model is awake."""
    entry = studio.registry().service(key)
    arbiter, prompt = gpu.arbiter(), gpu.current_prompt()
    state = gpu.wait_for(named(arbiter.services, key).condition())
    held = arbiter.lease
    leased = held is not None and (held.holder, held.purpose) == (prompt, "llm")
    if state.state is ServiceState.AWAKE and leased:
        return []
    if not (lease or studio.registry().gpu_settings().automatic_leases):
        if state.state is ServiceState.AWAKE:
            return []
        why = f": {state.detail.rstrip('.')}" if state.detail else ""
        raise ServiceError(
            f"Service {key} ({entry.base_url}) is {state.state.value}{why}. Put a VRAM Guard with "
            "the purpose llm before this node, or set automatic_leases in services.yaml."
        )
    request = LeaseRequest(prompt, "llm", service=key, timeout=_patience(entry))
    return gpu.take(request, node_id).warnings


def _patience(entry: ServiceEntry) -> float:
    """Seconds in which room must be made and the service be up: a start, and others' ends."""
    return entry.timeouts.start + entry.timeouts.sleep
