import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judging.pairs_of_times import NOISES, log_ratios

from harness.judging.sequential_test import (
    anytime_p,
    confidence_limits,
    fewest_pairs,
    log_evidence,
    pairs_to_show,
)

RICH = math.log(100)  # α = 0.01
STAKES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

values = st.floats(min_value=-2, max_value=2, allow_subnormal=False)


def test_the_wealth_worked_by_hand() -> None:
    log = [0.2, -0.1]
    scaled = [0.2 / 0.2, -0.1 / 0.15]  # by the mean magnitude so far
    wealth = 0.0
    for sign in (1, -1):
        for stake in STAKES:
            factors = [2 / (1 + math.exp(-stake * sign * z)) for z in scaled]
            wealth += math.prod(factors) / (2 * len(STAKES))
    assert log_evidence(np.array(log))[-1] == pytest.approx(math.log(wealth))


@given(st.lists(values, min_size=1, max_size=6))
def test_over_all_signs_the_wealth_is_1_on_average(magnitudes: list[float]) -> None:
    # The whole proof that equals are called different with chance α at most, in one sum.
    n = len(magnitudes)
    signs = (np.arange(2**n)[:, None] >> np.arange(n)) % 2 * 2 - 1
    wealth = np.exp(log_evidence(signs * np.abs(magnitudes)))
    assert wealth.mean(axis=0) == pytest.approx(np.ones(n))


@given(st.lists(values, min_size=1, max_size=20), st.floats(min_value=0.01, max_value=100))
def test_neither_unit_nor_side_matters(drawn: list[float], scale: float) -> None:
    evidence = log_evidence(np.array(drawn))
    assert log_evidence(-np.array(drawn)) == pytest.approx(evidence)
    if min(abs(value) for value in drawn) > 1e-6:
        assert log_evidence(scale * np.array(drawn)) == pytest.approx(evidence)


def test_equal_runs_are_no_evidence() -> None:
    assert log_evidence(np.zeros(30)) == pytest.approx(np.zeros(30))
    assert anytime_p(np.zeros(30)) == anytime_p(np.array([])) == 1.0


def test_the_earliest_decision() -> None:
    assert fewest_pairs(0.01) == 9
    assert anytime_p(np.ones(9)) <= 0.01 < anytime_p(np.ones(8))
    # Nine pairs that agree decide, far apart as they may be.
    assert anytime_p(np.array([0.01, 1, 0.02, 0.5, 3, 0.1, 0.2, 0.05, 1])) <= 0.05
    assert fewest_pairs(0.01 / 8) == 12


def called(
    noise: str, experiments: int, count: int, *, slower: float = 0.0, seed: int = 0
) -> np.ndarray:
    """Return after how many pairs each experiment calls a difference, 0 if never."""
    drawn = log_ratios(noise, experiments, count, slower=slower, seed=seed)
    hits = log_evidence(drawn) >= RICH
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


@pytest.mark.parametrize("noise", NOISES)
def test_a_against_a_is_called_different_in_at_most_1_percent(noise: str) -> None:
    assert (called(noise, 3000, 50) > 0).mean() <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
def test_a_against_a_looked_at_300_times(noise: str) -> None:
    wrong = [(called(noise, 1000, 300, seed=seed) > 0).mean() for seed in range(20)]
    assert np.mean(wrong) <= 0.01


@pytest.mark.parametrize("noise", ["normal", "t3", "drift"])
def test_5_percent_is_found_within_15_pairs(noise: str) -> None:
    after = called(noise, 2000, 15, slower=0.05)
    assert (after > 0).mean() >= 0.9
    if noise == "normal":
        assert (after > 0).mean() >= 0.98 and np.median(after) == 9


@pytest.mark.parametrize("count", [9, 12, 30])
def test_the_limits_hold_the_ratio(count: int) -> None:
    drawn = log_ratios("normal", 100, count, slower=0.05, seed=1)
    limits = [confidence_limits(row, row, 0.01) for row in drawn]
    inside = [low <= math.log(1.05) <= high for low, high in limits]
    assert np.mean(inside) >= 0.97
    widths = [high - low for low, high in limits]
    assert np.median(widths) <= {9: 0.11, 12: 0.08, 30: 0.035}[count]


def test_the_limits_agree_with_the_test() -> None:
    for row in log_ratios("normal", 60, 12, slower=0.03, seed=2):
        low, high = confidence_limits(row, row, 0.01)
        assert low <= np.median(row) <= high
        if not low <= 0 <= high:
            assert anytime_p(row) <= 0.0101


def test_limits_need_nine_pairs() -> None:
    rows = log_ratios("normal", 1, 9, slower=0.05)[0]
    assert confidence_limits(rows[:8], rows[:8], 0.01) == (-math.inf, math.inf)
    assert all(map(math.isfinite, confidence_limits(rows, rows, 0.01)))
    assert confidence_limits(rows[:0], rows[:0], 0.01) == (-math.inf, math.inf)


def test_one_wild_pair_does_not_spoil_the_limits() -> None:
    rows = log_ratios("normal", 1, 20, slower=0.05)[0]
    low, high = confidence_limits(rows, rows, 0.01)
    wild = np.append(rows, 4.0)
    wild_low, wild_high = confidence_limits(wild, wild, 0.01)
    assert abs(wild_low - low) < 0.02 and abs(wild_high - high) < 0.02


def test_bounds_give_the_limit_on_their_side() -> None:
    rows = log_ratios("normal", 1, 12, slower=0.2)[0]
    open_above = rows.copy()
    open_above[4] = math.inf
    low, high = confidence_limits(rows, open_above, 0.01)
    assert 0.1 < low < 0.2 and high == math.inf
    mirrored = confidence_limits(-open_above, -rows, 0.01)
    assert mirrored == pytest.approx((-math.inf, -low), abs=1e-3)
    both = rows.copy()
    both[5] = -math.inf
    assert confidence_limits(both, open_above, 0.01) == (-math.inf, math.inf)


def test_how_many_pairs_more_is_what_it_takes() -> None:
    effect = math.log(1.05)
    seen = log_ratios("normal", 1, 6, seed=5)[0]
    more = pairs_to_show(seen, effect, 0.01)
    assert more is not None and 4 <= more <= 20
    random = np.random.default_rng(9)
    sign = -1 if np.median(seen) < 0 else 1
    futures = random.normal(sign * effect, seen.std(ddof=1), (2000, more))
    evidence = log_evidence(np.concatenate([np.tile(seen, (2000, 1)), futures], axis=1))[:, 6:]
    shown = (np.maximum.accumulate(evidence, axis=1) >= RICH).mean(axis=0)
    assert shown[-1] >= 0.86 and shown[-2] <= 0.94  # the chance asked for is 0.9
    smaller = pairs_to_show(seen, math.log(1.02), 0.01)
    assert smaller is not None and smaller > more
    assert pairs_to_show(seen, math.log(1.0005), 0.01) is None
    assert pairs_to_show(seen[:1], effect, 0.01) is None
