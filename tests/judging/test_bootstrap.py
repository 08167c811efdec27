"""Student's t against scipy, and intervals against what Hesterberg's correction is for."""

import numpy as np
import pytest
from scipy import stats

from harness.judging.bootstrap import expanded_levels, expansion, interval, student_t_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 19, 20, 99, 1000])
@pytest.mark.parametrize("level", [1e-6, 0.025, 0.3, 0.5, 0.6, 0.975, 0.9999, 1 - 1e-9])
def test_student_t_as_scipy_has_it(level: float, degrees: int) -> None:
    expected = stats.t.ppf(level, degrees)
    near = 1e-6 if degrees < 500 else 1e-4  # beyond, by an expansion in 1 ÷ degrees
    assert student_t_quantile(level, degrees) == pytest.approx(expected, rel=near, abs=1e-12)


def test_levels_worked_by_hand() -> None:
    # t(0.975; 4) = 2.776, × √(5 ÷ 4) = 3.104, Φ(-3.104) = 0.00095.
    assert expansion(5, 1.959964) == pytest.approx(3.104, abs=1e-3)
    assert expanded_levels(5) == pytest.approx((0.00095, 0.99905), abs=1e-5)


def test_many_runs_need_no_expansion() -> None:
    assert expanded_levels(100_000) == pytest.approx((0.025, 0.975), abs=1e-5)


def test_for_normal_replicates_the_interval_is_students() -> None:
    n = 10
    sample = np.random.default_rng(0).normal(size=n)
    quantiles = np.linspace(0, 1, 200_001)[1:-1]
    error = sample.std() / np.sqrt(n)  # of the bootstrap: divided by n, not n - 1
    low, high = interval(sample.mean() + error * stats.norm.ppf(quantiles), n)
    expected = stats.t.interval(0.95, n - 1, sample.mean(), stats.sem(sample))
    assert (low, high) == pytest.approx(expected, rel=1e-3)
