"""What tuning costs and gives: the best of some trials, and what k of them would have given."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One run of a trial: its time to target, or the budget that it used up without reaching it."""

    workload: str
    seconds: float
    budget_s: float
    reached: bool
    best_value: float | None  # of the metric, in the direction of `better_is_more`
    better_is_more: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A point and its runs, on one workload or on several."""

    number: int
    point: dict[str, str]
    attempts: Sequence[Attempt]

    @property
    def reached(self) -> int:
        """How many runs reached the target."""
        return sum(attempt.reached for attempt in self.attempts)

    @property
    def share_of_budget(self) -> float:
        """Restricted mean time ÷ budget: its mean over a workload's runs, geometric over workloads.

        A run that missed counts with its budget, so a point that never reaches scores 1.
        """
        by_workload: dict[str, list[float]] = {}
        for attempt in self.attempts:
            share = attempt.seconds / attempt.budget_s if attempt.reached else 1.0
            by_workload.setdefault(attempt.workload, []).append(min(1.0, share))
        return statistics.geometric_mean(map(statistics.fmean, by_workload.values()))

    @property
    def level(self) -> float:
        """The mean of the runs' best values, larger is better: what parts points that all miss."""
        signed = [
            (a.best_value if a.better_is_more else -a.best_value)
            for a in self.attempts
            if a.best_value is not None and math.isfinite(a.best_value)
        ]
        return statistics.fmean(signed) if len(signed) == len(self.attempts) else -math.inf


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials, the best first."""
    return sorted(trials, key=lambda trial: (trial.share_of_budget, -trial.level, trial.number))


def expected_best(values: Sequence[float]) -> list[float]:
    """Return for k = 1 … n the expected least of k values drawn without replacement.

    Dodge et al. 2019, "Show Your Work" (1909.03004), reports the expected best of k; this is its
    unbiased form. The i-th smallest of n is the least of k in C(n-i, k-1) of the C(n, k) draws.
    """
    ordered = sorted(values)
    n = len(ordered)
    return [
        sum(value * math.comb(n - i, k - 1) for i, value in enumerate(ordered, start=1))
        / math.comb(n, k)
        for k in range(1, n + 1)
    ]
