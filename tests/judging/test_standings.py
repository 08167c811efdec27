import math

import numpy as np
import pytest

from harness.judging.performance_profile import Pool
from harness.judging.standings import Reference, no_intervals, notes_on, standings

INF = math.inf


def pool(studies: int, **times: float) -> Pool:
    """A pool on one workload, each submission's studies 1 % apart around its time."""
    spread = np.linspace(0.99, 1.01, studies) if studies > 1 else [1.0]
    return Pool(
        submissions=tuple(times),
        workloads=("x",),
        study_times={(name, "x"): [time * s for s in spread] for name, time in times.items()},
    )


def test_ranks_are_by_score_and_equal_scores_share_one() -> None:
    rows = standings(pool(1, slow=30.0, b=INF, fast=10.0, a=INF))
    assert [(row.rank, row.submission) for row in rows] == [
        (1, "fast"),
        (2, "slow"),
        (3, "a"),
        (3, "b"),
    ]
    assert rows[2].times_s == {"x": None}
    assert rows[0].profile[0] == 1.0


def test_an_empty_pool_has_no_standings() -> None:
    assert standings(pool(1)) == []


def test_below_five_studies_there_are_no_intervals_and_it_says_why() -> None:
    of = pool(4, a=10.0, b=20.0)
    assert no_intervals(of) == (
        "No intervals: they take 5 studies of each; fewer have a (4), b (4)."
    )
    for row in standings(of):
        assert (row.score_low, row.rank_low, row.rank_high, row.tied_group) == (None,) * 4
        assert row.studies == 4


def test_from_five_studies_on_entries_far_apart_have_their_own_rank() -> None:
    of = pool(5, a=10.0, b=20.0, c=35.0)
    assert no_intervals(of) is None
    rows = standings(of)
    assert [(row.rank_low, row.rank_high, row.tied_group) for row in rows] == [
        (1, 1, 1),
        (2, 2, 2),
        (3, 3, 3),
    ]
    for row in rows:
        assert row.score_low is not None
        assert row.score_high is not None
        assert 0 <= row.score_low <= row.score <= row.score_high <= 1


def test_entries_that_cannot_be_told_apart_have_the_same_ranks() -> None:
    generator = np.random.default_rng(0)
    names = ("a", "b", "c")
    of = Pool(
        submissions=names,
        workloads=("x", "y"),
        study_times={
            (name, workload): (10 + generator.normal(size=5)).tolist()
            for name in names
            for workload in ("x", "y")
        },
    )
    assert {(row.rank_low, row.rank_high, row.tied_group) for row in standings(of)} == {(1, 3, 1)}


def test_a_submission_with_a_thin_workload_still_has_its_studies() -> None:
    of = Pool(
        submissions=("a",),
        workloads=("x", "y", "z"),
        study_times={("a", "x"): [1.0] * 5, ("a", "y"): [1.0] * 5, ("a", "z"): [INF] * 3},
    )
    assert of.studies("a") == 5
    assert no_intervals(of) is None


def test_times_over_a_references() -> None:
    rows = standings(pool(1, a=10.0, b=20.0), Reference(submission="b", budgets_s={"x": 100.0}))
    assert [row.relative_time for row in rows] == pytest.approx([0.5, 1.0])


def test_what_nobody_ran_is_said() -> None:
    of = Pool(
        submissions=("a",),
        workloads=("x", "y"),
        study_times={("a", "x"): [1.0]},
        variants={"v": "x"},
    )
    assert notes_on(of) == [
        "No submission ran y: it counts among the 2 workloads, and nobody is credited on it.",
        "No submission ran the held-out workload v, so nobody is credited on x.",
    ]
    (row,) = standings(of)
    assert (row.score, row.not_run) == (0.0, ["y", "v"])
