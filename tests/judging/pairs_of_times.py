"""Makes pairs for judges: from times, and drawn with a machine's noise."""

import math
from collections.abc import Sequence

import numpy as np

from harness.judging.comparison import Amount, Pair


def pairs(a: Sequence[float], b: Sequence[float], budget: float = math.inf) -> list[Pair]:
    """Pair times off; what reaches the budget missed."""

    def amount(value: float) -> Amount:
        return Amount(value=min(value, budget), reached=value < budget)

    return [Pair(a=amount(x), b=amount(y)) for x, y in zip(a, b, strict=True)]


RUN_NOISE = 0.015  # of one run, so a log ratio's is √2 times that
NOISES = ("normal", "lognormal", "t3", "two speeds", "drift")


def log_ratios(
    noise: str, experiments: int, count: int, *, slower: float = 0.0, seed: int = 0
) -> np.ndarray:
    """Draw log(b ÷ a), `experiments` x `count`, where B takes `slower` more; order ABBA."""
    random = np.random.default_rng(seed)
    shape = (experiments, 2 * count)
    match noise:
        case "normal":
            runs = random.normal(0, 1, shape)
        case "lognormal":  # skewed: a run is late, never early; standard deviation 1
            runs = np.exp(random.normal(0, 1, shape)) / math.sqrt((math.e - 1) * math.e)
        case "t3":
            runs = random.standard_t(3, shape) / math.sqrt(3)
        case "two speeds":
            runs = 2 * random.integers(0, 2, shape) + random.normal(0, 0.05, shape)
        case "drift":  # a random walk and a trend, beside the noise of each run
            walk = np.cumsum(random.normal(0.1, 0.5, shape), axis=1)
            runs = random.normal(0, 1, shape) + walk
        case _:
            raise ValueError(noise)
    first, second = RUN_NOISE * runs[:, ::2], RUN_NOISE * runs[:, 1::2]
    b_first = np.arange(count) % 2 == 1
    a, b = np.where(b_first, second, first), np.where(b_first, first, second)
    return b - a + math.log1p(slower)
