"""What is wrong in a configuration file, and where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Problem", "nearest"]


@dataclass(frozen=True)
class Problem:
    """One thing to mend in a configuration file.

    `severity` is "error" where an entry or a file cannot be used, "warning" where it can. `line`
    counts from 1; 0 means the file as a whole. `key` is the dotted path of the value.
    """

    severity: Literal["error", "warning"]
    file: Path
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """Return `FILE:LINE: KEY: MESSAGE`, the form that editors and terminals make clickable."""
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the known word most like `word`, or an empty string.

    A known word that only says more (`cfg_scale` for `cfg`) counts as like.
    """
    by_fold, fold = {name.casefold(): name for name in known}, word.casefold()
    found = difflib.get_close_matches(fold, list(by_fold), n=1, cutoff=0.6)
    if not found and len(fold) >= 3:
        found = [name for name in by_fold if name.startswith(fold)]
    return f" Did you mean '{by_fold[found[0]]}'?" if found else ""
