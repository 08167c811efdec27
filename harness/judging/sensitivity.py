"""How much a submission's result depends on one hyperparameter, most often the learning rate.

Wortsman et al. 2023, "Small-scale proxies for large-scale Transformer training instabilities"
(2309.14322), sum up a sweep over orders of magnitude of the learning rate η by the expected
deviation from the best,

    sensitivity = E_η[ min(L(A(η)), L₀) − L* ],    L* = min_η L(A(η)),

where L(A(η)) is the loss that training at η ends with, L₀ the loss at initialisation, so that one
rate that diverges does not outweigh all others, and log η is uniform over a stated range.
0: every rate is as good as the best. Only figures over ranges as wide compare.

Here the expectation is that of straight lines between the points in log η (the trapezoidal
rule), and it is taken of two results:

- *time*: the restricted mean time to target ÷ budget. A run that misses counts with the budget,
  which is also what no training would take: L₀ = 1.
- *metric*: the mean of the runs' best values, each no worse than that of an untrained model, in
  the metric's own units and, as a share, ÷ (L₀ − L*): 1 is no training at almost every rate. A
  run ends once it has confirmed the target, so rates that reach it hardly differ in this one,
  where the paper's run to the end of their schedule.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.judging.tuning import Attempt, Trial

NEAR_BEST = 2.0  # times the best restricted mean time


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """One value of the hyperparameter, and the runs at it."""

    value: float
    factor: float  # value ÷ the one at which the submission runs unless told otherwise
    trial: Trial

    @property
    def reaches(self) -> bool:
        """Whether at least half of the runs reached the target."""
        return 2 * self.trial.reached >= len(self.trial.attempts)

    @property
    def best_metric(self) -> float | None:
        """The mean of the runs' best values, None where a run had none."""
        values = [attempt.best_value for attempt in self.trial.attempts]
        known = [value for value in values if value is not None and math.isfinite(value)]
        return statistics.fmean(known) if known and len(known) == len(values) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Neighbouring values; at an end of what was tried it may go on, so `decades` is the least."""

    low: float
    high: float
    open_low: bool
    open_high: bool

    @property
    def decades(self) -> float:
        """Its width in powers of ten, between the values that were tried."""
        return math.log10(self.high / self.low)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """The figures of one submission over the values from `low` to `high`."""

    low: float
    high: float
    best: float
    time: float  # in [0, 1], shares of the budget
    metric: float | None  # ≥ 0, in the metric's units; None: the untrained value is not known
    metric_share: float | None  # in [0, 1]
    reaches: Span | None  # about the best: at least half of the runs reach the target
    near_best: Span | None  # of those, restricted mean time ≤ NEAR_BEST × the best


def sensitivity(rates: Sequence[Rate], untrained: float | None) -> Sensitivity:
    """Return the figures; `untrained` is the metric's value without training.

    Raises:
        ValueError: fewer than two rates.
    """
    if len(rates) < 2:
        raise ValueError("a sensitivity needs two values of the hyperparameter at least")
    ordered = sorted(rates, key=lambda rate: rate.value)
    best = min(ordered, key=lambda rate: (rate.trial.share_of_budget, -rate.trial.level))
    values = [rate.value for rate in ordered]
    shares = [rate.trial.share_of_budget for rate in ordered]
    metric = metric_share = None
    if untrained is not None and math.isfinite(untrained):
        losses = [_loss(rate.trial.attempts, untrained) for rate in ordered]
        metric = mean_regret(values, losses)
        gain = -min(losses)  # losses are differences from the untrained model's
        metric_share = metric / gain if gain > 0 else None
    return Sensitivity(
        low=values[0],
        high=values[-1],
        best=best.value,
        time=mean_regret(values, shares),
        metric=metric,
        metric_share=metric_share,
        reaches=_span(ordered, best, lambda rate: rate.reaches),
        near_best=_span(
            ordered,
            best,
            lambda rate: (
                rate.reaches
                and rate.trial.share_of_budget <= NEAR_BEST * best.trial.share_of_budget
            ),
        ),
    )


def mean_regret(values: Sequence[float], losses: Sequence[float]) -> float:
    """Return E[loss − least loss] for a log-uniform value between the first and the last.

    `values` ascend; between them the loss is taken as a straight line in their logarithm.
    """
    least = min(losses)
    area = sum(
        math.log(right / left) * ((one - least) + (other - least)) / 2
        for (left, one), (right, other) in itertools.pairwise(zip(values, losses, strict=True))
    )
    return area / math.log(values[-1] / values[0])


def _loss(attempts: Sequence[Attempt], untrained: float) -> float:
    """Return the runs' mean loss above an untrained model's, each at most 0: the cap L₀."""
    return statistics.fmean(_excess(attempt, untrained) for attempt in attempts)


def _excess(attempt: Attempt, untrained: float) -> float:
    value = attempt.best_value
    if value is None or not math.isfinite(value):
        return 0.0
    return min(0.0, untrained - value if attempt.better_is_more else value - untrained)


def _span(ordered: Sequence[Rate], best: Rate, holds: Callable[[Rate], bool]) -> Span | None:
    """Return the longest stretch about the best throughout which something holds."""
    if not holds(best):
        return None
    first = last = ordered.index(best)
    while first > 0 and holds(ordered[first - 1]):
        first -= 1
    while last < len(ordered) - 1 and holds(ordered[last + 1]):
        last += 1
    return Span(
        low=ordered[first].value,
        high=ordered[last].value,
        open_low=first == 0,
        open_high=last == len(ordered) - 1,
    )
