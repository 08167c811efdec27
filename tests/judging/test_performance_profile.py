import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judging.performance_profile import (
    POINTS,
    TAUS,
    Pool,
    credits_of,
    median_times,
    profiles,
    ratios,
    relative_times,
    resampled_times,
    scores,
)

INF = math.inf


def pool(
    times: dict[str, dict[str, list[float]]],
    workloads: tuple[str, ...],
    variants: dict[str, str] | None = None,
) -> Pool:
    return Pool(
        submissions=tuple(times),
        workloads=workloads,
        study_times={(s, w): studies for s, row in times.items() for w, studies in row.items()},
        variants=variants or {},
    )


def scored(of: Pool) -> dict[str, float]:
    return dict(zip(of.submissions, scores(ratios(median_times(of), of)).tolist(), strict=True))


def test_three_submissions_on_two_workloads_by_hand() -> None:
    # Medians: a 100 and 40; b 200 and missed; c 401 and 10. Ratios to the fastest: a 1 and 4; b 2
    # and none; c 4.01, beyond four times the fastest, and 1. A ratio r earns (99.5 - k) ÷ 99, k
    # the first of the points 1 + 3k ÷ 99 not below r: 2 is point 33, 4 is point 99, 1 earns all.
    of = pool(
        {
            "a": {"x": [90.0, 100.0, 500.0], "y": [40.0, 30.0, 50.0]},
            "b": {"x": [200.0, 150.0, INF], "y": [INF, INF, 10.0]},
            "c": {"x": [401.0, 401.0, 401.0], "y": [10.0, 10.0, 10.0]},
        },
        ("x", "y"),
    )
    assert scored(of) == pytest.approx(
        {"a": (1 + 0.5 / 99) / 2, "b": (66.5 / 99 + 0) / 2, "c": (0 + 1) / 2}, abs=1e-15
    )
    profile = profiles(ratios(median_times(of), of))
    assert profile[0].tolist() == [0.5] * 99 + [1.0]  # a: y only at the last point
    assert profile[1].tolist() == [0.0] * 33 + [0.5] * 67


@pytest.mark.parametrize(
    ("ratio", "earned"),
    [
        (1.0, 1.0),
        (math.nextafter(1, 2), 98.5 / 99),  # not the fastest: the first interval by half
        (2.0, 66.5 / 99),
        (4.0, 0.5 / 99),
        (math.nextafter(4, 5), 0.0),
        (INF, 0.0),
    ],
)
def test_what_a_ratio_earns(ratio: float, earned: float) -> None:
    assert credits_of(np.array([ratio]))[0] == pytest.approx(earned, abs=1e-15)


@given(st.lists(st.floats(1, 6) | st.just(INF), min_size=1, max_size=9))
def test_the_score_is_the_trapezoid_rule_of_the_profile(sample: list[float]) -> None:
    table = np.array([sample])
    assert len(TAUS) == POINTS
    integral = np.trapezoid(profiles(table)[0], TAUS) / 3
    assert scores(table)[0] == pytest.approx(integral, abs=1e-12)
    assert scores(table)[0] == pytest.approx(credits_of(table).mean(), abs=1e-12)


def test_equal_scores_are_equal_in_any_order() -> None:
    sample = np.array([1.1, 1.9, 2.7, 3.3, 1.0, INF, 2.2])
    assert len({float(scores(np.roll(sample, n)[None])[0]) for n in range(7)}) == 1


def test_the_median_of_an_even_number_is_infinite_where_a_middle_one_is() -> None:
    of = pool(
        {"a": {"w": [100.0, 300.0], "x": [100.0, INF], "y": [INF, 1.0, 2.0, 3.0]}},
        ("w", "x", "y", "z"),
    )
    assert np.array_equal(median_times(of), [[200.0, INF, 2.5, math.nan]], equal_nan=True)


def test_exactly_four_times_the_fastest_is_kept() -> None:
    times = {"a": {"x": [0.1]}, "b": {"x": [0.4]}, "c": {"x": [math.nextafter(0.4, 1)]}}
    assert scored(pool(times, ("x",))) == {"a": 1.0, "b": pytest.approx(0.5 / 99), "c": 0.0}


