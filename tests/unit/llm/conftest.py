"""Stand-in language models for tests of the llm room, and clients that ask them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import pytest

from animation_studio.llm.chat import ChatClient
from animation_studio.registry import ServiceEntry
from tests.support.standin_service import StandIn

__all__ = ["Serve"]

# A stand-in of a kind ("vllm"), its model set up, and a client of it.
Serve: TypeAlias = Callable[..., tuple[StandIn, ChatClient]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a stand-in: `serve("vllm", says=[...], gives_logprobs=False)`."""
    with ExitStack() as stack:

        def serve(kind: str = "vllm", **model: Any) -> tuple[StandIn, ChatClient]:
            server = stack.enter_context(StandIn(kind))
            server.steer({"model": model})
            entry = ServiceEntry.model_validate({"kind": kind, "base_url": server.url})
            return server, ChatClient("eyes", entry)

        yield serve
