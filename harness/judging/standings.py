"""A pool's standings by AlgoPerf's score: scores, ranks, and how sure both are."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.judging.bootstrap import FEWEST_RUNS, interval
from harness.judging.performance_profile import (
    Array,
    Pool,
    credits_of,
    median_times,
    profiles,
    ratios,
    relative_times,
    resampled_times,
    scores,
)
from harness.judging.rank_intervals import rank_intervals


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A submission's row; an interval is None where `no_intervals` says why."""

    rank: int  # equal scores share one
    rank_low: int | None
    rank_high: int | None
    tied_group: int | None  # entries of one group are not told apart
    submission: str
    score: float
    score_low: float | None
    score_high: float | None
    studies: int
    relative_time: float | None  # geometric mean of time over the reference's
    profile: list[float]  # ρ on `performance_profile.TAUS`
    times_s: dict[str, float | None]  # by workload run, variants too; None: missed
    not_run: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Whom times are compared with, and what a missed workload counts."""

    submission: str
    budgets_s: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Intervals:
    score_low: Array
    score_high: Array
    rank_low: list[int]
    rank_high: list[int]
    tied_group: list[int]


def standings(pool: Pool, reference: Reference | None = None) -> list[Standing]:
    """Return the rows, best first; equal scores share a rank and stand by name."""
    if not pool.submissions:
        return []
    times = median_times(pool)
    credited = ratios(times, pool)
    scored, shares = scores(credited), profiles(credited)
    relative = (
        np.full(len(scored), np.nan)
        if reference is None
        else relative_times(times, pool, reference.submission, reference.budgets_s)
    )
    intervals = None if no_intervals(pool) else _intervals(pool, scored)
    rows = [
        Standing(
            rank=1 + int(np.sum(scored > scored[row])),
            submission=submission,
            score=float(scored[row]),
            score_low=float(intervals.score_low[row]) if intervals else None,
            score_high=float(intervals.score_high[row]) if intervals else None,
            rank_low=intervals.rank_low[row] if intervals else None,
            rank_high=intervals.rank_high[row] if intervals else None,
            tied_group=intervals.tied_group[row] if intervals else None,
            studies=pool.studies(submission),
            relative_time=None if np.isnan(relative[row]) else float(relative[row]),
            profile=[float(share) for share in shares[row]],
            times_s={
                name: float(seconds) if np.isfinite(seconds) else None
                for name, seconds in zip(pool.columns, times[row], strict=True)
                if not np.isnan(seconds)
            },
            not_run=[
                name
                for name, seconds in zip(pool.columns, times[row], strict=True)
                if np.isnan(seconds)
            ],
        )
        for row, submission in enumerate(pool.submissions)
    ]
    return sorted(rows, key=lambda row: (row.rank, row.submission))


def no_intervals(pool: Pool) -> str | None:
    """Return why the pool has no intervals; None: it has."""
    few = {name: pool.studies(name) for name in pool.submissions}
    few = {name: studies for name, studies in few.items() if 0 < studies < FEWEST_RUNS}
    if not few:
        return None
    named = ", ".join(f"{name} ({studies})" for name, studies in sorted(few.items()))
    return f"No intervals: they take {FEWEST_RUNS} studies of each; fewer have {named}."


def notes_on(pool: Pool) -> list[str]:
    """Return what a reader must know of a pool: what nobody ran, and what it costs whom."""
    ran = {workload for _, workload in pool.study_times}
    notes = [
        f"No submission ran {name}: it counts among the {len(pool.workloads)} workloads, and "
        f"nobody is credited on it."
        for name in pool.workloads
        if name not in ran
    ]
    notes += [
        f"No submission ran the held-out workload {name}, so nobody is credited on {base}."
        for name, base in pool.variants.items()
        if name not in ran
    ]
    return notes


def _intervals(pool: Pool, scored: Array) -> _Intervals:
    """Return intervals from resampled studies, wide enough for a handful of them.

    A resample of n studies has (n - 1) ÷ n of the variance of new ones, which is put right here.
    A score is an average, so its spread is known better than from n - 1 degrees of freedom: from
    n - 1 for each workload that moves it.
    """
    n = min(pool.studies(name) for name in pool.submissions if pool.studies(name))
    resampled = ratios(resampled_times(pool), pool)
    size = 1 + int(_workloads_that_move(credits_of(resampled)) * (n - 1))
    widening = np.sqrt(n / (n - 1) * (size - 1) / size)  # those called below do √(size/(size-1))
    replicates = scored + widening * (scores(resampled) - scored)
    low, high = interval(replicates, size)
    found = rank_intervals(scored, replicates, size)
    return _Intervals(
        score_low=np.clip(low, 0.0, 1.0),
        score_high=np.clip(high, 0.0, 1.0),
        rank_low=found.low,
        rank_high=found.high,
        tied_group=found.tied_group,
    )


def _workloads_that_move(earned: Array) -> float:
    """Return how many workloads make up the scores' spread, 1 … their number.

    The Welch–Satterthwaite approximation for a sum of variances, (Σv)² ÷ Σv², over what
    [replicates, submissions, workloads] earn.
    """
    variances = earned.var(axis=0).sum(axis=0)
    total = variances.sum()
    return float(total**2 / np.sum(variances**2)) if total else 1.0
