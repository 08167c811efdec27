import itertools
import math
from pathlib import Path

import pytest
from records.synthetic_runs import MACHINE, SyntheticRun, workload_card

from harness.judging.performance_profile import median_times, ratios, scores
from harness.judging.scored_runs import RunsPool, pools_of_runs
from harness.spec import ClockKind

INF = math.inf
BASE, VARIANT = "resnet/digits", "resnet/digits-gelu"


class Runs:
    """Writes runs that reach the target after `time_s`, None: that miss it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._numbers = itertools.count()

    def __call__(
        self,
        submission: str,
        time_s: float | None = 3.0,
        workload: str = "blobs/two",
        version: int = 1,
        **changes: object,
    ) -> None:
        if time_s is None:
            changes |= {"values": (0.5, 0.6), "outcome": "budget", "credited": None}
        SyntheticRun(
            run_id=f"run-{next(self._numbers):03}",
            submission=submission,
            workload=workload_card(workload, version=version),
            interval_s=(time_s or 3.0) / 3,  # credited at the third evaluation
            **changes,  # type: ignore[arg-type]
        ).write(self.home)

    def pools(self, *names: str, clock: ClockKind = "cold") -> list[RunsPool]:
        return pools_of_runs(self.home, names or None, clock, None)

    def pool(self, *names: str, clock: ClockKind = "cold") -> RunsPool:
        (found,) = self.pools(*names, clock=clock)
        return found


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def scored(found: RunsPool) -> dict[str, float]:
    table = ratios(median_times(found.pool), found.pool)
    return dict(zip(found.pool.submissions, scores(table).tolist(), strict=True))


def test_a_home_without_runs_has_no_pools(tmp_path: Path) -> None:
    assert pools_of_runs(tmp_path, None, "cold", None) == []


def test_each_run_by_itself_is_a_study_and_a_miss_is_infinite(runs: Runs) -> None:
    for seed, time_s in enumerate((3.0, None, 6.0)):
        runs("lion", time_s, seed=seed)
    runs("adamw", 12.0)
    runs("adamw", 4.5, workload="blobs/three")
    found = runs.pool()
    assert (found.machine_class, found.tuning_effort) == (MACHINE, "defaults")
    assert sorted(found.pool.study_times["lion", "blobs/two"]) == pytest.approx([3.0, 6.0, INF])
    assert found.pool.workloads == ("blobs/three", "blobs/two")
    # Medians on two: 6 and 12 s, a ratio of 2; lion did not run three.
    assert scored(found) == pytest.approx({"adamw": (1 + 66.5 / 99) / 2, "lion": 0.5})


def test_machine_classes_and_efforts_are_never_pooled(runs: Runs) -> None:
    runs("lion")
    runs("lion", tuning_effort="16 trials")
    runs("lion", machine_class="another")
    found = [(pool.machine_class, pool.tuning_effort) for pool in runs.pools()]
    assert found == [(MACHINE, "16 trials"), (MACHINE, "defaults"), ("another", "defaults")]


def test_a_rulesets_study_takes_its_fastest_trial_whatever_the_point(runs: Runs) -> None:
    for study, trial, time_s in ((0, 0, None), (0, 1, 6.0), (0, 2, 3.0), (1, 0, 9.0), (1, 1, None)):
        runs(
            "lion",
            time_s,
            hyperparameters={"lr": 0.001 * (trial + 1)},
            tuning_effort="trial of 3",
            ruleset="external",
            study=study,
            trial=trial,
        )
    found = runs.pool()
    assert found.pool.submissions == ("lion",)
    assert sorted(found.pool.study_times["lion", "blobs/two"]) == pytest.approx([3.0, 9.0])


def test_tainted_interrupted_and_older_runs_are_left_out_and_said(runs: Runs) -> None:
    runs("lion", 3.0, version=2)
    runs("lion", 1.0, version=1)
    runs("lion", 1.0, version=2, taints=("throttled",))
    runs("lion", 1.0, version=2, outcome="interrupted", credited=None)
    found = runs.pool()
    assert list(found.pool.study_times["lion", "blobs/two"]) == pytest.approx([3.0])
    assert found.versions == {"blobs/two": 2}
    assert found.notes == [
        "Runs tainted or without an end of their own are left out: 2.",
        "Runs of an older version of their workload are left out: 1.",
    ]


def test_points_that_differ_between_workloads_are_one_entry(runs: Runs) -> None:
    runs("lion", workload="blobs/two", hyperparameters={"lr": 0.1})
    runs("lion", workload="blobs/three", hyperparameters={"lr": 0.2})
    assert runs.pool().pool.submissions == ("lion",)


def test_several_points_or_sources_on_one_workload_are_entries_of_their_own(runs: Runs) -> None:
    runs("lion", hyperparameters={"lr": 0.1, "beta": 0.9}, tuning_effort="by hand")
    runs("lion", hyperparameters={"lr": 0.2, "beta": 0.9}, tuning_effort="by hand")
    runs("sgd", source_sha256="a" * 64, tuning_effort="by hand")
    runs("sgd", source_sha256="b" * 64, tuning_effort="by hand")
    found = runs.pool()
    assert set(found.submission_of.values()) == {"lion", "sgd"}
    assert sorted(found.pool.submissions) == [
        "lion (lr=0.1)",
        "lion (lr=0.2)",
        "sgd (source aaaaaaaa)",
        "sgd (source bbbbbbbb)",
    ]


def test_held_out_variants_decide_over_their_base(runs: Runs) -> None:
    for submission in ("lion", "adamw"):
        runs(submission, 3.0, workload=BASE)
    runs("lion", 3.0, workload=VARIANT)
    found = runs.pool()
    assert found.pool.workloads == (BASE,)
    assert found.pool.variants == {VARIANT: BASE}
    assert scored(found) == {"adamw": 0.0, "lion": 1.0}
    # Named without it, the base stands alone.
    assert scored(runs.pool(BASE)) == {"adamw": 1.0, "lion": 1.0}
    alone = runs.pool(VARIANT)
    assert alone.pool.workloads == ()
    assert alone.notes == [
        f"{VARIANT} is a held-out variant of {BASE}, which is not among the workloads: left out."
    ]


def test_workloads_that_are_named_count_also_where_nobody_ran_them(runs: Runs) -> None:
    runs("lion", workload="blobs/two")
    runs("lion", workload="blobs/three")
    assert scored(runs.pool("blobs/two", "blobs/four")) == {"lion": 0.5}


def test_the_warm_clock_leaves_compilation_out(runs: Runs) -> None:
    runs("lion", 3.0, compile_s=1.0)
    assert list(runs.pool(clock="warm").pool.study_times["lion", "blobs/two"]) == [2.0]


def test_the_budget_is_the_records(runs: Runs) -> None:
    runs("lion")
    assert runs.pool().budgets_s == {"blobs/two": 10.0}
