"""The services of services.yaml, each as the Service of its kind."""

from __future__ import annotations

from pathlib import Path

from ..registry.services import ServiceEntry, ServiceKind
from .gpt_sovits import GptSovitsService
from .http_service import HttpService
from .llama_cpp import LlamaCppService
from .ollama import OllamaService
from .openai_compatible import OpenAIService
from .service import Service
from .vllm import VllmService

__all__ = ["open_service"]

_KINDS: dict[ServiceKind, type[HttpService]] = {
    "vllm": VllmService,
    "ollama": OllamaService,
    "llama_cpp": LlamaCppService,
    "openai": OpenAIService,
    "gpt_sovits": GptSovitsService,
}


def open_service(key: str, entry: ServiceEntry, log_folder: Path) -> Service:
    """Return the service `key` as its kind's Service; nothing is sent before it is asked.

    `log_folder` takes KEY.log with what its start command prints, and KEY.1.log of the time before.
    """
    return _KINDS[entry.kind](key, entry, log_folder)
