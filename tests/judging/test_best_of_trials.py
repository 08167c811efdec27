"""The best of some trials, and the expected best of k, against every subset counted out."""

import itertools
import math
import statistics

import pytest

from harness.judging.tuning import Attempt, Trial, expected_best, ranked


def attempt(
    seconds: float, *, reached: bool = True, workload: str = "a/b", best: float | None = 0.9
) -> Attempt:
    return Attempt(
        workload=workload, seconds=seconds, budget_s=10.0, reached=reached, best_value=best
    )


def trial(number: int, *attempts: Attempt) -> Trial:
    return Trial(number=number, point={}, attempts=attempts)


@pytest.mark.parametrize("values", [[3.0], [5.0, 1.0, 2.0, 2.0], [1.0] * 6, [0.3, 7.0, 2.5, 9, 4]])
def test_the_expected_best_is_the_mean_over_all_draws(values: list[float]) -> None:
    for k, found in enumerate(expected_best(values), start=1):
        draws = [min(draw) for draw in itertools.combinations(values, k)]
        assert found == pytest.approx(statistics.fmean(draws), rel=1e-12)


def test_a_miss_counts_with_the_whole_budget() -> None:
    assert trial(0, attempt(2.0), attempt(4.0)).share_of_budget == pytest.approx(0.3)
    assert trial(0, attempt(2.0), attempt(10.0, reached=False)).share_of_budget == pytest.approx(
        0.6
    )
    assert trial(0, attempt(10.0, reached=False)).share_of_budget == 1.0
    two = trial(0, attempt(1.0), attempt(3.0), attempt(8.0, workload="c/d"))
    assert two.share_of_budget == pytest.approx(math.sqrt(0.2 * 0.8))
    assert (two.reached, len(two.attempts)) == (3, 3)


def test_points_that_all_miss_are_told_apart_by_their_level() -> None:
    def missed(best: float | None) -> Attempt:
        return attempt(10.0, reached=False, best=best)

    trials = [
        trial(0, missed(0.5)),
        trial(1, missed(0.7)),
        trial(2, missed(None)),
        trial(3, attempt(9.9)),
    ]
    assert [one.number for one in ranked(trials)] == [3, 1, 0, 2]
    minimised = [
        trial(
            n,
            Attempt(
                workload="a/b",
                seconds=10,
                budget_s=10,
                reached=False,
                best_value=v,
                better_is_more=False,
            ),
        )
        for n, v in enumerate((0.5, 0.2, 0.9))
    ]
    assert [one.number for one in ranked(minimised)] == [1, 0, 2]


def test_equal_trials_keep_their_order() -> None:
    assert [one.number for one in ranked([trial(1, attempt(2.0)), trial(0, attempt(2.0))])] == [
        0,
        1,
    ]
