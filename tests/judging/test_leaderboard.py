import itertools
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records.synthetic_runs import BUDGET_S, SyntheticRun, workload_card

from harness.judging.leaderboard import kaplan_meier_median, leaderboard

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


class Runs:
    """Writes runs, each under a new id."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._numbers = itertools.count()

    def __call__(self, submission: str, interval_s: float = 1.0, **changes: object) -> None:
        number = next(self._numbers)
        source = {"adamw": "a", "lion": "b", "sgd": "c"}[submission] * 64
        fields: dict[str, object] = {"source_sha256": source, "seed": number}
        run = SyntheticRun(
            run_id=f"run-{number:03}",
            submission=submission,
            interval_s=interval_s,
            **(fields | changes),  # type: ignore[arg-type]
        )
        run.write(self.home)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_an_empty_home_has_an_empty_leaderboard(tmp_path: Path) -> None:
    assert leaderboard(tmp_path, None, "cold").is_empty()


def test_submissions_are_ranked_by_their_median_time(runs: Runs) -> None:
    for interval_s in (1.0, 1.2, 1.1):
        runs("adamw", interval_s)
    for interval_s in (0.5, 0.7, 2.0):
        runs("lion", interval_s)
    first, second = leaderboard(runs.home, None, "cold").to_dicts()
    assert (first["rank"], first["submission"]) == (1, "lion")
    assert first["time_s"] == pytest.approx(2.1)  # credited at the third evaluation
    assert (first["fastest_s"], first["slowest_s"]) == pytest.approx((1.5, 6.0))
    assert first["normalised_time"] == pytest.approx(2100)
    assert (first["runs"], first["reached"]) == (3, 3)
    assert (first["steps_to_target"], first["model_passes_to_target"]) == (300, 9000)
    assert first["peak_memory_bytes"] == 300 << 20
    assert first["energy_j"] is None
    assert (second["rank"], second["submission"]) == (2, "adamw")


def test_a_miss_is_censored_neither_dropped_nor_infinite(runs: Runs) -> None:
    runs("lion", 1.0)
    runs("lion", 1.0)
    for outcome in ("budget", "crashed"):
        runs("lion", 0.1, outcome=outcome, reason="missed", values=(0.5,))
    (row,) = leaderboard(runs.home, None, "cold").to_dicts()
    assert (row["runs"], row["reached"], row["time_s"]) == (4, 2, pytest.approx(3.0))
    runs("lion", 0.1, outcome="diverged", reason="nan", values=(None,))
    (row,) = leaderboard(runs.home, None, "cold").to_dicts()
    assert (row["time_s"], row["rank"], row["normalised_time"]) == (None, None, None)
    assert row["budget_s"] == pytest.approx(BUDGET_S)


def test_runs_that_say_nothing_are_left_out_and_counted(runs: Runs) -> None:
    runs("lion")
    for outcome in ("interrupted", "stopped", "skipped"):
        runs("lion", outcome=outcome, reason="no evidence", values=(0.1,))
    runs("lion", 0.01, taints=["a shared device"])
    (row,) = leaderboard(runs.home, None, "cold").to_dicts()
    assert (row["runs"], row["time_s"]) == (1, pytest.approx(3.0))
    assert (row["tainted_left_out"], row["unfinished_left_out"]) == (1, 3)


def test_a_row_of_tainted_runs_alone_is_shown_without_a_rank(runs: Runs) -> None:
    runs("lion", taints=["drift"])
    (row,) = leaderboard(runs.home, None, "cold").to_dicts()
    assert (row["rank"], row["runs"], row["tainted_left_out"]) == (None, 0, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"tuning_effort": "5 trials"},
        {"machine_class": "another CPU"},
        {"workload": workload_card(version=2)},
        {"workload": workload_card(name="blobs/three")},
    ],
)
def test_unequals_are_never_ranked_together(runs: Runs, changes: dict[str, object]) -> None:
    runs("adamw", 1.0)
    runs("lion", 0.5, **changes)
    rows = leaderboard(runs.home, None, "cold").to_dicts()
    assert [row["rank"] for row in rows] == [1, 1]


@pytest.mark.parametrize(
    "changes", [{"hyperparameters": {"optimizer.lr": 0.5}}, {"source_sha256": "f" * 64}]
)
def test_points_and_sources_are_rows_of_their_own(runs: Runs, changes: dict[str, object]) -> None:
    runs("lion", 1.0)
    runs("lion", 0.5, **changes)
    rows = leaderboard(runs.home, None, "cold").to_dicts()
    assert [row["rank"] for row in rows] == [1, 2]
    assert [row["runs"] for row in rows] == [1, 1]


def test_equal_times_share_a_rank(runs: Runs) -> None:
    for submission in ("adamw", "lion"):
        runs(submission, 0.5)
    runs("sgd", 1.0)
    assert leaderboard(runs.home, None, "cold")["rank"].to_list() == [1, 1, 3]


def test_the_warm_clock_leaves_compilation_out(runs: Runs) -> None:
    runs("adamw", 1.0)
    runs("lion", 1.1, compile_s=2.0)
    cold = leaderboard(runs.home, None, "cold")
    warm = leaderboard(runs.home, None, "warm")
    assert cold["submission"].to_list() == ["adamw", "lion"]
    assert warm["submission"].to_list() == ["lion", "adamw"]
    assert warm["time_s"].to_list() == pytest.approx([1.3, 3.0])


def test_one_workload_can_be_asked_for(runs: Runs) -> None:
    runs("adamw")
    runs("lion", workload=workload_card(name="blobs/three"))
    assert leaderboard(runs.home, "blobs/three", "cold")["submission"].to_list() == ["lion"]
