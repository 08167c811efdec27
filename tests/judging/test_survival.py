"""Kaplan–Meier by hand and against scipy, and how often the intervals hold."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.judging.survival import (
    BEYOND,
    kaplan_meier,
    kaplan_meier_median,
    log_rank,
    median_interval,
    restricted_mean,
)

times = st.floats(min_value=0.1, max_value=100.0)


@pytest.mark.parametrize(
    ("sample", "median"),
    [
        ([], None),
        ([(3.0, True)], 3.0),
        ([(3.0, False)], None),
        # S(1) = 1/2: half have reached by then.
        ([(1.0, True), (2.0, True)], 1.0),
        # S(1) = 2/3, S(2) = 1/3.
        ([(1.0, True), (2.0, True), (3.0, True)], 2.0),
        # Missed at the budget: S(1) = 2/3, S(2) = 1/3, and then nobody else.
        ([(1.0, True), (2.0, True), (10.0, False)], 2.0),
        # S(1) = 2/3 is all that is known.
        ([(1.0, True), (10.0, False), (10.0, False)], None),
        # Censored before: S(1) = 3/4, then one of the two at risk, S(3) = 3/8.
        ([(1.0, True), (2.0, False), (3.0, True), (4.0, True)], 3.0),
        # A run censored at a time at which another reaches is still at risk: S(2) = 2/3.
        ([(2.0, True), (2.0, False), (3.0, True)], 3.0),
        # Freireich's 6-MP arm of 21 patients with leukaemia; the median is 23 weeks.
        (
            [(t, True) for t in (6.0, 6.0, 6.0, 7.0, 10.0, 13.0, 16.0, 22.0, 23.0)]
            + [
                (t, False)
                for t in (6.0, 9.0, 10.0, 11.0, 17.0, 19.0, 20.0, 25.0, 32.0, 32.0, 34.0, 35.0)
            ],
            23.0,
        ),
    ],
)
def test_medians_worked_by_hand(sample: list[tuple[float, bool]], median: float | None) -> None:
    assert kaplan_meier_median(sample) == median


@given(st.lists(times, min_size=1))
def test_without_censoring_it_is_the_lower_median(sample: list[float]) -> None:
    assert kaplan_meier_median((time, True) for time in sample) == statistics.median_low(sample)


@given(st.lists(times))
def test_nobody_reached_has_no_median(sample: list[float]) -> None:
    assert kaplan_meier_median((time, False) for time in sample) is None


@given(st.lists(times, min_size=1, max_size=12), st.integers(0, 12), st.data())
def test_a_slower_run_never_makes_the_median_smaller(
    sample: list[float], missed: int, data: st.DataObject
) -> None:
    # The law needs one budget, as all runs of a row have: a time that grows past a run which
    # was censored earlier leaves fewer at risk.
    budget = (100.0, False)
    runs = [(time, True) for time in sample] + [budget] * missed
    position = data.draw(st.integers(0, len(sample) - 1))
    slower = data.draw(st.one_of(st.just(budget), times.map(lambda more: (more, True))))
    if slower[0] < runs[position][0]:
        return
    before = kaplan_meier_median(runs)
    after = kaplan_meier_median([*runs[:position], slower, *runs[position + 1 :]])
    assert after is None or (before is not None and before <= after)


@given(st.lists(st.tuples(times, st.booleans()), max_size=8), st.randoms())
def test_the_order_of_the_runs_is_of_no_account(
    sample: list[tuple[float, bool]], random: object
) -> None:
    shuffled = sample.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert kaplan_meier_median(sample) == kaplan_meier_median(shuffled)


# Freireich et al. 1963: weeks in remission of 21 patients on 6-MP and 21 on placebo.
MERCAPTOPURINE = [(float(t), True) for t in (6, 6, 6, 7, 10, 13, 16, 22, 23)] + [
    (float(t), False) for t in (6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35)
]
PLACEBO = [
    (float(t), True)
    for t in (1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23)
]


@pytest.mark.parametrize("sample", [MERCAPTOPURINE, PLACEBO])
def test_the_curve_as_scipy_has_it(sample: list[tuple[float, bool]]) -> None:
    data = stats.CensoredData(
        uncensored=[t for t, hit in sample if hit], right=[t for t, hit in sample if not hit]
    )
    expected = stats.ecdf(data).sf
    curve = list(kaplan_meier(sample))
    assert len(curve) == len({t for t, hit in sample if hit})
    for time, of, whole in curve:
        assert of / whole == pytest.approx(float(expected.evaluate(time)), rel=1e-12)


def test_the_published_log_rank_test() -> None:
    # χ² = 16.79 on one degree of freedom.
    assert log_rank(MERCAPTOPURINE, PLACEBO) == pytest.approx(stats.chi2.sf(16.79, 1), rel=0.01)
    assert log_rank(PLACEBO, PLACEBO) == pytest.approx(1.0)
    assert log_rank([(10.0, False)] * 5, [(10.0, False)] * 5) == 1.0


def test_restricted_means_worked_by_hand() -> None:
    # 1 up to 2, then 3/4 up to 4, then 1/2 up to 10: 2 + 1.5 + 3.
    missed = [(2.0, True), (4.0, True), (10.0, False), (10.0, False)]
    assert restricted_mean(missed, 10.0).mean == pytest.approx(6.5)
    assert restricted_mean(missed, 3.0).mean == pytest.approx(2.75)
    # The run censored at 3 counts as missing from there on, its share is that of those at risk:
    # 1 up to 2, then 3/4 up to 4, then 3/8 up to 10.
    early = [(2.0, True), (3.0, False), (4.0, True), (10.0, False)]
    assert restricted_mean(early, 10.0).mean == pytest.approx(2 + 1.5 + 2.25)


@given(st.lists(times, min_size=1, max_size=30), st.floats(0.1, 200))
def test_without_censoring_it_is_the_mean_of_the_restricted_times(
    sample: list[float], horizon: float
) -> None:
    expected = statistics.fmean(min(time, horizon) for time in sample)
    found = restricted_mean([(time, True) for time in sample], horizon)
    assert found.mean == pytest.approx(expected)


def test_the_interval_of_five_worked_by_hand() -> None:
    sample = [(time, True) for time in (1.0, 2.0, 3.0, 4.0, 5.0)]
    found = restricted_mean(sample, 10.0)
    # t(0.975; 4) × √(2.5 ÷ 5) = 1.963
    assert (found.low, found.high) == pytest.approx((3 - 1.963, 3 + 1.963), abs=1e-3)
    assert median_interval(sample) == (1.0, 5.0)


def test_an_interval_that_would_not_hold_is_not_given() -> None:
    four = [(1.0, True)] * 4
    assert restricted_mean(four, 10.0).low is None
    assert "4 runs, and an interval takes 5" in restricted_mean(four, 10.0).why
    assert median_interval(four) is None
    missed = restricted_mean([*four, (10.0, False)], 10.0)
    assert (missed.low, missed.high, missed.why) == (None, None, "1 of 5 missed the target")


def test_a_median_of_which_too_few_arrived_has_no_upper_end() -> None:
    arrived = [(float(time), True) for time in (1, 2, 3, 4)]
    assert median_interval([*arrived, (10.0, False)]) == (1.0, BEYOND)
    low, high = median_interval([*arrived * 2, (10.0, False)]) or (0.0, 0.0)
    assert low < 2.0 and high < 10.0


@given(st.lists(st.tuples(times, st.booleans()), min_size=5, max_size=40))
def test_the_median_lies_in_its_interval(sample: list[tuple[float, bool]]) -> None:
    budget = 100.0  # for all: a run that missed did not on a smaller one
    runs = [(time, True) if reached else (budget, False) for time, reached in sample]
    low, high = median_interval(runs) or (math.nan, math.nan)
    median = kaplan_meier_median(runs)
    assert low <= (BEYOND if median is None else median) <= high


def test_the_ends_are_the_interpolated_order_statistics() -> None:
    # n = 10: X(2) and X(9) hold the median at 97.85 %, X(3) and X(8) at 89.06 %.
    share = (0.978516 - 0.95) / (0.978516 - 0.890625)
    weight = 8 * share / (2 + 6 * share)
    low, high = median_interval([(float(time), True) for time in range(1, 11)]) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 + weight, 9 - weight), abs=1e-5)


def lognormal_samples(
    n: int, trials: int, missed: float, spread: float
) -> list[list[tuple[float, bool]]]:
    """Return samples of times about 1 on a budget of 4, of which a share misses."""
    generator = np.random.default_rng(round(1000 * (n + missed + spread)))
    drawn = np.exp(spread * generator.normal(size=(trials, n)))
    hits = (generator.random((trials, n)) >= missed) & (drawn < 4.0)
    return [
        [(float(t), True) if hit else (4.0, False) for t, hit in zip(*row, strict=True)]
        for row in zip(drawn, hits, strict=True)
    ]


def median_coverage(n: int, trials: int, missed: float, spread: float) -> float:
    # Of all runs half are through at the quantile 0.5 ÷ (1 - missed) of those that arrive.
    true = math.exp(spread * stats.norm.ppf(0.5 / (1 - missed)))
    found = [median_interval(s) or (0.0, 0.0) for s in lognormal_samples(n, trials, missed, spread)]
    return sum(low <= true <= high for low, high in found) / trials


def mean_coverage(n: int, trials: int, spread: float) -> float:
    true = math.exp(spread**2 / 2)  # the budget lies far out: it takes 1e-5 off at most
    found = [restricted_mean(s, 4.0) for s in lognormal_samples(n, trials, 0.0, spread)]
    held = [one.low <= true <= one.high for one in found if one.low is not None and one.high]
    assert len(held) > 0.99 * trials
    return sum(held) / len(held)


def test_intervals_hold_as_often_as_they_say() -> None:
    assert 0.93 <= mean_coverage(5, 2000, 0.1) <= 0.97
    assert 0.93 <= median_coverage(10, 2000, 0.2, 0.1) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("n", [5, 10, 20])
def test_the_interval_of_the_restricted_mean_holds(n: int, spread: float) -> None:
    assert 0.93 <= mean_coverage(n, 8_000, spread) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("missed", [0.0, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("n", [5, 6, 7, 8, 10, 20, 40])
def test_the_interval_of_the_median_holds_however_many_miss(n: int, missed: float) -> None:
    for spread in (0.05, 0.3):
        assert 0.93 <= median_coverage(n, 6_000, missed, spread) <= 0.97


@pytest.mark.slow
def test_students_interval_would_fail_where_it_is_not_given() -> None:
    # The reason for the rule: had it been printed with misses too, one run in ten missing.
    held = 0
    for sample in lognormal_samples(5, 4_000, 0.1, 0.1):
        x = [time for time, _ in sample]
        margin = stats.t.ppf(0.975, 4) * statistics.stdev(x) / math.sqrt(5)
        held += abs(statistics.fmean(x) - (0.9 * math.exp(0.005) + 0.1 * 4.0)) <= margin
    assert held / 4_000 < 0.75
