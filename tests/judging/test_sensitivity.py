"""The figures of a sensitivity, against values derived by hand."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judging.sensitivity import Rate, Span, mean_regret, sensitivity
from harness.judging.tuning import Attempt, Trial


def rate(
    value: float,
    *shares: float | None,
    metric: float | None = 0.9,
    more: bool = True,
) -> Rate:
    """A value whose runs reached the target at these shares of a budget of 10 s, None: missed."""
    attempts = [
        Attempt(
            workload="a/b",
            seconds=10.0 if share is None else 10.0 * share,
            budget_s=10.0,
            reached=share is not None,
            best_value=metric,
            better_is_more=more,
        )
        for share in shares
    ]
    return Rate(value=value, factor=value, trial=Trial(number=0, point={}, attempts=attempts))


@pytest.mark.parametrize(
    ("values", "losses", "regret"),
    [
        ([1, 10], [3.0, 3.0], 0.0),
        # A straight line from 0 up to 1: half.
        ([1, 10], [2.0, 3.0], 0.5),
        # One decade from 1 down to 0, one at 0: 1/2 of two.
        ([0.1, 1, 10], [1.0, 0.0, 0.0], 0.25),
        # (1/2 · 1) + (1/2 · 0.4) over two decades.
        ([0.1, 1, 10], [1.0, 0.0, 0.4], 0.35),
        # Of three decades, two lie between the last two points: (0.5·1 + 0.25·2) ÷ 3.
        ([0.1, 1, 100], [1.0, 0.0, 0.5], 1 / 3),
    ],
)
def test_regrets_worked_by_hand(
    values: Sequence[float], losses: Sequence[float], regret: float
) -> None:
    assert mean_regret(values, losses) == pytest.approx(regret)
    assert mean_regret([1e-3 * v for v in values], losses) == pytest.approx(regret)


def test_the_time_is_in_shares_of_the_budget_and_a_miss_is_a_whole_one() -> None:
    # Shares 1, 0.3 (the mean of 0.2 and 0.4) and (0.5 + 1) ÷ 2.
    figures = sensitivity(
        [rate(0.1, None, None), rate(10, 0.5, None), rate(1, 0.2, 0.4)], untrained=0.1
    )
    # Above the best: 0.7, 0, 0.45; a decade each: (0.35 + 0.225) ÷ 2.
    assert figures.time == pytest.approx(0.2875)
    assert (figures.best, figures.low, figures.high) == (1, 0.1, 10)
    # At 10 half of the runs reach, in 0.75 of the budget: more than twice 0.3.
    assert figures.reaches == Span(low=1, high=10, open_low=False, open_high=True)
    assert figures.reaches is not None and figures.reaches.decades == pytest.approx(1)
    assert figures.near_best == Span(low=1, high=1, open_low=False, open_high=False)


def test_a_metric_worse_than_an_untrained_models_counts_as_that() -> None:
    # Untrained 0.1: regrets of 0.8 (0.05 is capped), 0, 0.4 and, without a value, 0.8.
    rates = [
        rate(0.1, None, metric=0.05),
        rate(1, 0.5, metric=0.9),
        rate(10, None, metric=0.5),
        rate(100, None, metric=None),
    ]
    figures = sensitivity(rates, untrained=0.1)
    assert figures.metric == pytest.approx((0.4 + 0.2 + 0.6) / 3)
    assert figures.metric_share == pytest.approx(0.5)
    # A loss: 2.0 untrained, best 0.5; regrets 1.5 (capped), 0, 1, 1.5 (not a number).
    losses = [
        rate(0.1, None, metric=7.0, more=False),
        rate(1, 0.5, metric=0.5, more=False),
        rate(10, None, metric=1.5, more=False),
        rate(100, None, metric=math.nan, more=False),
    ]
    figures = sensitivity(losses, untrained=2.0)
    assert figures.metric == pytest.approx((0.75 + 0.5 + 1.25) / 3)
    assert figures.metric_share == pytest.approx((0.75 + 0.5 + 1.25) / 4.5)


def test_the_cap_holds_for_each_run() -> None:
    # Runs of 0.9 and 0.0 at one value, untrained 0.5: the mean of 0.9 and 0.5, not of 0.9 and 0.
    mixed = rate(1, 0.5, None)
    attempts = [
        Attempt(workload="a/b", seconds=5, budget_s=10, reached=True, best_value=0.9),
        Attempt(workload="a/b", seconds=10, budget_s=10, reached=False, best_value=0.0),
    ]
    mixed = Rate(value=1, factor=1, trial=Trial(number=0, point={}, attempts=attempts))
    figures = sensitivity([mixed, rate(10, 0.5, metric=0.9)], untrained=0.5)
    assert figures.metric == pytest.approx(0.1)  # regrets 0.2 and 0
    assert mixed.best_metric == pytest.approx(0.45)


def test_where_nobody_reaches_the_metric_chooses_the_best() -> None:
    rates = [rate(1, None, metric=0.3), rate(10, None, metric=0.6), rate(100, None, metric=0.2)]
    figures = sensitivity(rates, untrained=0.1)
    assert (figures.best, figures.time) == (10, 0)
    assert figures.reaches is None and figures.near_best is None


def test_a_stretch_ends_where_a_value_misses() -> None:
    rates = [rate(10.0**k, share) for k, share in enumerate((0.3, None, 0.2, 0.3, 0.5, None))]
    figures = sensitivity(rates, untrained=None)
    assert figures.reaches == Span(low=100, high=1e4, open_low=False, open_high=False)
    assert figures.near_best == Span(low=100, high=1e3, open_low=False, open_high=False)
    assert figures.metric is None and figures.metric_share is None


def test_nothing_gained_has_no_share() -> None:
    figures = sensitivity([rate(1, None, metric=0.1), rate(2, None, metric=0.1)], untrained=0.1)
    assert (figures.metric, figures.metric_share) == (0, None)


def test_one_value_is_no_sweep() -> None:
    with pytest.raises(ValueError, match="two values"):
        sensitivity([rate(1, 0.5)], untrained=0.1)


@given(st.lists(st.one_of(st.none(), st.floats(0.01, 1)), min_size=2, max_size=8), st.integers(0))
def test_a_slower_value_never_makes_it_less_sensitive_unless_it_was_the_best(
    shares: list[float | None], at: int
) -> None:
    rates = [rate(10.0**k, share) for k, share in enumerate(shares)]
    figures = sensitivity(rates, untrained=None)
    assert 0 <= figures.time <= 1
    at %= len(rates)
    least = min(one.trial.share_of_budget for one in rates)
    if rates[at].trial.share_of_budget > least:
        rates[at] = rate(10.0**at, None)
        assert sensitivity(rates, untrained=None).time >= figures.time - 1e-12
