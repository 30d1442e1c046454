"""Names of samplers: diffusers' scheduler classes and the field's short names, as ComfyUI's pairs.

What diffusers calls a scheduler is, in ComfyUI, a sampler (how to step) and a scheduler (which
sigmas). The pairs follow the table "Schedulers" of diffusers' documentation (A1111 / k-diffusion
name -> diffusers class) read backwards, with ComfyUI's own names for the k-diffusion samplers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import ConfigError
from .problems import nearest

__all__ = ["SamplerPair", "SamplerVocabulary", "known_scheduler_names", "resolve_scheduler"]


class SamplerPair(NamedTuple):
    """ComfyUI's `sampler_name` and `scheduler` of a KSampler."""

    sampler: str
    scheduler: str


@dataclass(frozen=True)
class SamplerVocabulary:
    """The samplers and schedulers of the running ComfyUI."""

    samplers: Sequence[str]
    schedulers: Sequence[str]


_DIFFUSERS = {
    "DDIMScheduler": SamplerPair("ddim", "ddim_uniform"),
    "DDPMScheduler": SamplerPair("ddpm", "normal"),
    "DEISMultistepScheduler": SamplerPair("deis", "normal"),
    "DPMSolverMultistepScheduler": SamplerPair("dpmpp_2m", "normal"),
    "DPMSolverSDEScheduler": SamplerPair("dpmpp_sde", "normal"),
    "EulerAncestralDiscreteScheduler": SamplerPair("euler_ancestral", "normal"),
    "EulerDiscreteScheduler": SamplerPair("euler", "normal"),
    "HeunDiscreteScheduler": SamplerPair("heun", "normal"),
    "IPNDMScheduler": SamplerPair("ipndm", "normal"),
    "KDPM2AncestralDiscreteScheduler": SamplerPair("dpm_2_ancestral", "normal"),
    "KDPM2DiscreteScheduler": SamplerPair("dpm_2", "normal"),
    "LCMScheduler": SamplerPair("lcm", "sgm_uniform"),
    "LMSDiscreteScheduler": SamplerPair("lms", "normal"),
    "UniPCMultistepScheduler": SamplerPair("uni_pc", "normal"),
}

_SHORT = {
    "DDIM": SamplerPair("ddim", "ddim_uniform"),
    "DPM++ 2M": SamplerPair("dpmpp_2m", "normal"),
    "DPM++ 2M Karras": SamplerPair("dpmpp_2m", "karras"),
    "DPM++ 2M SDE": SamplerPair("dpmpp_2m_sde", "normal"),
    "DPM++ 2M SDE Karras": SamplerPair("dpmpp_2m_sde", "karras"),
    "DPM++ SDE": SamplerPair("dpmpp_sde", "normal"),
    "DPM++ SDE Karras": SamplerPair("dpmpp_sde", "karras"),
    "Euler": SamplerPair("euler", "normal"),
    "Euler a": SamplerPair("euler_ancestral", "normal"),
    "Heun": SamplerPair("heun", "normal"),
    "LCM": SamplerPair("lcm", "sgm_uniform"),
    "UniPC": SamplerPair("uni_pc", "normal"),
}

_BY_FOLD = {name.casefold(): pair for name, pair in (_DIFFUSERS | _SHORT).items()}


def known_scheduler_names() -> list[str]:
    """Return the names that are understood beside ComfyUI's own pairs."""
    return sorted(_DIFFUSERS) + sorted(_SHORT)


def resolve_scheduler(name: str, vocabulary: SamplerVocabulary | None = None) -> SamplerPair:
    """Return ComfyUI's sampler and scheduler for `name`.

    `name` is a diffusers class, a short name ("Euler a"), or ComfyUI's own "sampler" or
    "sampler/scheduler". `vocabulary` are the names of the running ComfyUI; without it (outside
    ComfyUI) a "sampler/scheduler" of any names is taken as it is. Raises ConfigError listing the
    known names.
    """
    pair = _BY_FOLD.get(name.strip().casefold())
    if pair is None:
        pair = _comfyui_pair(name.strip(), vocabulary)
    missing = vocabulary is not None and (
        pair.sampler not in vocabulary.samplers or pair.scheduler not in vocabulary.schedulers
    )
    if missing:
        raise ConfigError(
            f"scheduler {name!r} is {pair.sampler}/{pair.scheduler} in ComfyUI, and this ComfyUI "
            "does not have it; update ComfyUI or choose another"
        )
    return pair


def _comfyui_pair(name: str, vocabulary: SamplerVocabulary | None) -> SamplerPair:
    sampler, slash, scheduler = name.partition("/")
    sampler, scheduler = sampler.strip(), scheduler.strip() or "normal"
    if vocabulary is None:
        if slash and sampler:
            return SamplerPair(sampler, scheduler)
    elif sampler in vocabulary.samplers and scheduler in vocabulary.schedulers:
        return SamplerPair(sampler, scheduler)
    known = known_scheduler_names()
    comfy = (
        "one of ComfyUI's samplers with a scheduler, as in 'dpmpp_2m/karras'"
        if vocabulary is None
        else f"'sampler/scheduler' of ComfyUI's samplers ({', '.join(vocabulary.samplers)}) and "
        f"schedulers ({', '.join(vocabulary.schedulers)})"
    )
    raise ConfigError(
        f"unknown scheduler {name!r}.{nearest(name, known)} Known: {', '.join(known)}; or {comfy}"
    )
