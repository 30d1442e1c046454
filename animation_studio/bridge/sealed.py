"""Texts that only this process may have written.

What a node hands to itself through an expanded graph stands in a prompt, and prompts come from
strangers: a text without this process's seal is refused.
"""

from __future__ import annotations

import hmac
import secrets

__all__ = ["sealed", "unsealed"]

_KEY = secrets.token_bytes(32)


def sealed(text: str) -> str:
    """Return a text with its seal before it."""
    return f"{_seal(text)} {text}"


def unsealed(text: str) -> str | None:
    """Return the text behind a seal, None where this process did not seal it."""
    seal, _, inner = text.partition(" ")
    good = hmac.compare_digest(seal.encode(errors="replace"), _seal(inner).encode())
    return inner if good else None


def _seal(text: str) -> str:
    return hmac.new(_KEY, text.encode(errors="replace"), "sha256").hexdigest()
