import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging.pairs_of_times import NOISES, log_ratios, pairs

from harness.judging.comparison import (
    Amount,
    Comparison,
    Pair,
    compare_pairs,
    further_pairs,
    holm,
    median_ratio,
    with_holm,
)

times = st.floats(min_value=0.5, max_value=20.0)


def from_logs(logs: np.ndarray) -> list[Pair]:
    return pairs([1.0] * len(logs), np.exp(logs).tolist())


def test_students_interval_worked_by_hand() -> None:
    # Log ratios 0.1, 0.2, 0.3: mean 0.2, s = 0.1, s ÷ √3 = 0.057735. With two degrees of freedom
    # t has the closed form F(t) = 1/2 + t ÷ (2 √(2 + t²)), so t(0.995) = 9.9248.
    found = compare_pairs(from_logs(np.array([0.1, 0.2, 0.3])), alpha=0.01)
    assert found.test == "student" and found.pairs == 3
    assert found.ratio == pytest.approx(math.exp(0.2))
    assert found.low == pytest.approx(math.exp(0.2 - 9.92484 * 0.0577350), rel=1e-5)
    assert found.high == pytest.approx(math.exp(0.2 + 9.92484 * 0.0577350), rel=1e-5)
    t = 0.2 / 0.0577350
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-5)
    assert found.verdict == "no difference shown"
    assert compare_pairs(from_logs(np.array([0.1, 0.2, 0.3])), alpha=0.08).verdict == "faster"


def test_six_fully_separated_pairs_are_called() -> None:
    # A guard that forgets that a test is two-sided leaves out just this number.
    for count in range(5, 12):
        a = [1 + 0.01 * number for number in range(count)]
        b = [1.5 + 0.02 * number for number in range(count)]
        assert compare_pairs(pairs(a, b), alpha=0.05).verdict == "faster", count
        assert compare_pairs(pairs(b, a), alpha=0.05).verdict == "slower", count


def test_equal_log_ratios_are_a_matter_of_their_signs() -> None:
    # Without a spread t would be infinite after two pairs; 2 ÷ 2^6 = 0.031.
    found = [compare_pairs(pairs([1.0] * n, [1.1] * n), alpha=0.05) for n in range(2, 9)]
    assert {one.test for one in found} == {"sign"}
    assert [one.p for one in found] == [pytest.approx(2 / 2**n) for n in range(2, 9)]
    assert [one.verdict for one in found] == ["no difference shown"] * 4 + ["faster"] * 3
    same = compare_pairs(pairs([1.0] * 9, [1.0] * 9))
    assert (same.p, same.ratio, same.verdict) == (1.0, 1.0, "no difference shown")


def test_one_pair_or_none_says_nothing() -> None:
    for sequential in (False, True):
        none = compare_pairs([], sequential=sequential)
        assert (none.pairs, none.ratio, none.low, none.high, none.p) == (0, None, None, None, 1.0)
        one = compare_pairs(pairs([1.0], [2.0]), sequential=sequential)
        assert (one.ratio, one.low, one.p) == (pytest.approx(2.0), None, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(times, times), max_size=25), st.booleans(), st.sampled_from([8.0, 99.0]))
def test_swapping_the_sides_mirrors_the_comparison(
    drawn: list[tuple[float, float]], sequential: bool, budget: float
) -> None:
    a, b = [x for x, _ in drawn], [y for _, y in drawn]
    one = compare_pairs(pairs(a, b, budget), sequential=sequential)
    other = compare_pairs(pairs(b, a, budget), sequential=sequential)
    if one.test == "randomised" or (sequential and one.a_missed + one.b_missed):
        return  # drawn subsets, and a grid laid over bounds, are not mirrored to the last digit
    assert one.p == pytest.approx(other.p)
    assert (one.a_missed, one.b_missed) == (other.b_missed, other.a_missed)
    for mine, yours in ((one.ratio, other.ratio), (one.low, other.high), (one.high, other.low)):
        assert (mine is None) == (yours is None)
        if mine is not None and yours is not None:
            assert mine == pytest.approx(1 / yours, rel=0.05 if sequential else 1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(times, times), min_size=2, max_size=15), times)
