"""ComfyUI as one of those who hold GPU memory: how much it is, and how it is let go."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import torch
from server import PromptServer

from ..errors import GpuError
from ..faces.engines import unload_engines
from ..gpu.loop import Visit

__all__ = ["ComfyHost", "is_running"]

_POLL = 0.05
# Seconds that the worker may take to unload.
_SEEN = 60.0


class ComfyHost:
    """The `Host` of the arbiter: this process.

    While a node waits for the arbiter its models are unloaded on its own thread; else between
    prompts, by ComfyUI's worker itself.
    """

    def __init__(self) -> None:
        self._visit: Visit | None = None
        self._ends = False

    def end(self) -> None:
        """ComfyUI ends: unload without waiting for its worker, which will not come again."""
        self._ends = True

    @contextmanager
    def visited(self) -> Iterator[Visit]:
        """Let the calling thread, a running node's, be the one that unloads."""
        self._visit = Visit()
        try:
            yield self._visit
        finally:
            self._visit = None

    def device(self) -> str | None:
        """Return the UUID of ComfyUI's GPU ("GPU-..."); None for a CPU and other makers' cards."""
        device = comfy.model_management.get_torch_device()
        if device.type != "cuda":
            return None
        uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
        return None if uuid is None else f"GPU-{uuid}"

    def held(self) -> int:
        """Return the bytes that torch has reserved on ComfyUI's GPU, and models outside of it.

        Newer ComfyUIs keep the weights of dynamic models in memory of their own, until somebody
        wants it.
        """
        device = comfy.model_management.get_torch_device()
        if device.type != "cuda":
            return 0
        dynamic = [
            int(model.loaded_size())
            for model in comfy.model_management.loaded_models()
            if hasattr(model, "is_dynamic") and model.is_dynamic()
        ]
        return int(torch.cuda.memory_reserved(device)) + sum(dynamic)

    def busy(self) -> bool:
        """Return whether prompts run or wait; never while ComfyUI ends."""
        server = getattr(PromptServer, "instance", None)
        return (
            not self._ends and server is not None and server.prompt_queue.get_tasks_remaining() > 0
        )

    async def unload(self) -> str:
        """Unload ComfyUI's models and the face engines, and empty torch's cache."""
        visit = self._visit
        if self._ends:
            _unload()
        elif visit is not None:
            await visit.run_here(_unload)
        else:
            await _unload_between_prompts()
        state = comfy.model_management.vram_state
        if state is comfy.model_management.VRAMState.HIGH_VRAM and self.held():
            return "ComfyUI runs with --highvram or --gpu-only, where its models stay on the GPU"
        return ""


def is_running(prompt_id: str | None = None) -> bool:
    """Return whether a prompt (None: any) runs just now; False where there is no server."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return False
    running, _ = server.prompt_queue.get_current_queue_volatile()
    return any(prompt_id in (None, item[1]) for item in running)


def _unload() -> None:
    try:
        unload_engines()
        comfy.model_management.unload_all_models()
        gc.collect()
        comfy.model_management.soft_empty_cache()
    except RuntimeError as error:  # torch's: the weights move to RAM, which can be full
        raise GpuError(
            f"ComfyUI's models could not be unloaded: {error}. Restart ComfyUI if that stays so."
        ) from error


async def _unload_between_prompts() -> None:
    """Let the worker unload; `/free` does the same. It looks at its flags between prompts only."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        _unload()
        return
    queue = server.prompt_queue
    unload_engines()
    while True:
        while queue.get_tasks_remaining():
            await asyncio.sleep(_POLL)
        queue.set_flag("unload_models", True)
        end = time.monotonic() + _SEEN
        while "unload_models" in queue.get_flags(reset=False):
            await asyncio.sleep(_POLL)  # a prompt came first: after it, then
        # The worker has seen it; it runs no prompt before it is done.
        while _loaded() and not is_running() and time.monotonic() < end:
            await asyncio.sleep(_POLL)
        if not queue.get_tasks_remaining():
            break
    # It takes them from its list before it empties torch's cache.
    comfy.model_management.soft_empty_cache()


def _loaded() -> bool:
    device = comfy.model_management.get_torch_device()
    models = comfy.model_management.loaded_models()
    return any(getattr(model, "load_device", None) == device for model in models)
