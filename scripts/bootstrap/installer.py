"""Running pip: its progress in our lines, its whole output in a log, its failures as sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .processes import follow
from .say import Problem, Steps, full_disk

__all__ = ["explain_failure", "pip"]

QUIET = ("--no-input", "--disable-pip-version-check", "--no-color", "--progress-bar", "off")
NETWORK = (
    "Temporary failure in name resolution",
    "Name or service not known",
    "nodename nor servname",
    "getaddrinfo failed",
    "NameResolutionError",
    "NewConnectionError",
    "Failed to establish a new connection",
    "Network is unreachable",
    "No route to host",
    "Connection refused",
    "ConnectTimeoutError",
    "ConnectionResetError",
    "Connection aborted",
    "Read timed out",
    "ReadTimeoutError",
    "IncompleteRead",
    "ProxyError",
    "Max retries exceeded",
)
PROGRESS = re.compile(r"^\s*(Collecting|Downloading|Installing collected packages|Building wheel)")


def pip(python: Path, arguments: Sequence[str | Path], log: Path, steps: Steps) -> None:
    """Run `python -m pip` with these arguments; its output goes to `log`.

    Raises Problem with the reason and what to do when pip fails.
    """
    status, output = follow([python, "-m", "pip", *arguments, *QUIET], log, steps, _describe)
    if status != 0:
        raise Problem(explain_failure(output, log))


def _describe(line: str) -> str | None:
    return "pip: " + line.strip()[:70] if PROGRESS.match(line) else None


def explain_failure(output: str, log: Path) -> str:
    """Return why pip failed and what to do, as a sentence, from what it printed."""
    tail = f" pip's own words are in {log}."
    if "No space left on device" in output or "Errno 28" in output or "WinError 112" in output:
        return full_disk("a package") + tail
    if "CERTIFICATE_VERIFY_FAILED" in output or "SSLCertVerificationError" in output:
        return (
            "The package index was reached, but its certificate is not trusted here. Behind a "
            "company's proxy, name its certificates in the environment variable PIP_CERT and start "
            "again." + tail
        )
    if any(sign in output for sign in NETWORK):
        return (
            "The package index could not be reached, so nothing was installed. Check the network "
            "(and proxy settings) and start again; what is already there is kept." + tail
        )
    if "No module named pip" in output:
        return "This Python environment has no pip; `python -m ensurepip` may add it." + tail
    missing = re.search(r"No matching distribution found for (\S+)", output)
    if missing:
        return (
            f"The package index has no {missing[1]} for this Python and this system. Use Python "
            "3.10 to 3.13 on a 64-bit system, for example `python3.12 scripts/quickstart`; and "
            "check the network, which a pip without answers does not always mention." + tail
        )
    if "ResolutionImpossible" in output:
        return "The required packages exclude each other." + tail
    if "Permission denied" in output or "WinError 5" in output:
        return "pip may not write into the environment: permission denied." + tail
    errors = [line.strip() for line in output.splitlines() if line.lower().startswith("error")]
    return f"pip failed: {errors[-1] if errors else 'it gave no reason.'}" + tail
