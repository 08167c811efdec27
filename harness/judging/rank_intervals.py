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
    tied_group: list[int]  # 1 for the best; no interval of one group overlaps one of another


def rank_intervals(
    scores: "Sequence[float] | NDArray[np.float64]",
    replicates: "NDArray[np.float64]",
    n: int | Sequence[int],
    confidence: float = CONFIDENCE,
) -> RankIntervals:
    """Return each entry's interval of ranks and the groups whose intervals overlap.

    `scores` [entries] are those observed, higher is better; `replicates` [replicates, entries]
    those of the bootstrap, a row from one resampling of everything; `n` is the size of the
    smallest sample that was resampled, studies or seeds, of all or of each entry. An entry's own
    rank by `scores` always lies in its interval.

    Raises:
        ValueError: an `n` is less than 2.
    """
    import numpy as np

    observed = np.asarray(scores, dtype=float)
    entries = len(observed)
    sizes = np.broadcast_to(n, entries)
    if min(sizes, default=2) < 2:
        raise ValueError(f"A sample of {min(sizes)} has no spread to resample; 2 or more have.")
    noise = replicates - observed
    low, high = [], []
    for entry in range(entries):
        lead = observed[entry] - observed
        margin = _margins(noise, sizes, entry, confidence)
        low.append(1 + int(np.sum(-lead > margin)))
        high.append(entries - int(np.sum(lead > margin)))
    return RankIntervals(low=low, high=high, tied_group=tied_groups(low, high))


def tied_groups(low: Sequence[int], high: Sequence[int]) -> list[int]:
    """Return for each interval of ranks its group: overlapping ones, and those that they link."""
    groups = [0] * len(low)
    group, reached = 0, 0
    for position in sorted(range(len(low)), key=lambda position: low[position]):
        group += low[position] > reached
        reached = max(reached, high[position])
        groups[position] = group
    return groups


def _margins(
    noise: "NDArray[np.float64]", sizes: "NDArray[np.int64]", entry: int, confidence: float
) -> "NDArray[np.float64]":
    """Return [entries] the leads over, or behind, an entry that show a difference.

    The largest deviation among its comparisons decides the level, so that all hold together;
    the samples' sizes widen it.
    """
    import numpy as np

    difference = noise[:, [entry]] - noise
    error = difference.std(axis=0)
    # An error of 0: the entry itself, or scores that no resampling moves.
    deviations = np.abs(difference) / np.where(error > 0, error, np.inf)
    deviate = float(np.quantile(deviations.max(axis=1), confidence))
    smaller = np.minimum(sizes[entry], sizes)
    degrees = _degrees_of_freedom(noise.var(axis=0), sizes, entry)
    widths = [
        expansion(size, deviate, known)
        for size, known in zip(smaller.tolist(), degrees.tolist(), strict=True)
    ]
    margins: NDArray[np.float64] = np.array(widths) * error
    return margins


def _degrees_of_freedom(
    variance: "NDArray[np.float64]", sizes: "NDArray[np.int64]", entry: int
) -> "NDArray[np.int64]":
    """Return [entries] Welch's degrees of freedom of an entry's differences, rounded down."""
    import numpy as np

    one, degrees_of_one = variance[entry], sizes[entry] - 1
    parts = one**2 / degrees_of_one + variance**2 / (sizes - 1)
    whole = (one + variance) ** 2
    # Without any variance there is nothing to widen.
    known = np.divide(whole, parts, out=np.ones_like(variance), where=parts > 0)
    degrees: NDArray[np.int64] = np.floor(known + 1e-9).astype(np.int64)
    return degrees
