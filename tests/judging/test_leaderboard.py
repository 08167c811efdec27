import itertools
from pathlib import Path

import pytest
from records.synthetic_runs import BUDGET_S, SyntheticRun, workload_card

from harness.judging.axes import AXES
from harness.judging.leaderboard import leaderboard


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


@pytest.mark.parametrize("axis", ["memory", "energy"])
def test_rows_are_ranked_by_the_axis_asked_for(runs: Runs, axis: str) -> None:
    fields = {"memory": "peak_memory_bytes", "energy": "energy_j"}
    runs("adamw", 1.0, **{fields[axis]: 100})
    runs("lion", 0.5, **{fields[axis]: 200})
    runs("sgd", 0.1, **{fields[axis]: None})
    rows = leaderboard(runs.home, None, "cold", axis=axis).to_dicts()
    assert [(row["submission"], row["rank"]) for row in rows] == [
        ("adamw", 1),
        ("lion", 2),
        ("sgd", None),
    ]


@pytest.mark.parametrize("axis", ["steps", "examples", "passes"])
def test_work_is_counted_up_to_the_credited_evaluation(runs: Runs, axis: str) -> None:
    runs("adamw", 1.0)
    runs("lion", 2.0, values=(0.5, 0.95, 0.95), credited=1)
    first, second = leaderboard(runs.home, None, "cold", axis=axis).to_dicts()
    assert (first["submission"], first["steps_to_target"]) == ("lion", 200)
    assert (second["examples_to_target"], second["model_passes_to_target"]) == (3000, 9000)


def test_a_submission_that_seldom_arrives_has_no_rank_on_any_axis(runs: Runs) -> None:
    runs("lion", outcome="budget", reason="missed", values=(0.5,), peak_memory_bytes=1)
    runs("adamw")
    for axis in AXES:
        found = leaderboard(runs.home, None, "cold", axis=axis)
        by_name = dict(zip(found["submission"], found["rank"], strict=True))
        assert by_name["lion"] is None


def test_from_five_runs_on_there_are_intervals(runs: Runs) -> None:
    for number in range(5):
        runs("lion", 0.5 + number / 100)
        runs("adamw", 2.0 + number / 100)
        if number:
            runs("sgd", 1.0)
    lion, sgd, adamw = leaderboard(runs.home, None, "cold").to_dicts()
    assert (lion["rank_low"], lion["rank_high"], lion["tied_group"]) == (1, 1, 1)
    assert (adamw["rank_low"], adamw["rank_high"], adamw["tied_group"]) == (2, 2, 2)
    assert (lion["time_low_s"], lion["time_high_s"]) == pytest.approx((1.5, 1.62))
    assert lion["restricted_mean_s"] == pytest.approx(1.56)
    assert lion["restricted_mean_low_s"] < 1.56 < lion["restricted_mean_high_s"]
    for field in ("rank_low", "tied_group", "time_low_s", "restricted_mean_low_s"):
        assert sgd[field] is None


def test_with_a_miss_the_median_alone_has_an_interval(runs: Runs) -> None:
    for number in range(4):
        runs("lion", 0.5 + number / 100)
    runs("lion", outcome="diverged", reason="nan", values=(None,))
    (row,) = leaderboard(runs.home, None, "cold").to_dicts()
    assert (row["time_low_s"], row["time_high_s"]) == (pytest.approx(1.5), None)
    assert row["restricted_mean_s"] == pytest.approx((4 * 1.545 + BUDGET_S) / 5)
    assert row["restricted_mean_low_s"] is None


def test_rows_that_hardly_differ_are_tied(runs: Runs) -> None:
    for number in range(6):
        runs("lion", 0.5 + number / 100)
        runs("adamw", 0.501 + number / 100)
    rows = leaderboard(runs.home, None, "cold").to_dicts()
    assert [(row["rank"], row["rank_low"], row["rank_high"]) for row in rows] == [
        (1, 1, 2),
        (2, 1, 2),
    ]
    assert {row["tied_group"] for row in rows} == {1}
