"""What a request may say of chance: the seed that a server takes, and the temperature."""

from __future__ import annotations

import hashlib

from ..errors import PlanError

__all__ = ["check_temperature", "seed_of"]

_SEEDS = 2**63
_MAX_TEMPERATURE = 2.0


def seed_of(seed: int) -> int:
    """Return a seed of ComfyUI's, 0 to 2**64 - 1, as one of 0 to 2**63 - 1, which servers take.

    Those that fit stay; each of the others becomes one of its own. Raises PlanError for what is
    no whole number, or negative.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise PlanError(f"seed {seed!r}: give a whole number, 0 or more.")
    if seed < _SEEDS:
        return seed
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:8], "big") % _SEEDS


def check_temperature(temperature: float) -> None:
    """Raise PlanError for what is no number from 0 to 2."""
    is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not is_number or not 0.0 <= temperature <= _MAX_TEMPERATURE:  # nor is NaN
        raise PlanError(f"temperature {temperature!r}: give a number from 0 to 2.")
