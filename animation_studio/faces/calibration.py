"""Where to put the threshold: genuine and impostor scores of the user's own references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .engine import ModelId
from .references import References
from .similarity import ScoreRule

if TYPE_CHECKING:
    from .engine import Vectors

__all__ = ["Calibration", "CharacterScores", "calibrate"]


@dataclass(frozen=True)
class CharacterScores:
    """One character's part: its genuine scores, and others' scores against its references.

    The three scores are None where there is nothing to measure (a character with one reference
    has no genuine score). `confused_with` is the character whose reference came nearest.
    """

    character: str
    name: str
    references: int
    lowest_genuine: float | None
    mean_genuine: float | None
    highest_impostor: float | None
    confused_with: str | None


@dataclass(frozen=True)
class Calibration:
    """A proposed threshold and what it rests on.

    `genuine` and `impostor` are float32 scores, sorted. `false_accept_rate` is what was asked,
    `measured_far` and `measured_frr` (false rejections; None without genuine scores) are what
    `threshold` gives on these scores. `equal_error_threshold` is where both rates are nearest to
    each other. `overlap` is true when an impostor scores as high as a genuine face.
    """

    model: ModelId
    rule: ScoreRule
    k: int
    genuine: Vectors
    impostor: Vectors
    threshold: float
    false_accept_rate: float
    measured_far: float
    measured_frr: float | None
    equal_error_threshold: float | None
    overlap: bool
    per_character: tuple[CharacterScores, ...]
    warnings: tuple[str, ...]

    def as_yaml(self) -> str:
        """Return lines for character_presets.yaml, or a comment for engines it does not serve.

        `consistency_threshold` there is a cosine similarity of insightface's embeddings; other
        engines' thresholds go into the node.
        """
        raise NotImplementedError


def calibrate(
    references: Sequence[References],
    false_accept_rate: float,
    rule: ScoreRule = "max",
    k: int = 3,
) -> Calibration:
    """Propose the lowest threshold whose measured false-accept rate is at most the asked one.

    Raises FaceError for fewer than two characters, for references of different models, and for
    a rate outside 0 to 1.
    """
    raise NotImplementedError
