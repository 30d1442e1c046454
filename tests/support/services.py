"""Services of the product at stand-in servers, with short time-outs, and what their errors owe."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from animation_studio.errors import ServiceError
from animation_studio.gpu.service import Service
from animation_studio.gpu.services import open_service
from animation_studio.registry.services import ServiceEntry
from tests.support.standin_service import StandIn

__all__ = [
    "FAULTS",
    "SHORT",
    "check_error",
    "fails",
    "only_service",
    "run",
    "service_file",
    "service_of",
]

# Of configs/services.yaml.
_SHIPPED = ("qwen2.5-vl-7b", "qwen2.5-14b", "qwen2.5-coder-7b", "gpt-sovits")

SHORT = {"answer": 0.5, "sleep": 0.6, "wake": 0.6, "stop": 1.5, "start": 1.5}
# Each way in which a route can fail, by name, as arguments of StandIn.fault.
FAULTS: dict[str, dict[str, Any]] = {
    "status 500": {"status": 500},
    "status 503": {"status": 503, "text": ""},
    "status 401": {"status": 401},
    "other JSON": {"status": 200, "text": '{"something": "else"}'},
    "a list": {"status": 200, "text": "[1]"},
    "too late": {"delay": 3.0},
    "never": {"hang": True},
    "half of it": {"truncated": True},
    "cut off": {"cut": True},
    "megabytes": {"megabytes": 3},
    "dies": {"die": True},
}


def service_of(server: StandIn, folder: Path, **entry: Any) -> Service:
    """Return the product's service for a stand-in; `entry` is what services.yaml would say."""
    timeouts = {**SHORT, **entry.pop("timeouts", {})}
    values = {"kind": server.kind, "base_url": server.url, "timeouts": timeouts, **entry}
    return open_service("writer", ServiceEntry.model_validate(values), folder)


def only_service(
    standins: Path,
    config: Path,
    key: str,
    entry: Mapping[str, Any],
    gpu: Mapping[str, Any] | None = None,
) -> None:
    """Write the stand-ins' configuration to `config`, with one service in place of the shipped."""
    shutil.copytree(standins, config)
    (config / "services.yaml").write_text(service_file(key, entry, gpu), encoding="utf-8")


def service_file(key: str, entry: Mapping[str, Any], gpu: Mapping[str, Any] | None = None) -> str:
    """Return a services.yaml with one service in place of the shipped."""
    text = {"services": {**dict.fromkeys(_SHIPPED), key: dict(entry)}, "gpu": dict(gpu or {})}
    return yaml.safe_dump(text)


def run(act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run an async function in a loop of its own; what hangs fails after ten seconds."""
    return asyncio.run(asyncio.wait_for(act(), 10))


def check_error(error: ServiceError) -> None:
    """An error names the service and its address, what was asked, and what to do."""
    text = str(error)
    assert text.startswith("Service writer (http://127.0.0.1:"), text
    assert " was asked to " in text or "command" in text, text
    assert text.endswith("."), text
    assert len(text) < 6000, text


async def fails(coroutine: Coroutine[Any, Any, Any]) -> str:
    """Await what must raise a ServiceError, and return its message."""
    with pytest.raises(ServiceError) as caught:
        await coroutine
    check_error(caught.value)
    return str(caught.value)
