"""Intervals from bootstrap replicates, wide enough for samples of five.

The plain percentile interval is too narrow for a small sample: a resample's variance is
(n - 1) ÷ n of the sample's, and its tails are the normal's where Student's are due. Both are
put right by reading the replicates at levels further out (Hesterberg 2015, "What Teachers
Should Know about the Bootstrap", 1411.5279, the expanded percentile interval).
"""

import functools
import math
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95
FEWEST_RUNS = 5  # fewer say next to nothing of their own spread: no interval is given


def replicate_means(
    sample: "NDArray[np.float64]", replicates: int, generator: "np.random.Generator"
) -> "NDArray[np.float64]":
    """Return the means of resamples of one less than the sample: their variance is unbiased."""
    n = len(sample)
    means: NDArray[np.float64] = sample[generator.integers(0, n, (replicates, n - 1))].mean(axis=1)
    return means


def replicate_medians(
    ordered: "NDArray[np.float64]", replicates: int, generator: "np.random.Generator"
) -> "NDArray[np.float64]":
    """Return the lower medians of resamples of a sample in ascending order.

    Drawn from their exact distribution: a resample's positions are ⌊n × uniform⌋, so its h-th is
    ⌊n × the h-th smallest of n uniforms⌋, which is a Beta(h, n + 1 - h) variate.
    """
    n = len(ordered)
    h = (n + 1) // 2
    positions = (n * generator.beta(h, n + 1 - h, size=replicates)).astype(int)
    medians: NDArray[np.float64] = ordered[positions]
    return medians


def expansion(n: int, deviate: float, degrees: int | None = None) -> float:
    """Return the standard errors of `n` values' bootstrap that stand for a normal deviate.

    √(n ÷ (n - 1)) × the Student t quantile at the deviate's level, with n - 1 degrees of freedom
    unless the error is known better.
    """
    level = NormalDist().cdf(-abs(deviate))  # the lower tail: the upper one rounds to 1
    return math.sqrt(n / (n - 1)) * -student_t_quantile(level, degrees or n - 1)


def expanded_levels(n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the levels at which replicates of `n` values are read for an interval."""
    deviate = NormalDist().inv_cdf((1 + confidence) / 2)
    tail = NormalDist().cdf(-expansion(n, deviate))
    return tail, 1 - tail


def student_levels(degrees: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the levels at which replicates of unbiased variance are read for an interval."""
    tail = NormalDist().cdf(student_t_quantile((1 - confidence) / 2, degrees))
    return tail, 1 - tail


def interval(
    replicates: "NDArray[np.float64]", n: int, confidence: float = CONFIDENCE
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Return the ends of the expanded percentile interval over the first axis of `replicates`."""
    import numpy as np

    low, high = np.quantile(replicates, expanded_levels(n, confidence), axis=0)
    return low, high


@functools.cache
def student_t_quantile(level: float, degrees: int) -> float:
    """Return the t with P(T ≤ t) = `level`, 0 < level < 1, for whole degrees of freedom ≥ 1.

    By bisection of the closed form of the distribution function (Abramowitz & Stegun 26.7.3
    and 26.7.4): scipy takes longer to import than a leaderboard to print.
    """
    if level > 0.5:
        return -student_t_quantile(1 - level, degrees)
    if degrees > 500:  # the sum below grows long, and the normal is near (26.7.5)
        z = NormalDist().inv_cdf(level)
        return z + (z**3 + z) / (4 * degrees)
    # Of the angle atan(t ÷ √degrees), which is bounded, so that no tail is out of reach.
    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        outside = (1 - _central_share(middle, degrees)) / 2
        low, high = (middle, high) if outside > level else (low, middle)
    return -math.sqrt(degrees) * math.tan(high)


def _central_share(angle: float, degrees: int) -> float:
    """Return P(|T| ≤ √degrees × tan(angle))."""
    odd = degrees % 2 == 1
    term = math.cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    share = math.sin(angle) * total
    return 2 / math.pi * (angle + share) if odd else share
