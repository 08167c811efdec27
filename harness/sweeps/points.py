"""Points to try: a scrambled low-discrepancy sequence over a card's search ranges."""

import hashlib
import math
from collections.abc import Mapping, Sequence

from harness.cards import Hyperparameter, SubmissionCard
from harness.errors import UsageError


def search_space(card: SubmissionCard) -> dict[str, Hyperparameter]:
    """Return the hyperparameters that a tuner may choose."""
    return {name: known for name, known in card.hyperparameters.items() if known.search}


def draw_points(card: SubmissionCard, count: int, words: Sequence[object]) -> list[dict[str, str]]:
    """Return `count` points as texts that `--set` reads; equal `words` give equal points.

    Halton's sequence, scrambled (Owen 2017, 1706.02808, as in scipy), mapped to each range's
    scale: few points cover every axis evenly, which independent draws do not.

    Raises:
        UsageError: the card has no search ranges.
    """
    from scipy.stats import qmc

    space = search_space(card)
    if not space:
        raise UsageError(
            f"{card.name} has no search ranges, so there is nothing to draw. Give `search` for a "
            "hyperparameter on its card, or a list of points in the sweep's file."
        )
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    sequence = qmc.Halton(len(space), scramble=True, rng=int.from_bytes(digest[:8], "big"))
    unit = sequence.random(count)
    return [
        {name: _value(known, u) for (name, known), u in zip(space.items(), row, strict=True)}
        for row in unit.tolist()
    ]


def _value(known: Hyperparameter, u: float) -> str:
    assert known.search is not None
    low, high = known.search.low, known.search.high
    if known.search.scale == "log":
        value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    else:
        value = low + u * (high - low)
    if known.type == "integer":
        return str(min(math.floor(high), max(math.ceil(low), round(value))))
    return f"{min(high, max(low, value)):.6g}"


def as_settings(submission: str, point: Mapping[str, str]) -> tuple[str, ...]:
    """Return a point as `--set`s addressed to the submission's name."""
    return tuple(f"{submission}.{name}={value}" for name, value in point.items())
