"""A score over a suite that depends on nobody else in the pool.

On a workload r is the submission's restricted mean time to target over the reference recipe's,
on the same machine class and version, and the credit clip((2 - log₂ r) ÷ 4, 0, 1): 1 for four
times as fast, 1/2 for the reference, 0 for four times as slow. The score is the mean credit over
the suite's workloads. No other entry has a part in it, so that none that enters or leaves moves
a score or turns an order round, as it does under a performance profile.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.judging.bootstrap import FEWEST_RUNS, replicate_means, student_levels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OCTAVES = 2.0  # of time, either way of the reference, over which credit runs from 1 to 0
REPLICATES = 2000
MOST_MISSES = 0.4  # of a workload's runs: simulated, the rank intervals hold up to there


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """What runs of one submission, or of the reference, took on one workload."""

    name: str  # unlike any other's: the resampling follows from it
    times: Sequence[tuple[float, bool]]  # seconds, and whether the target was reached then
    budget_s: float  # the largest


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A submission and the reference on one workload."""

    workload: str
    submission: Timing
    reference: Timing

    @property
    def horizon_s(self) -> float:
        """Up to which both were watched; times are restricted to it, misses count with it."""
        return min(self.submission.budget_s, self.reference.budget_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """A score with its 95 % interval, and what ranks are told from."""

    score: float
    replicates: "NDArray[np.float64]"
    degrees: int  # of freedom of the replicates' variance
    low: float | None
    high: float | None
    ranked: bool  # whether a rank interval would hold
    why: str = ""  # there is no interval


def credit(log2_ratio: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the credit for the binary logarithm of time ÷ the reference's."""
    import numpy as np

    return np.clip((OCTAVES - log2_ratio) / (2 * OCTAVES), 0.0, 1.0)


def score(comparisons: Sequence[Comparison]) -> Score:
    """Return the score over some workloads, with the interval of a bootstrap over runs.

    The replicates are read at Student's levels with Satterthwaite's degrees of freedom. There
    is no interval with fewer than five runs on a workload, or where some runs missed the target:
    simulation shows that it would not hold.
    """
    import numpy as np

    observed, replicates = [], []
    variances: list[tuple[float, int]] = []
    for comparison in comparisons:
        ours, ours_again = _log2_times(comparison.submission, comparison.horizon_s)
        theirs, theirs_again = _log2_times(comparison.reference, comparison.horizon_s)
        if comparison.submission.name == comparison.reference.name:
            theirs, theirs_again = ours, ours_again
        observed.append(credit(np.array(ours - theirs)))
        replicates.append(credit(ours_again - theirs_again))
        if 0 < observed[-1] < 1:
            variances.append((float(ours_again.var()), len(comparison.submission.times) - 1))
            variances.append((float(theirs_again.var()), len(comparison.reference.times) - 1))
    mean = float(np.mean(observed))
    again = np.mean(replicates, axis=0)
    degrees = _satterthwaite(variances)
    why = _why_no_interval(comparisons)
    low, high = np.quantile(again, student_levels(degrees)) if not why else (None, None)
    return Score(
        score=mean,
        replicates=again,
        degrees=degrees,
        low=None if low is None else min(float(low), mean),
        high=None if high is None else max(float(high), mean),
        ranked=_enough_for_ranks(comparisons),
        why=why,
    )


def _log2_times(timing: Timing, horizon_s: float) -> "tuple[float, NDArray[np.float64]]":
    """Return log₂ of the restricted mean, and of its replicates.

    A run that missed on a smaller budget counts with the horizon too: to give up early must not
    make a submission quick.
    """
    import numpy as np

    taken = np.array([min(t, horizon_s) if reached else horizon_s for t, reached in timing.times])
    mean = float(np.log2(taken.mean()))
    if len(taken) < 2:
        return mean, np.full(REPLICATES, mean)
    digest = hashlib.sha256(timing.name.encode()).digest()  # as nobody else in the pool moves it
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return mean, np.log2(replicate_means(taken, REPLICATES, generator))


def _satterthwaite(variances: Sequence[tuple[float, int]]) -> int:
    """Return the degrees of freedom of a sum, from each part's variance and its own, ≥ 1."""
    known = [(variance, degrees) for variance, degrees in variances if degrees > 0]
    whole = sum(variance for variance, _ in known)
    parts = sum(variance**2 / degrees for variance, degrees in known)
    return max(1, int(whole**2 / parts + 1e-9)) if parts > 0 else 1


def _timings(comparison: Comparison) -> tuple[tuple[str, Timing], tuple[str, Timing]]:
    return ("", comparison.submission), ("the reference's ", comparison.reference)


def _why_no_interval(comparisons: Sequence[Comparison]) -> str:
    if all(one.submission.name == one.reference.name for one in comparisons):
        return "it is the reference"
    for comparison in comparisons:
        for whose, timing in _timings(comparison):
            n = len(timing.times)
            missed = sum(not reached for _, reached in timing.times)
            if n < FEWEST_RUNS:
                runs = f"{n} run{'s' if n != 1 else ''}"
                return (
                    f"{whose}{runs} on {comparison.workload}, and an interval takes {FEWEST_RUNS}"
                )
            if 0 < missed < n:
                return f"{missed} of {whose}{n} runs on {comparison.workload} missed the target"
    return ""


def _enough_for_ranks(comparisons: Sequence[Comparison]) -> bool:
    for comparison in comparisons:
        for _, timing in _timings(comparison):
            n = len(timing.times)
            missed = sum(not reached for _, reached in timing.times)
            if n < FEWEST_RUNS or MOST_MISSES * n < missed < n:
                return False
    return True
