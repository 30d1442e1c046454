"""The errors a user can meet, as one small hierarchy.

StudioError                 everything below; catch this one
├── ConfigError             a configuration file, entry or setting is missing or wrong
├── LoraError               a LoRA file cannot be used
│   └── LoraBaseError       ... because it was made for another base model
├── FaceError               a face model, a reference or a picture of a face cannot be used
├── ControlError            a control, preprocessor, map or pose cannot be used
├── ServiceError            a service (language model, voice) did not do what it was asked
├── PlanError               a plan, written by hand or by a language model, cannot be used
├── GpuError                room on the GPU could not be had, or not be given back
├── MissingPackageError     an optional Python package is not installed
└── RunError                a prompt sent to ComfyUI did not give its result
    ├── ServerUnreachableError  ... because nothing answers at the address
    ├── PromptRejectedError     ... because ComfyUI refused the prompt
    └── PromptFailedError       ... because a node failed, or the run was interrupted

Every message says what failed, where (file, key, node) and what to do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .gpu.report import GpuReport

__all__ = [
    "ConfigError",
    "ControlError",
    "FaceError",
    "GpuError",
    "LoraBaseError",
    "LoraError",
    "MissingPackageError",
    "PlanError",
    "PromptFailedError",
    "PromptRejectedError",
    "RunError",
    "ServerUnreachableError",
    "ServiceError",
    "StudioError",
]


class StudioError(Exception):
    """Base of every error that Animation Studio raises on purpose."""


class ConfigError(StudioError):
    """A configuration file, entry or setting is missing or wrong."""


class LoraError(StudioError):
    """A LoRA file is missing, damaged, of an unsupported form, or matches nothing."""


class LoraBaseError(LoraError):
    """A LoRA was trained for another base model than the checkpoint in use."""


class ControlError(StudioError):
    """A control type, ControlNet file, preprocessor, map or pose cannot be used."""


class FaceError(StudioError):
    """A face model, a reference embedding or a picture of a face cannot be used."""


class ServiceError(StudioError):
    """A service of services.yaml did not do what it was asked."""


class PlanError(StudioError):
    """A plan, written by hand or by a language model, names or holds what it may not."""


class GpuError(StudioError):
    """Room on the GPU could not be had, or what was paused could not be given back.

    `report` says what was tried, where an operation got that far.
    """

    def __init__(self, message: str, *, report: GpuReport | None = None) -> None:
        super().__init__(message)
        self.report = report


class MissingPackageError(StudioError):
    """An optional package is needed and not installed; the message carries the install line."""


class RunError(StudioError):
    """A prompt sent to ComfyUI did not give its result."""


class ServerUnreachableError(RunError):
    """Nothing answers at ComfyUI's address."""


class PromptRejectedError(RunError):
    """ComfyUI refused the prompt, wholly or in part, before running it."""


class PromptFailedError(RunError):
    """A node failed while the prompt ran, or the run was interrupted."""
