"""`bench leaderboard`: intervals, ties, axes, the metric at equal time, fronts and scores."""

import json
from pathlib import Path

import pytest
from cli.test_reading_commands import Bench, bench
from records.synthetic_runs import SyntheticRun, workload_card

__all__ = ["bench"]

WORKLOAD = "mlp/digits"  # one with a card, for its suite


def written(home: Path, submission: str, count: int, interval_s: float, **changes: object) -> None:
    home.mkdir(exist_ok=True)
    for seed in range(count):
        SyntheticRun(
            run_id=f"{submission}-{seed:02}",
            submission=submission,
            source_sha256=submission[0] * 64,
            seed=seed,
            interval_s=interval_s * (1 + seed / 50),
            workload=workload_card(WORKLOAD),
            **changes,  # type: ignore[arg-type]
        ).write(home)


@pytest.fixture
def several(bench: Bench) -> Bench:
    written(bench.home, "sam", 6, 0.5, peak_memory_bytes=250 << 20, energy_j=30.0)
    written(bench.home, "lion", 6, 0.505, energy_j=20.0)
    written(bench.home, "muon", 6, 1.5, energy_j=60.0)
    written(bench.home, "adamw", 6, 1.0, tuning_effort="reference", energy_j=40.0)
    return bench


def test_ties_are_letters_beside_the_intervals_of_ranks(several: Bench) -> None:
    shown = several("leaderboard")
    lines = [line.split() for line in shown.splitlines()]
    assert ["1", "1–2", "a", "sam", "6/6"] in [line[:5] for line in lines]
    assert ["2", "1–2", "a", "lion", "6/6"] in [line[:5] for line in lines]
    assert ["3", "3", "b", "muon", "6/6"] in [line[:5] for line in lines]
    assert "times faster than lion; so few runs do not show that it is." in shown
    assert "1.51–1.64" in shown
    table = shown[: shown.index("Too narrow")]
    assert max(map(len, table.splitlines())) <= 80


def test_times_that_read_alike_are_level(bench: Bench) -> None:
    written(bench.home, "sam", 6, 0.5)
    written(bench.home, "lion", 6, 0.501)
    assert "(median of 6), level with lion.\n" in bench("leaderboard")


def test_too_few_runs_have_no_interval_and_the_table_says_so(several: Bench) -> None:
    written(several.home, "grads", 2, 0.1)
    shown = several("leaderboard")
    assert "No interval from fewer than 5 runs: grads (2)." in shown
    assert "ranks of 3" in shown


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ("time", "sam reached the target in 1.56 s (median of 6)"),
        ("normalised", "sam needed the least normalised time: 1560 paces"),
        ("steps", "needed the fewest steps: 300 (median of 6)."),
        ("examples", "needed the fewest examples: 3,000"),
        ("passes", "needed the fewest model passes: 9,000"),
        ("memory", "sam needed the least peak memory: 250 MiB"),
        ("energy", "lion needed the least energy: 20.0 J (median of 6), 0.667 times sam's"),
    ],
)
def test_every_axis_is_ranked_by_and_shown(several: Bench, axis: str, said: str) -> None:
    shown = several("leaderboard", "--axis", axis)
    assert said in shown
    header = next(line for line in shown.splitlines() if line.startswith("#"))
    unit = {"time": "time, s", "normalised": "paces", "memory": "MiB", "energy": "J"}
    assert unit.get(axis, axis) in header


def test_the_front_is_marked_and_says_what_it_is_over(several: Bench) -> None:
    shown = several("leaderboard", "--pareto")
    assert "On the Pareto front of time × memory × energy: sam, lion." in shown
    written(several.home, "grads", 5, 0.1)
    shown = several("leaderboard", "--pareto")
    assert "On the Pareto front of time × memory: grads, sam." in shown
    assert "Not every row has energy" in shown
    rows = json.loads(several("leaderboard", "--format", "json"))
    assert {row["submission"] for row in rows if row["pareto_front"]} == {"grads", "sam", "adamw"}


def test_the_metric_at_equal_time_in_every_format(several: Bench) -> None:
    shown = several("leaderboard", "--at-time", "1.2")
    assert "the metric at 1.2 s" in shown
    assert "0.8000" in shown and "ended by then" not in shown
    rows = json.loads(several("leaderboard", "--at-time", "1200paces", "--format", "json"))
    assert {row["submission"]: row["metric"] for row in rows} == {
        "sam": 0.8,
        "lion": 0.8,
        "muon": None,
        "adamw": 0.5,
    }
    assert several("leaderboard", "--at-time", "9s", "--format", "csv").startswith("rank,")
    assert "| 1 |" in several("leaderboard", "--at-time", "9", "--format", "md")
    assert "ended by then" in several("leaderboard", "--at-time", "9")


def test_the_score_of_a_suite_in_every_format(several: Bench) -> None:
    shown = several("leaderboard", "--score", "suite", "-w", WORKLOAD)
    assert "0.7500" in shown and "0.3538" in shown
    assert "It depends on no other entry." in shown
    rows = json.loads(
        several("leaderboard", "--score", "suite", "-w", WORKLOAD, "--format", "json")
    )
    by_name = {row["submission"]: row for row in rows}
    assert by_name["adamw"]["score"] == 0.5
    assert by_name["sam"]["score_low"] < 0.75 < by_name["sam"]["score_high"]
    for form in ("csv", "md"):
        assert "0.75" in several(
            "leaderboard", "--score", "suite", "-w", WORKLOAD, "--format", form
        )


def test_without_runs_on_the_whole_suite_there_is_no_score(several: Bench) -> None:
    shown = several("leaderboard", "--score", "suite", "-w", "@core")
    assert "no runs on" in " ".join(shown.split())
    below = [line for line in shown.splitlines() if not line.startswith("score over")]
    assert max(map(len, below)) <= 80
    nothing = several("leaderboard", "--score", "suite", "-w", "logistic")
    assert "Nothing is measured on logistic/separable" in nothing


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--score", "suite"), "--workload @core"),
        (("--score", "suite", "--axis", "steps", "-w", "mlp"), "tables of their own"),
        (("--at-time", "3", "--pareto"), "tables of their own"),
        (("--at-time", "3", "--from", "*.parquet"), "needs evaluations"),
        (("--at-time", "soon"), "2.5s, or paces as in 500paces"),
        (("--at-time", "0"), "Legal"),
        (("--at-time", "nan"), "Legal"),
        (("--axis", "colour"), "'colour' is not one of"),
    ],
)
def test_wrong_questions_exit_2(bench: Bench, arguments: tuple[str, ...], said: str) -> None:
    bench("leaderboard", *arguments, code=2)
    assert said in bench.error
