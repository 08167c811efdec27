"""A against B from interleaved pairs: how many times as much B needed as A, of any unit.

The unit may be seconds, steps, model passes or joules: all that counts is the logarithm of
b ÷ a. A run that missed the target needed more than it was given, so its pair tells only on
which side of a bound the log ratio lies. The lower limit then follows from the lower bounds
alone and the upper limit from the upper ones; nothing is made up. A pair in which both missed
tells nothing of the ratio.

- A number of pairs fixed beforehand: Student's t on log ratios; from 20 pairs on randomised
  subsets, which ask for symmetry only. (The bootstrap of t calls equals different in 2.5 % of
  experiments instead of 1 % where noise has long tails.) Where all log ratios are equal, or both
  sides missed in some pairs, the sign test.
- Pairs until it is decided: `harness.judging.sequential_test`.

Several workloads: Holm's step-down correction ("A Simple Sequentially Rejective Multiple Test
Procedure", Scand. J. Statist. 6, 1979), of the p-values either way: 1 ÷ the largest wealth is a
p-value at any time, and Holm asks nothing of how p-values depend on one another.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from harness.judging.sequential_test import (
    MOST_PAIRS,
    POWER,
    Array,
    anytime_p,
    confidence_limits,
    pairs_to_show,
)

ALPHA = 0.01
EFFECT = 0.05
RANDOMISED_FROM = 20
_SUBSETS = 9999
_EQUAL = 1e-12  # log ratios nearer than this differ by rounding

Verdict = Literal["faster", "slower", "no difference shown"]
Test = Literal["student", "randomised", "sign", "sequential"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Amount:
    """What one run needed of some unit; if it missed, it needed more than `value`."""

    value: float
    reached: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two runs made one right after the other."""

    a: Amount
    b: Amount

    @property
    def bounds(self) -> tuple[float, float]:
        """Between what log(b ÷ a) lies; equal where it is known."""
        log_ratio = math.log(self.b.value / self.a.value)
        low = log_ratio if self.a.reached else -math.inf
        high = log_ratio if self.b.reached else math.inf
        return low, high

    @property
    def telling(self) -> bool:
        """Whether it is known which side needed less, or that both needed the same."""
        low, high = self.bounds
        return low == high or low > 0 or high < 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What pairs say of b ÷ a. None: not known, or unbounded."""

    test: Test
    alpha: float
    pairs: int  # that tell something
    untelling: int  # both missed
    a_missed: int  # of the telling ones
    b_missed: int
    ratio: float | None  # geometric mean; under the sequential test the median
    low: float | None  # limits with confidence 1 − α, each by itself 1 − α/2
    high: float | None
    p: float  # two-sided
    adjusted_p: float  # over the workloads that were compared together
    a_needed_less: bool  # what the verdict would be if there were one

    @property
    def verdict(self) -> Verdict:
        """Whether A is faster or slower than B, as far as it is shown."""
        if self.adjusted_p > self.alpha:
            return "no difference shown"
        return "faster" if self.a_needed_less else "slower"

    def rules_out(self, effect: float) -> bool:
        """Return whether neither side can need `effect` (0.05, say) more than the other."""
        if self.low is None or self.high is None:
            return False
        return self.low > 1 / (1 + effect) and self.high < 1 + effect


def compare_pairs(
    pairs: Iterable[Pair], *, alpha: float = ALPHA, sequential: bool = False
) -> Comparison:
    """Compare two sides by their pairs, in the order in which they were made.

    A one-sided bound at level α is the `low` or `high` of a comparison at 2 α.

    Raises:
        ValueError: an amount is not positive.
    """
    asked = list(pairs)
    telling = [pair for pair in asked if pair.telling]
    lows = np.array([pair.bounds[0] for pair in telling])
    highs = np.array([pair.bounds[1] for pair in telling])
    judge = _sequential if sequential else _fixed
    found = judge(lows, highs, alpha)
    p = min(1.0, 2 * min(found.p_less, found.p_more))
    return Comparison(
        test=found.test,
        alpha=alpha,
        pairs=len(telling),
        untelling=len(asked) - len(telling),
        a_missed=sum(not pair.a.reached for pair in telling),
        b_missed=sum(not pair.b.reached for pair in telling),
        ratio=_centre(lows, highs, mean=not sequential),
        low=_ratio(found.low),
        high=_ratio(found.high),
        p=p,
        adjusted_p=p,
        a_needed_less=found.p_less < found.p_more,
    )


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons, made together, with p-values adjusted for their number."""
    adjusted = holm([comparison.p for comparison in comparisons])
    return [replace(c, adjusted_p=p) for c, p in zip(comparisons, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that at most α of families have a false one below α."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    ordered = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(ordered):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def further_pairs(
    pairs: Iterable[Pair], *, effect: float = EFFECT, alpha: float = ALPHA, sequential: bool = False
) -> int | None:
    """Return how many pairs more would show an effect with chance 0.9, if there is one.

    0: these would have shown it. None: the noise is not known (fewer than two log ratios), or
    more than a thousand would be needed. `alpha` is the level at which it is to be shown.
    """
    telling = [pair for pair in pairs if pair.telling]
    exact = np.array([low for low, high in (pair.bounds for pair in telling) if low == high])
    if len(exact) < 2:
        return None
    shift = math.log1p(effect)
    if sequential:
        return pairs_to_show(exact, shift, alpha)
    if np.ptp(exact) <= _EQUAL:
        needed: int | None = 1 + math.ceil(-math.log2(alpha))  # of the sign test: 2 ÷ 2^n ≤ α
    else:
        needed = _pairs_of_student(shift / float(exact.std(ddof=1)), alpha)
    return None if needed is None else max(0, needed - len(telling))


def median_ratio(amounts: Iterable[tuple[float | None, float | None]]) -> float | None:
    """Return the median of b ÷ a over the pairs that have both."""
    ratios = [b / a for a, b in amounts if a and b]
    return statistics.median(ratios) if ratios else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    test: Test
    p_less: float  # one-sided, that A needs less
    p_more: float
    low: float = -math.inf
    high: float = math.inf


def _fixed(lows: Array, highs: Array, alpha: float) -> _Found:
    if len(lows) < 2:
        return _Found(test="student", p_less=1.0, p_more=1.0)
    bounds = [side for side in (lows, highs) if np.isfinite(side).all()]
    if not bounds or any(np.ptp(side) <= _EQUAL for side in bounds):
        return _sign_test(lows, highs)
    test: Test = "student" if len(lows) < RANDOMISED_FROM else "randomised"
    one_sided = _student if test == "student" else _randomised
    # The upper limit is the lower one of the mirrored log ratios.
    p_less, low = one_sided(lows, alpha / 2) if np.isfinite(lows).all() else (1.0, -math.inf)
    p_more, high = one_sided(-highs, alpha / 2) if np.isfinite(highs).all() else (1.0, -math.inf)
    return _Found(test=test, p_less=p_less, p_more=p_more, low=low, high=-high)


def _student(values: Array, level: float) -> tuple[float, float]:
    """Return a one-sided p-value that the mean is above 0, and its lower limit."""
    from scipy.stats import t

    error = values.std(ddof=1) / math.sqrt(len(values))
    p = t.sf(values.mean() / error, len(values) - 1)
    return float(p), float(values.mean() - t.isf(level, len(values) - 1) * error)


def _randomised(values: Array, level: float) -> tuple[float, float]:
    """Do as `_student` by flipping signs: exact for values that lie symmetrically about a centre.

    Flipping the signs of a subset about m leaves the sum no smaller just if the subset's mean is
    at most m, so means of random subsets are the limits (Hartigan, "Using Subsample Values as
    Typical Values", JASA 64, 1969).
    """
    subsets = np.random.default_rng(0).integers(0, 2, (_SUBSETS, len(values)))
    sizes = subsets.sum(axis=1)
    means = np.where(sizes > 0, subsets @ values / np.maximum(sizes, 1), -math.inf)
    p = (1 + int((means <= 0).sum())) / (1 + _SUBSETS)
    return p, float(np.quantile(means, level, method="lower"))


def _sign_test(lows: Array, highs: Array) -> _Found:
    from scipy.stats import binom

    less, more = int((lows > _EQUAL).sum()), int((highs < -_EQUAL).sum())
    return _Found(
        test="sign",
        p_less=float(binom.sf(less - 1, less + more, 0.5)),
        p_more=float(binom.sf(more - 1, less + more, 0.5)),
    )


def _sequential(lows: Array, highs: Array, alpha: float) -> _Found:
    # Of a run that missed, the bound: had the sides been swapped, it would be as far from 0.
    known = np.where(np.isfinite(lows), lows, highs)
    p = anytime_p(known) / 2
    less = known.size > 0 and float(np.median(known)) >= 0
    low, high = confidence_limits(lows, highs, alpha)
    if 2 * p <= alpha:  # not to contradict the test by the width of a grid
        low, high = (max(low, 0.0), high) if less else (low, min(high, 0.0))
    return _Found(
        test="sequential", p_less=p if less else 1.0, p_more=1.0 if less else p, low=low, high=high
    )


def _pairs_of_student(standardised: float, alpha: float) -> int | None:
    """Return how many pairs a two-sided t test needs to show an effect of so many sigmas."""
    from scipy.stats import nct, t

    n = np.arange(2, MOST_PAIRS + 1)
    critical = t.isf(alpha / 2, n - 1)
    power = nct.sf(critical, n - 1, standardised * np.sqrt(n))
    enough = np.nonzero(power >= POWER)[0]
    return int(n[enough[0]]) if enough.size else None


def _centre(lows: Array, highs: Array, *, mean: bool) -> float | None:
    """Return e to the mean of the log ratios; the median needs to know only the middle ones."""
    if lows.size == 0:
        return None
    if mean and np.array_equal(lows, highs):
        return float(math.exp(lows.mean()))
    middles = float(np.median(lows)), float(np.median(highs))
    return math.exp(middles[0]) if middles[0] == middles[1] else None


def _ratio(log_ratio: float) -> float | None:
    return math.exp(log_ratio) if math.isfinite(log_ratio) else None
