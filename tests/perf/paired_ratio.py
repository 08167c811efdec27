"""Ratios from interleaved pairs: what drifts on a shared machine hits both sides of a pair."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.stats import t


@dataclass(frozen=True, kw_only=True)
class PairedRatio:
    """The geometric mean of first ÷ second over pairs, with Student's 95 % interval on logs."""

    ratio: float
    low: float
    high: float
    n: int

    def as_info(self) -> dict[str, float]:
        return {"ratio": self.ratio, "low": self.low, "high": self.high, "n": self.n}


def paired_ratio(first: Sequence[float], second: Sequence[float]) -> PairedRatio:
    logs = [math.log(a / b) for a, b in zip(first, second, strict=True)]
    mean = statistics.fmean(logs)
    half = t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return PairedRatio(
        ratio=math.exp(mean), low=math.exp(mean - half), high=math.exp(mean + half), n=len(logs)
    )


def measure_pairs(
    first: Callable[[], float], second: Callable[[], float], pairs: int
) -> tuple[list[float], list[float]]:
    """Call both `pairs` times in the order ABBA, so that a linear drift cancels."""
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        for side in order:
            times[side].append((first, second)[side]())
    return times