def test_a_workload_that_nobody_ran_or_solved_counts_and_earns_nothing() -> None:
    of = pool({"a": {"x": [1.0], "y": [INF]}, "b": {"x": [2.0]}}, ("x", "y", "z"))
    assert scored(of) == pytest.approx({"a": 1 / 3, "b": 66.5 / 99 / 3})


def test_held_out_workloads_decide_over_their_own() -> None:
    times = {
        # Fastest on x, and fails the variant: the limit of 4 × 50 s stands, its credit does not.
        "fast": {"x": [50.0], "v": [INF], "y": [10.0]},
        "solid": {"x": [100.0], "v": [100.0], "y": [10.0]},
        "near": {"x": [200.0], "v": [100.0], "y": [10.0]},  # exactly 4 × 50 s
        "victim": {"x": [210.0], "v": [100.0], "y": [10.0]},
        "slow": {"x": [100.0], "v": [401.0], "y": [10.0]},
        "unseen": {"x": [100.0], "y": [10.0]},
        # Misses x, so its 1 s on the variant is nobody's measure.
        "variant only": {"x": [INF], "v": [1.0], "y": [10.0]},
    }
    found = scored(pool(times, ("x", "y"), {"v": "x"}))
    assert found == pytest.approx(
        {
            **dict.fromkeys(("fast", "victim", "slow", "unseen", "variant only"), 0.5),
            "solid": 1.0,
            "near": (66.5 / 99 + 1) / 2,
        }
    )


def test_who_wins_depends_on_who_else_is_there() -> None:
    # Ratios of a and b are (1, 5 ÷ 3) and (1.6, 1); when c comes, (20 ÷ 9, 5 ÷ 3) and (32 ÷ 9, 1).
    times = {
        "a": {"x": [10.0], "y": [10.0]},
        "b": {"x": [16.0], "y": [6.0]},
        "c": {"x": [4.5]},
    }
    of = pool(times, ("x", "y"))
    with_c, without_c = scored(of), scored(of.without(["c"]))
    assert with_c["a"] > with_c["b"] > with_c["c"]
    assert without_c["b"] > without_c["a"]
    assert "c" not in without_c


@given(st.permutations(["a", "b", "c"]))
def test_the_order_of_the_submissions_is_of_no_account(order: list[str]) -> None:
    times = {"a": {"x": [1.0], "y": [3.0]}, "b": {"x": [2.0], "y": [1.0]}, "c": {"x": [1.5]}}
    assert scored(pool({name: times[name] for name in order}, ("x", "y"))) == scored(
        pool(times, ("x", "y"))
    )


@given(st.floats(0.1, 100), st.floats(1, 10))
def test_a_slower_time_never_scores_more(time: float, factor: float) -> None:
    others = {"b": {"x": [10.0]}, "c": {"x": [25.0]}}
    before = scored(pool({"a": {"x": [time]}, **others}, ("x",)))["a"]
    assert scored(pool({"a": {"x": [time * factor]}, **others}, ("x",)))["a"] <= before


def test_resampling_is_seeded_and_draws_medians_of_the_studies() -> None:
    of = pool({"a": {"x": [1.0, 2.0, INF], "y": [7.0]}, "b": {"x": [3.0]}}, ("x", "y"))
    first, again = resampled_times(of, 500), resampled_times(of, 500)
    assert np.array_equal(first, again, equal_nan=True)
    assert not np.array_equal(first, resampled_times(of, 500, seed=1), equal_nan=True)
    assert set(first[:, 0, 0]) == {1.0, 2.0, INF}
    # Two or three of three draws are the infinite one: 7 of 27.
    assert np.isinf(first[:, 0, 0]).mean() == pytest.approx(7 / 27, abs=0.08)
    assert set(first[:, 0, 1]) == {7.0}
    assert np.isnan(first[:, 1, 1]).all()


def test_relative_times_are_geometric_means_with_the_budget_for_a_miss() -> None:
    of = pool(
        {
            "reference": {"x": [10.0], "y": [4.0]},
            "a": {"x": [20.0], "y": [INF], "v": [INF]},
            "b": {"x": [20.0]},
        },
        ("x", "y"),
        {"v": "x"},
    )
    found = relative_times(median_times(of), of, "reference", {"x": 99.0, "y": 31.0})
    assert found[:2].tolist() == pytest.approx([1.0, math.sqrt(2 * (31 + 1) / 4)])
    assert math.isnan(found[2])
