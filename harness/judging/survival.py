"""Times to target of which some are only known to lie beyond the budget.

A sample is a sequence of (time, reached): a run that missed is right-censored at its budget,
from when on nothing is known of it, neither infinite nor dropped. Every function takes any
positive unit and gives the same one back.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from harness.judging.bootstrap import CONFIDENCE, FEWEST_RUNS, student_t_quantile

Times = Sequence[tuple[float, bool]]

BEYOND = math.inf  # an end of an interval that lies beyond what was watched


@dataclass(frozen=True, kw_only=True, slots=True)
class RestrictedMean:
    """Mean time up to the horizon, with its 95 % interval or the reason that there is none."""

    mean: float
    low: float | None = None
    high: float | None = None
    why: str = ""


def kaplan_meier_median(times: Iterable[tuple[float, bool]]) -> float | None:
    """Return the smallest time by which half have reached the target, None if none is.

    Without censored runs this is the lower median.
    """
    return next((time for time, of, whole in kaplan_meier(times) if 2 * of <= whole), None)


def kaplan_meier(times: Iterable[tuple[float, bool]]) -> Iterator[tuple[float, int, int]]:
    """Yield each time at which some reach the target, and the share that has not done so after it.

    The share is the second figure ÷ the third, exact: a half by rounding would be another median.
    Kaplan & Meier, "Nonparametric Estimation from Incomplete Observations", JASA 53, 1958. A run
    censored at a time at which others reach the target counts as one that had not reached it.
    """
    ordered = sorted(times)
    at_risk = since = len(ordered)
    kept = Fraction(1)  # the product telescopes between censored runs: kept × at_risk ÷ since
    for time, group in itertools.groupby(ordered, key=lambda one: one[0]):
        here = [reached for _, reached in group]
        hits = sum(here)
        at_risk -= hits
        if hits:
            yield time, kept.numerator * at_risk, kept.denominator * since
        if hits < len(here):
            kept *= Fraction(at_risk, since)
            at_risk -= len(here) - hits
            since = at_risk


def median_interval(times: Times, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Return an interval for the median time, None for fewer than five runs.

    Between order statistics, interpolated to the confidence (Hettmansperger & Sheather 1986,
    "Confidence intervals based on interpolated order statistics"), so it holds whatever the
    times' distribution and however many runs missed, as long as budgets are equal. Of five runs
    it is the whole range, at 93.75 %. The upper end is BEYOND where too few reached to tell.
    """
    n = len(times)
    if n < FEWEST_RUNS:
        return None
    ordered = sorted(time if reached else BEYOND for time, reached in times)
    rank, weight = _order_statistic(n, confidence)
    low = _between(ordered[rank - 1], ordered[min(rank, n - 1)], weight)
    high = _between(ordered[n - rank], ordered[max(n - rank - 1, 0)], weight)
    return low, high


def restricted_mean(times: Times, horizon: float) -> RestrictedMean:
    """Return the mean of min(time, horizon): the area under the Kaplan–Meier curve up to there.

    Beyond the last run watched the curve stays where it is: a run that missed on a smaller
    budget has not reached the target by the horizon either. The interval is Student's, and there
    is none where simulation shows that it would not hold: for fewer than five runs, and once any
    run missed (with one run in ten missing, Student's interval holds the mean of five runs in
    half of all samples). The median's interval holds there.
    """
    mean = _area(times, horizon)
    n = len(times)
    missed = sum(not reached or time > horizon for time, reached in times)
    if n < FEWEST_RUNS:
        why = f"{n} run{'s' if n != 1 else ''}, and an interval takes {FEWEST_RUNS}"
        return RestrictedMean(mean=mean, why=why)
    if missed:
        return RestrictedMean(mean=mean, why=f"{missed} of {n} missed the target")
    error = math.sqrt(math.fsum((time - mean) ** 2 for time, _ in times) / (n - 1) / n)
    margin = student_t_quantile((1 + CONFIDENCE) / 2, n - 1) * error
    return RestrictedMean(mean=mean, low=max(0.0, mean - margin), high=min(horizon, mean + margin))


def _area(times: Times, horizon: float) -> float:
    area, since, surviving = 0.0, 0.0, 1.0
    for time, of, whole in kaplan_meier(times):
        if time >= horizon:
            break
        area += surviving * (time - since)
        since, surviving = time, of / whole
    return area + surviving * (horizon - since)


def log_rank(times: Times, others: Times) -> float:
    """Return the two-sided p of the log-rank test that two samples reach the target alike.

    Mantel 1966, as scipy has it; without a run that reached there is nothing to tell apart: 1.
    """
    if not any(reached for _, reached in (*times, *others)):
        return 1.0
    from scipy import stats  # a second of import: for comparisons, never for a leaderboard

    return float(stats.logrank(*(_censored_data(sample) for sample in (times, others))).pvalue)


def _censored_data(times: Times) -> "object":
    from scipy import stats

    return stats.CensoredData(
        uncensored=[time for time, reached in times if reached],
        right=[time for time, reached in times if not reached],
    )


@functools.cache
def _order_statistic(n: int, confidence: float) -> tuple[int, float]:
    """Return the rank of the lower end and the weight of the next order statistic inwards."""
    below = 0.5**n if n < 1000 else 0.0  # P(Binomial(n, 1/2) < rank), here for rank 1
    rank = 1
    while True:
        inner = below + math.exp(_log_share(n, rank))
        if 1 - 2 * inner < confidence:
            break
        rank, below = rank + 1, inner
    held, less = 1 - 2 * below, 1 - 2 * inner
    if held <= confidence:  # five runs: their whole range holds a little less
        return rank, 0.0
    share = (held - confidence) / (held - less)
    return rank, (n - rank) * share / (rank + (n - 2 * rank) * share)


def _log_share(n: int, k: int) -> float:
    """Return log P(Binomial(n, 1/2) = k)."""
    choices = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choices - n * math.log(2)


def _between(outer: float, inner: float, weight: float) -> float:
    if BEYOND in (outer, inner):
        return outer
    mixed = outer + weight * (inner - outer)
    return min(max(mixed, min(outer, inner)), max(outer, inner))  # not beyond by rounding