def test_the_unit_does_not_matter(drawn: list[tuple[float, float]], factor: float) -> None:
    a, b = [x for x, _ in drawn], [y for _, y in drawn]
    one = compare_pairs(pairs(a, b))
    other = compare_pairs(pairs([factor * x for x in a], [factor * y for y in b]))
    if one.test == other.test == "student" and max(map(abs, np.log(np.divide(a, b)))) > 1e-6:
        assert other.p == pytest.approx(one.p, rel=1e-3, abs=1e-6)


def test_a_miss_gives_a_bound() -> None:
    assert pairs([5.0], [99.0], budget=10)[0].bounds == (math.log(2), math.inf)
    assert pairs([99.0], [5.0], budget=10)[0].bounds == (-math.inf, math.log(0.5))
    both = pairs([99.0], [99.0], budget=10)[0]
    assert both.bounds == (-math.inf, math.inf) and not both.telling
    # On the warm clock budgets may end at different times: B was given up before A reached.
    early = Pair(a=Amount(value=9.0), b=Amount(value=7.0, reached=False))
    assert early.bounds[0] < 0 and not early.telling


def test_one_sides_misses_leave_the_limit_on_the_other() -> None:
    a = [4.0, 4.2, 4.1, 3.9, 4.0, 4.1]
    found = compare_pairs(pairs(a, [9.0, 99.0, 8.8, 99.0, 9.1, 99.0], budget=10))
    assert (found.a_missed, found.b_missed, found.pairs) == (0, 3, 6)
    assert found.high is None and found.ratio is None
    # As low as if each miss had come in with the budget: none was faster than that.
    least = compare_pairs(pairs(a, [9.0, 10.0, 8.8, 10.0, 9.1, 10.0]))
    assert found.low == pytest.approx(least.low) and found.low is not None and found.low > 1.8
    assert found.verdict == "faster"
    # The median is known where the middle ones are.
    most = compare_pairs(pairs(a[:5], [9.0, 9.2, 8.8, 8.9, 99.0], budget=10), sequential=True)
    assert most.ratio == pytest.approx(8.8 / 4.1, rel=0.1)


def test_all_of_one_side_missed() -> None:
    a = [4.0 + 0.1 * number for number in range(10)]
    for sequential in (False, True):
        found = compare_pairs(pairs(a, [99.0] * 10, budget=10), sequential=sequential)
        assert found.verdict == "faster" and found.ratio is None and found.high is None
        assert found.low is not None and 1.5 < found.low < 2.5
        mirrored = compare_pairs(pairs([99.0] * 10, a, budget=10), sequential=sequential)
        assert mirrored.verdict == "slower" and mirrored.low is None


def test_misses_on_both_sides_leave_the_signs() -> None:
    a = [4.0] * 11 + [99.0]
    b = [99.0] * 11 + [4.0]
    found = compare_pairs([*pairs(a, b, 10), *pairs([99.0] * 3, [99.0] * 3, 10)])
    assert (found.test, found.pairs, found.untelling) == ("sign", 12, 3)
    assert found.p == pytest.approx(2 * 13 / 2**12)  # 11 or 12 of 12, on either side
    assert (found.low, found.high, found.verdict) == (None, None, "faster")


@pytest.mark.parametrize("sequential", [False, True])
def test_a_against_a_with_misses(sequential: bool) -> None:
    # A target that half the runs miss: the time is normal about the budget.
    random = np.random.default_rng(3)
    drawn = random.normal(10.0, 1.0, (500, 2, 12))
    wrong = [
        compare_pairs(pairs(a, b, budget=10.5), sequential=sequential).verdict for a, b in drawn
    ]
    assert np.mean([verdict != "no difference shown" for verdict in wrong]) <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("count", [5, 10, 24])
def test_a_against_a_with_a_fixed_number(count: int, noise: str) -> None:
    drawn = log_ratios(noise, 1000, count, seed=count)
    called = [compare_pairs(from_logs(row)).verdict != "no difference shown" for row in drawn]
    assert np.mean(called) <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 1000)


def test_the_limits_hold_the_ratio_as_often_as_they_say() -> None:
    for count, least in ((5, 0.96), (24, 0.96)):
        found = [
            compare_pairs(from_logs(row))
            for row in log_ratios("normal", 80, count, slower=0.05, seed=7)
        ]
        assert {one.test for one in found} == {"student" if count < 20 else "randomised"}
        assert np.mean([one.low <= 1.05 <= one.high for one in found]) >= least  # type: ignore[operator]


