"""Which ranks an entry's score leaves open, and which entries are tied.

Reading quantiles off the ranks of bootstrap replicates is the obvious way and fails where it
matters: of twelve entries that hardly differ, the best one's 95 % interval holds its rank in
two cases of three, and a noisy one's hardly ever, since a replicate's noise comes on top of the
sample's. So an entry's score is compared with every other's, all comparisons of one entry
together at one confidence, and its rank lies behind those that are shown to be better and
before those that are shown to be worse (Mogstad, Romano, Shaikh & Wilhelm 2024, "Inference for
Ranks with Applications to Mobility across Neighbourhoods and Academic Achievement across
Countries").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.judging.bootstrap import CONFIDENCE, expansion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class RankIntervals:
    """By entry, in the order of the scores given; rank 1 is the best."""

    low: list[int]
    high: list[int]
    group: list[int]  # 1 for the best; no interval of one group overlaps one of another


def rank_intervals(
    scores: "Sequence[float] | NDArray[np.float64]",
    replicates: "NDArray[np.float64]",
    n: int,
    confidence: float = CONFIDENCE,
) -> RankIntervals:
    """Return each entry's interval of ranks and the groups whose intervals overlap.

    `scores` [entries] are those observed, higher is better; `replicates` [replicates, entries]
    those of the bootstrap, a row from one resampling of everything; `n` is the size of the
    smallest sample that was resampled, studies or seeds. An entry's own rank by `scores` always
    lies in its interval. With one entry there is nothing to resample.

    Raises:
        ValueError: `n` is less than 2.
    """
    import numpy as np

    if n < 2:
        raise ValueError(f"A sample of {n} has no spread to resample; 2 or more have.")
    observed = np.asarray(scores, dtype=float)
    entries = len(observed)
    noise = replicates - observed
    low, high = [], []
    for entry in range(entries):
        lead = observed[entry] - observed
        margin = _margins(noise[:, [entry]] - noise, n, confidence)
        low.append(1 + int(np.sum(-lead > margin)))
        high.append(entries - int(np.sum(lead > margin)))
    return RankIntervals(low=low, high=high, group=tied_groups(low, high))


def tied_groups(low: Sequence[int], high: Sequence[int]) -> list[int]:
    """Return for each interval of ranks its group: overlapping ones, and those that they link."""
    groups = [0] * len(low)
    group, reached = 0, 0
    for position in sorted(range(len(low)), key=lambda position: low[position]):
        group += low[position] > reached
        reached = max(reached, high[position])
        groups[position] = group
    return groups


def _margins(noise: "NDArray[np.float64]", n: int, confidence: float) -> "NDArray[np.float64]":
    """Return [entries] the leads that show a difference, for one entry's [replicates, entries].

    The largest deviation among the comparisons decides the level, so that all hold together;
    the samples' size widens it.
    """
    import numpy as np

    error = noise.std(axis=0)
    # An error of 0: the entry itself, or scores that no resampling moves.
    deviations = np.abs(noise) / np.where(error > 0, error, np.inf)
    deviate = float(np.quantile(deviations.max(axis=1), confidence))
    margins: NDArray[np.float64] = expansion(n, deviate) * error
    return margins
