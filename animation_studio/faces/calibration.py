"""Where to put the threshold: genuine and impostor scores of the user's own references.

Genuine scores are leave-one-out: each reference of a character against its others. Impostor
scores are each reference of a character against all references of every other character. Both go
through the same rule as the filter's own scores. The estimator is the empirical one: a threshold's
false-accept rate is the share of impostor scores at or over it, its false-reject rate the share of
genuine scores under it. It assumes no distribution, and so it cannot speak of rates under one in
the number of impostor scores; zero of n still leaves up to 3 / n with 95 % confidence (the "rule
of three", Hanley and Lippman-Hand, JAMA 1983). Nor does it know better than the references:
several faces of one picture score as high with each other as none of a new picture will.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FaceError
from .engine import ModelId
from .references import References
from .similarity import ScoreRule, score_against

if TYPE_CHECKING:
    from .engine import Vectors

__all__ = ["Calibration", "CharacterScores", "calibrate"]

# Fewer say little of a face from another side or in another light.
_ENOUGH_REFERENCES = 5


@dataclass(frozen=True)
class CharacterScores:
    """One character's part: its genuine scores, and others' scores against its references.

    The genuine scores are None for a character with a single reference. `confused_with` is the
    character whose reference came nearest, with `highest_impostor`.
    """

    character: str
    name: str
    references: int
    lowest_genuine: float | None
    mean_genuine: float | None
    highest_impostor: float
    confused_with: str


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
        """Return lines for character_presets.yaml.

        `consistency_threshold` there is a cosine similarity of insightface's embeddings; every
        other engine has its own in `consistency_thresholds`.
        """
        how = f"# {self.model}, score by {self.rule}, false accepts at most "
        lines = [f"{how}{self.false_accept_rate:.4g}"]
        # What the configuration allows.
        value = min(max(self.threshold, 0.0), 1.0)
        key = f"consistency_threshold: {value:g}"
        if self.model.engine != "insightface":
            key = f"consistency_thresholds: {{{self.model.engine}: {value:g}}}"
        for one in self.per_character:
            lines += [f"{one.character}:", f"  {key}"]
        return "\n".join(lines) + "\n"


def calibrate(
    references: Sequence[References],
    false_accept_rate: float,
    rule: ScoreRule = "max",
    k: int = 3,
) -> Calibration:
    """Propose the lowest threshold whose measured false-accept rate is at most the asked one.

    All thresholds between two neighbouring scores measure the same, so the proposal is the middle
    between them, with as few decimals as fit. Raises FaceError for fewer than two characters or
    one listed twice, for references of different models, and for a rate outside 0 to 1.
    """
    _check(references, false_accept_rate)
    genuine_of = [_genuine(one, rule, k) for one in references]
    impostor_of = [
        {other.character: _scores(other, one, rule, k) for other in references if other is not one}
        for one in references
    ]
    genuine = np.sort(np.concatenate(genuine_of))
    impostor = np.sort(np.concatenate([part for parts in impostor_of for part in parts.values()]))
    threshold = _threshold(genuine, impostor, false_accept_rate)
    overlap = bool(len(genuine)) and bool(impostor[-1] >= genuine[0])
    per_character = tuple(
        _character(one, own, others)
        for one, own, others in zip(references, genuine_of, impostor_of, strict=True)
    )
    return Calibration(
        model=references[0].model,
        rule=rule,
        k=k,
        genuine=genuine,
        impostor=impostor,
        threshold=threshold,
        false_accept_rate=false_accept_rate,
        measured_far=_at_or_over(impostor, threshold),
        measured_frr=1.0 - _at_or_over(genuine, threshold) if len(genuine) else None,
        equal_error_threshold=_equal_error(genuine, impostor, threshold),
        overlap=overlap,
        per_character=per_character,
        warnings=_warnings(per_character, genuine, impostor, false_accept_rate),
    )


def _check(references: Sequence[References], rate: float) -> None:
    if not 0.0 <= rate <= 1.0:
        raise FaceError(f"False-accept rate {rate}: a share from 0 to 1 is possible, such as 0.01.")
    characters = [one.character for one in references]
    if len(set(characters)) < len(characters):
        raise FaceError(f"A character is listed twice: {', '.join(characters)}. Once is enough.")
    if len(references) < 2:
        raise FaceError(
            "A threshold is calibrated between characters, and here is "
            f"{characters[0] if characters else 'none'}. Give references of two or more characters."
        )
    models = {one.model.sha256: f"{one.model} of {one.character}" for one in references}
    if len(models) > 1:
        raise FaceError(
            f"References of different models do not compare: {', '.join(models.values())}. Use "
            "references that one engine made."
        )


def _genuine(one: References, rule: ScoreRule, k: int) -> Vectors:
    count = len(one.vectors)
    if count < 2:
        return np.empty(0, dtype=np.float32)
    metric, vectors = one.model.metric, one.vectors
    scores = [
        score_against(vectors[place : place + 1], np.delete(vectors, place, 0), metric, rule, k)
        for place in range(count)
    ]
    return np.concatenate(scores)


def _scores(faces: References, against: References, rule: ScoreRule, k: int) -> Vectors:
    return score_against(faces.vectors, against.vectors, against.model.metric, rule, k)


def _threshold(genuine: Vectors, impostor: Vectors, rate: float) -> float:
    # That many of the highest impostors may pass; the next one may not, nor its equals.
    # The small addend mends products such as 0.29 * 100, which is 28.999...
    allowed = int(rate * len(impostor) + 1e-9)
    every = np.concatenate([genuine, impostor])
    if allowed >= len(impostor):
        return _short(float(every.min()) - 0.1, float(every.min()))
    barred = float(impostor[len(impostor) - 1 - allowed])
    above = every[every > barred]
    return _short(barred, float(above.min()) if len(above) else barred + 0.01)


def _short(low: float, high: float) -> float:
    """Return the middle of low < x <= high, rounded as far as it stays between them."""
    middle = (low + high) / 2
    for digits in range(2, 9):
        rounded = round(middle, digits)
        if low < rounded <= high:
            return rounded
    return high


def _at_or_over(scores: Vectors, threshold: float) -> float:
    return float((scores.astype(np.float64) >= threshold).mean())


def _equal_error(genuine: Vectors, impostor: Vectors, threshold: float) -> float | None:
    if not len(genuine):
        return None
    every = np.unique(np.concatenate([genuine, impostor]).astype(np.float64))
    # Between neighbours, and at the highest of all; of equals the proposal, which comes first.
    candidates = [threshold, *((every[1:] + every[:-1]) / 2), every[-1]]
    return float(
        min(
            candidates,
            key=lambda one: abs(_at_or_over(impostor, one) - (1 - _at_or_over(genuine, one))),
        )
    )


def _character(one: References, own: Vectors, others: dict[str, Vectors]) -> CharacterScores:
    nearest = max(others, key=lambda other: float(others[other].max()))
    return CharacterScores(
        character=one.character,
        name=one.name,
        references=len(one.vectors),
        lowest_genuine=float(own.min()) if len(own) else None,
        mean_genuine=float(own.mean()) if len(own) else None,
        highest_impostor=float(others[nearest].max()),
        confused_with=nearest,
    )


def _warnings(
    characters: Sequence[CharacterScores], genuine: Vectors, impostor: Vectors, rate: float
) -> tuple[str, ...]:
    found = []
    few = [f"{c.name} ({c.references})" for c in characters if c.references < _ENOUGH_REFERENCES]
    if few:
        found.append(
            f"Fewer than {_ENOUGH_REFERENCES} references: {', '.join(few)}. Add faces from other "
            "sides and in other light; until then the threshold is a first guess."
        )
    if not len(genuine):
        found.append(
            "No character has two references, so there are no genuine scores: the threshold only "
            "keeps the other characters out."
        )
    if rate * len(impostor) < 1:
        found.append(
            f"{len(impostor)} impostor scores cannot show a false-accept rate of {rate:.4g}: the "
            f"smallest they can is {1 / len(impostor):.2g}. The threshold keeps all of them out, "
            f"and the true rate may still be up to {min(1.0, 3 / len(impostor)):.2g}."
        )
    if len(genuine) and impostor[-1] >= genuine[0]:
        pairs = [
            f"{c.name} with {c.confused_with} ({c.highest_impostor:.2f})"
            for c in characters
            if c.highest_impostor >= genuine[0]
        ]
        found.append(
            f"Genuine and impostor scores overlap: the lowest genuine is {genuine[0]:.2f}, and as "
            f"high came {', '.join(pairs)}. No threshold keeps them apart: remove references that "
            "show a face badly, or try another score rule or engine (clip_vision for stylised "
            "faces)."
        )
    return tuple(found)