def test_randomised_subsets_are_near_student_for_normal_noise() -> None:
    rows = log_ratios("normal", 10, 40, slower=0.02, seed=11)
    for row in rows:
        found = compare_pairs(from_logs(row), alpha=0.05)
        error = row.std(ddof=1) / math.sqrt(40)
        assert found.low is not None and found.high is not None
        assert math.log(found.low) == pytest.approx(row.mean() - 2.0227 * error, abs=0.4 * error)
        assert math.log(found.high) == pytest.approx(row.mean() + 2.0227 * error, abs=0.4 * error)


def test_randomised_subsets_are_an_exact_test() -> None:
    # Of 20 signs all but the smallest agree: of 2^20 flips, four leave a sum as large.
    row = np.array([-0.01, *(0.1 + 0.001 * number for number in range(19))])
    found = compare_pairs(from_logs(row))
    assert found.test == "randomised" and found.p == pytest.approx(2 / 10_000)
    assert found.low is not None and 1.05 < found.low < found.ratio  # type: ignore[operator]


def test_holm_worked_by_hand() -> None:
    # 4 × 0.01, 3 × 0.015, 2 × 0.04; the last may not be less than the one before.
    assert holm([0.04, 0.01, 0.05, 0.015]) == pytest.approx([0.08, 0.04, 0.08, 0.045])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03] and holm([]) == []


def test_holm_over_workloads_takes_verdicts_back() -> None:
    rows = log_ratios("normal", 6, 5, seed=1)
    clear = compare_pairs(from_logs(rows[0] + 0.3))
    barely = dataclasses.replace(compare_pairs(from_logs(rows[1])), p=0.004, adjusted_p=0.004)
    assert barely.verdict != "no difference shown"
    together = with_holm([clear, *[barely] * 3])
    assert [one.verdict for one in together] == ["faster", *["no difference shown"] * 3]
    assert [one.p for one in together[1:]] == [0.004] * 3


@given(st.lists(st.floats(min_value=0, max_value=1), max_size=8))
def test_holm_keeps_the_order_and_only_raises(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    for (p, q), (r, s) in itertools.combinations(zip(p_values, adjusted, strict=True), 2):
        assert q <= s if p <= r else s <= q


def test_the_number_of_further_pairs_has_the_power_it_promises() -> None:
    seen = log_ratios("normal", 1, 5, seed=6)[0]
    more = further_pairs(from_logs(seen))
    assert more is not None and 1 <= more <= 8
    sigma = seen.std(ddof=1)
    random = np.random.default_rng(0)
    futures = random.normal(math.log(1.05), sigma, (300, 5 + more))
    shown = [compare_pairs(from_logs(row)).verdict == "faster" for row in futures]
    assert np.mean(shown) >= 0.86
    fewer = [compare_pairs(from_logs(row[:-1])).verdict == "faster" for row in futures]
    assert np.mean(fewer) <= 0.94
    assert further_pairs(from_logs(seen), effect=0.01) > 5 * (5 + more)  # type: ignore[operator]
    assert further_pairs(from_logs(seen), effect=0.0005) is None
    assert further_pairs(from_logs(seen), effect=0.5) == 0
    assert further_pairs(from_logs(seen), alpha=0.001) > more  # type: ignore[operator]


def test_further_pairs_without_noise_to_go_by() -> None:
    assert further_pairs([]) is None
    assert further_pairs(pairs([1.0], [1.1])) is None
    assert further_pairs(pairs([4.0] * 6, [99.0] * 6, budget=10)) is None
    # Equal ratios are judged by their signs: 2 ÷ 2^8 ≤ 0.01.
    assert further_pairs(pairs([1.0] * 5, [1.0] * 5)) == 3


def comparison(low: float | None, high: float | None) -> Comparison:
    return dataclasses.replace(compare_pairs([]), low=low, high=high)


def test_what_is_ruled_out() -> None:
    assert comparison(0.97, 1.04).rules_out(0.05)
    assert not comparison(0.95, 1.04).rules_out(0.05)
    assert not comparison(0.97, 1.06).rules_out(0.05)
    assert not comparison(0.97, None).rules_out(0.05)


def test_medians_of_what_is_known() -> None:
    assert median_ratio([(1.0, 2.0), (2.0, None), (None, None), (1.0, 4.0)]) == 3.0
    assert median_ratio([(0.0, 1.0)]) is None
