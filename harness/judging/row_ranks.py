"""Rank intervals of a leaderboard's rows, by bootstrap over their runs."""

import math
from collections.abc import Sequence
from typing import Any

from harness.judging.bootstrap import FEWEST_RUNS, replicate_medians
from harness.judging.rank_intervals import rank_intervals

REPLICATES = 1000
MOST_ROWS = 100  # each is compared with every other: beyond, it takes longer than it tells
SEED = 0  # one table, one answer

_NONE: dict[str, Any] = {"rank_low": None, "rank_high": None, "tied_group": None}


def of_medians(samples: Sequence[Sequence[float] | None]) -> list[dict[str, Any]]:
    """Return rank_low, rank_high and tied_group by row, None where a row gets none.

    `samples` holds each row's figures of its runs in ascending order, the less the better and
    infinite where a run missed, or None for a row without a rank. Intervals are among the rows
    that have a rank and five runs: a row of fewer does not know its own spread.
    """
    import numpy as np

    known = {
        position: sample
        for position, sample in enumerate(samples)
        if sample is not None and len(sample) >= FEWEST_RUNS
    }
    found = [_NONE] * len(samples)
    if not 2 <= len(known) <= MOST_ROWS:
        return found
    # A miss took at least as long as any run that arrived.
    cap = max(one for sample in known.values() for one in sample if math.isfinite(one))
    generator = np.random.default_rng(SEED)
    columns = [np.minimum(np.array(sample, dtype=float), cap) for sample in known.values()]
    intervals = rank_intervals(
        [-column[(len(column) - 1) // 2] for column in columns],
        -np.stack([replicate_medians(c, REPLICATES, generator) for c in columns], axis=1),
        [len(column) for column in columns],
    )
    for position, low, high, group in zip(
        known, intervals.low, intervals.high, intervals.tied_group, strict=True
    ):
        found[position] = {"rank_low": low, "rank_high": high, "tied_group": group}
    return found
