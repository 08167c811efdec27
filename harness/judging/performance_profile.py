"""AlgoPerf's score: the area under a submission's performance profile.

A profile ρ(τ) is the share of workloads on which a submission's time to target is at most τ times
the fastest submission's, and the score is its mean over 1 ≤ τ ≤ 4 (Dahl et al. 2023,
"Benchmarking Neural Network Training Algorithms", 2306.07179, section 4). The fastest time is
that of the pool, so a score changes when another submission enters or leaves it.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TAU_MAX = 4.0
POINTS = 100  # AlgoPerf's grid: the score is the trapezoid rule's on it, not the exact integral
TAUS = np.linspace(1.0, TAU_MAX, POINTS)
_INTERVALS = POINTS - 1
REPLICATES = 2000  # of the bootstrap
SEED = 0

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """The submissions that are scored together, and what each study took.

    `study_times` holds seconds to target by submission and workload, one a study, infinite where
    no trial of the study reached the target; a pair that was not run is absent. `workloads` are
    what the score is an average over, run or not. `variants` maps a held-out workload to the one
    that it is a variant of: a submission that misses it loses that workload's credit.
    """

    submissions: tuple[str, ...]
    workloads: tuple[str, ...]
    study_times: Mapping[tuple[str, str], Sequence[float]]
    variants: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The workloads, then their variants: the last axis of times."""
        return (*self.workloads, *self.variants)

    def studies(self, submission: str) -> int:
        """How many studies a submission has of the workloads that it ran, the median of them."""
        counts = [len(times) for (name, _), times in self.study_times.items() if name == submission]
        return statistics.median_low(counts) if counts else 0

    def without(self, submissions: Iterable[str]) -> "Pool":
        """Return the pool without some submissions: the others' scores change."""
        gone = set(submissions)
        return Pool(
            submissions=tuple(name for name in self.submissions if name not in gone),
            workloads=self.workloads,
            study_times={
                pair: times for pair, times in self.study_times.items() if pair[0] not in gone
            },
            variants=self.variants,
        )


def median_times(pool: Pool) -> Array:
    """Return [submissions, columns] medians over the studies, seconds; NaN: not run.

    Of an even number of studies it is the mean of the middle two, infinite where one of them is.
    """
    return np.array(
        [
            [_median(pool.study_times.get((submission, workload))) for workload in pool.columns]
            for submission in pool.submissions
        ]
    ).reshape(len(pool.submissions), len(pool.columns))


def resampled_times(pool: Pool, replicates: int = REPLICATES, seed: int = SEED) -> Array:
    """Return [replicates, submissions, columns] medians over studies drawn with replacement.

    Each submission's studies of a workload are drawn by themselves: a study of one workload has
    nothing but its number in common with another workload's.
    """
    generator = np.random.default_rng(seed)
    shape = (replicates, len(pool.submissions), len(pool.columns))
    times = np.full(shape, np.nan)
    for row, submission in enumerate(pool.submissions):
        for column, workload in enumerate(pool.columns):
            studies = pool.study_times.get((submission, workload))
            if studies is not None:
                drawn = generator.integers(0, len(studies), size=(replicates, len(studies)))
                times[:, row, column] = np.median(np.asarray(studies)[drawn], axis=1)
    return times


def ratios(times: Array, pool: Pool) -> Array:
    """Return [..., submissions, workloads] times over the fastest's; infinite: no credit.

    `times` [..., submissions, columns] as `median_times` returns them. The order of the steps is
    AlgoPerf's and decides: a variant counts only where its workload was reached; whatever takes
    more than four times the fastest is missed, the fastest being whoever it is; a missed variant
    takes its workload's credit; the ratio is to the fastest of those who kept theirs.
    """
    count = len(pool.workloads)
    base_of = [pool.workloads.index(base) for base in pool.variants.values()]
    times = np.where(np.isnan(times), np.inf, times)
    held_out = np.where(np.isinf(times[..., base_of]), np.inf, times[..., count:])
    times = np.concatenate([times[..., :count], held_out], axis=-1)
    times = np.where(times > TAU_MAX * _fastest(times), np.inf, times)
    for column, base in enumerate(base_of, start=count):
        missed = np.isinf(times[..., column])
        times[..., base] = np.where(missed, np.inf, times[..., base])
    kept = times[..., :count]
    fastest = _fastest(kept)
    # A workload that nobody solved has no fastest time, and nobody is credited on it.
    return np.where(np.isinf(kept), np.inf, kept / np.where(np.isinf(fastest), 1.0, fastest))


def profiles(ratios: Array) -> Array:
    """Return ρ on `TAUS`, [..., submissions, POINTS], from ratios [..., submissions, workloads]."""
    shares: Array = np.mean(ratios[..., None, :] <= TAUS[:, None], axis=-1)
    return shares


def credits_of(ratios: Array) -> Array:
    """Return what each workload earns, in 0 … 1, from ratios [..., submissions, workloads].

    The trapezoid rule on `TAUS` of the step from 0 to 1 at the ratio: 1 for a ratio of 1, half of
    one of 99 intervals for exactly 4, 0 for more.
    """
    half_intervals = _half_intervals(ratios)
    earned: Array = half_intervals / (2 * _INTERVALS)
    return earned


def scores(ratios: Array) -> Array:
    """Return the score [..., submissions], in 0 … 1: the mean of what the workloads earn."""
    # Of whole numbers, so that equal scores are equal, in whatever order they are summed.
    total = _half_intervals(ratios).sum(axis=-1)
    mean: Array = total / (2 * _INTERVALS * ratios.shape[-1])
    return mean


def relative_times(
    times: Array, pool: Pool, reference: str, budgets_s: Mapping[str, float]
) -> Array:
    """Return each submission's geometric mean of time ÷ the reference's, over the workloads.

    A missed workload counts with its budget and a second, as in AlgoPerf's own speed-ups; NaN
    where a workload was not run by the submission or the reference. Held-out workloads and the
    limit of four times the fastest play no part.
    """
    count = len(pool.workloads)
    budgets = np.array([budgets_s[workload] + 1 for workload in pool.workloads])
    limited = np.where(np.isinf(times[:, :count]), budgets, times[:, :count])
    logs: Array = np.log(limited / limited[pool.submissions.index(reference)])
    geometric: Array = np.exp(logs.mean(axis=-1))
    return geometric


def _median(times: Sequence[float] | None) -> float:
    return float("nan") if times is None else float(np.median(times))


def _half_intervals(ratios: Array) -> NDArray[np.int64]:
    first = np.searchsorted(TAUS, ratios, side="left")  # where the step is, POINTS if nowhere
    return np.where(first == 0, 2 * _INTERVALS, np.maximum(2 * (_INTERVALS - first) + 1, 0))


def _fastest(times: Array) -> Array:
    fastest: Array = times.min(axis=-2, keepdims=True)
    return fastest
