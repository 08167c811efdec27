"""`bench sensitivity`: the values, what their runs say, the picture, the errors, and for real."""

import csv
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli.test_bad_input import bench
from records.synthetic_runs import SyntheticRun

from harness import catalogue
from harness.cli import sensitivity as command
from harness.errors import UsageError
from harness.sweeps import local
from harness.sweeps.jobs import Job, Slot
from harness.sweeps.sensitivity import axis, factors, rates_of, sensitivity_jobs

MLP = catalogue.workload("mlp").card
CPU = Slot(device="cpu")
PLUGINS = Path(__file__).parents[1] / "plugins"
BUDGET_S = MLP.budget_paces * 1e-3  # of a synthetic run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("low", "high", "points", "expected"),
    [
        (0.1, 10, 1, [0.1, 1, 10]),
        (0.1, 1, 2, [0.1, 10**-0.5, 1]),
        # Nothing beyond the ends, and always powers of 10^(1/points): what is there fits.
        (0.2, 5, 2, [10**-0.5, 1, 10**0.5]),
        (10**-1.5, 10**1.5, 2, [10 ** (k / 2) for k in range(-3, 4)]),
        (2, 1000, 1, [10, 100, 1000]),
    ],
)
def test_the_factors(low: float, high: float, points: int, expected: list[float]) -> None:
    assert factors(low, high, points) == pytest.approx(expected)
    assert set(factors(low, high, points)) <= set(factors(low / 10, high * 10, points))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (10, 0.1, "no range"),
        (0, 1, "no range"),
        (math.nan, 1, "no range"),
        (0.1, math.inf, "no range"),
        (1.1, 2, "there are 0 values"),
        (0.9, 2, "there are 1 values"),
        (1e-200, 1e200, "there are 801 values"),
    ],
)
def test_a_range_that_cannot_be_tried_is_refused(low: float, high: float, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        factors(low, high, 2)


def test_the_values_lie_about_the_tuned_one_the_default_or_the_one_given() -> None:
    tried = [0.1, 1.0, 10.0]
    adamw = axis("adamw", MLP, "lr", (), tried)
    assert (adamw.hyperparameter, adamw.present) == ("lr", 0.04)  # the recipe's
    assert adamw.values == ((0.1, "0.004"), (1.0, "0.04"), (10.0, "0.4"))
    given = axis("adamw", MLP, "lr", ("optimizer.lr=0.5", "weight_decay=0.2"), tried)
    assert (given.present, given.settings) == (0.5, ("weight_decay=0.2",))
    assert given.entrants()[0].set == {"weight_decay": "0.2", "lr": "0.05"}
    averaged = axis("lion+ema", MLP, "lr", ("lion.lr=0.5",), tried)
    assert (averaged.hyperparameter, averaged.present, averaged.settings) == ("lion.lr", 0.5, ())
    # The reference's optimizer is there though nobody named it.
    assert axis("ema", MLP, "lr", (), tried).hyperparameter == "adamw.lr"
    class_alone = axis("torch.optim:SGD", MLP, "lr", ("lr=1",), tried)
    assert class_alone.values == ((0.1, "0.1"), (1.0, "1"), (10.0, "10"))


def made(home: Path, job: Job, seconds: float | None, best: float) -> None:
    """Write a job's run, which reached the target after some seconds or, None, never."""
    name = f"run-{len(list(home.glob('runs/*'))):03}"
    values = (best, best) if seconds is None else (0.5, best, best)
    SyntheticRun(
        run_id=name,
        identity=job.identity,
        submission=job.submission,
        workload=MLP,
        outcome="budget" if seconds is None else "reached",
        values=values,
        credited=None if seconds is None else 1,
        interval_s=1.0 if seconds is None else seconds / 2,
    ).write(home)


def planned(home: Path, seeds: int = 1, tried: tuple[float, ...] = (0.1, 1.0, 10.0)) -> list[Job]:
    axes = [axis(name, MLP, "lr", (), tried) for name in ("adamw", "lion")]
    return sensitivity_jobs(axes, "mlp", seeds, CPU, home)


def by_rate(jobs: list[Job]) -> dict[tuple[str, str], list[Job]]:
    found: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        (setting,) = job.request.settings
        found.setdefault((job.submission, setting), []).append(job)
    return found


def test_a_value_counts_once_all_its_runs_are_there(home: Path) -> None:
    jobs = planned(home, seeds=2)
    assert len({job.identity for job in jobs}) == len(jobs) == 12
    runs = by_rate(jobs)
    for job, seconds in zip(runs["adamw", "lr=0.04"], (1.0, 2.0), strict=True):
        made(home, job, seconds, 0.96)
    made(home, runs["adamw", "lr=0.4"][0], None, 0.3)
    axes = [axis(name, MLP, "lr", (), (0.1, 1.0, 10.0)) for name in ("adamw", "lion")]
    (adamw, lion), missing = rates_of(axes, jobs, home)
    assert (lion, missing) == ([], 9)
    assert [(one.value, one.factor, one.trial.reached) for one in adamw] == [(0.04, 1, 2)]
    assert adamw[0].trial.share_of_budget == pytest.approx(1.5 / BUDGET_S)
    assert adamw[0].best_metric == 0.96


def test_a_run_made_by_itself_counts_at_the_present_value(home: Path) -> None:
    from harness.run import Request, plan

    alone = plan(Request(submission="adamw", workload="mlp", device="cpu", home=home))
    swept = by_rate(planned(home))["adamw", "lr=0.04"][0]
    assert swept.identity == alone.identity(0)


@pytest.fixture
def measured(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All runs of two submissions; adamw in 1, 0.5 and 4/4 of the budget, lion everywhere."""
    ends: dict[str, tuple[tuple[float | None, float], ...]] = {
        "adamw": ((None, 0.6), (0.5 * BUDGET_S, 0.96), (None, 0.2)),
        "lion": ((0.75 * BUDGET_S, 0.96), (0.25 * BUDGET_S, 0.96), (0.25 * BUDGET_S, 0.96)),
    }
    numbers = dict.fromkeys(ends, 0)
    for runs in by_rate(planned(home)).values():
        for job in runs:
            made(home, job, *ends[job.submission][numbers[job.submission]])
            numbers[job.submission] += 1
    monkeypatch.setattr(command, "_untrained", lambda *_: 0.1)

    def no_run(*_: object) -> None:
        raise AssertionError("everything is there already")

    monkeypatch.setattr(local._Slot, "_carry_out", no_run)
    return home


ARGUMENTS = ("sensitivity", "-s", "adamw,lion", "-w", "mlp", "--device", "cpu")
ONE_EACH = (*ARGUMENTS, "--decades", "2", "--points", "1")


def test_the_table_the_curves_and_the_figures(measured: Path) -> None:
    code, out, err = bench(*ONE_EACH)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if line.startswith(("adamw ", "lion "))]
    assert ["adamw", "lr", "0.004", "0.1", "0/1", "100.0%", "0.6000"] in rows
    assert ["adamw", "lr", "0.04", "1", "1/1", "50.0%", "0.9600"] in rows
    # adamw: regrets of 1/2, 0, 1/2 of the budget; of the metric 0.36, 0, 0.76.
    assert "sensitivity over 2 decades: 25.0% of the budget; accuracy 0.2800, 32.6% of the" in out
    assert "reaches the target over 0 decades, 0.04 to 0.04" in out
    # lion: regrets of 1/2, 0, 0, and all of its values reach the target.
    assert "sensitivity over 2 decades: 12.5% of the budget; accuracy 0, 0.0% of the" in out
    assert "reaches the target over at least 2 decades, 0.0003 to 0.03" in out
    assert "within 2 × the best time over at least 1 decade, 0.003 to 0.03" in out
    assert "└" in out and "⠀" not in out.splitlines()[-1]


def test_the_formats_for_programs(measured: Path) -> None:
    code, out, _ = bench(*ONE_EACH, "--format", "json")
    told = json.loads(out)
    assert code == 0 and told["untrained_metric"] == 0.1 and len(told["rates"]) == 6
    assert told["rates"][0] == {
        "submission": "adamw", "workload": "mlp/digits", "hyperparameter": "lr", "value": 0.004,
        "factor": 0.1, "runs": 1, "reached": 0, "budget_share": 1.0, "best_metric": 0.6,
    }  # fmt: skip
    adamw, lion = told["sensitivity"]
    assert adamw["time"] == pytest.approx(0.25) and adamw["present"] == adamw["best"] == 0.04
    assert adamw["reaches"]["decades"] == 0 and lion["reaches"]["decades"] == pytest.approx(2)
    assert lion["near_best"]["open_high"] and not lion["near_best"]["open_low"]
    _, out, _ = bench(*ONE_EACH, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [float(row["value"]) for row in rows] == [0.004, 0.04, 0.4, 3e-4, 3e-3, 0.03]
    _, out, _ = bench(*ONE_EACH, "--format", "md")
    assert "| adamw | lr | 0.004 | 0.1 |" in out and "lion:\n\n- best lr: 0.003\n" in out
    assert "┤" not in out  # the curve in braille dots is for terminals


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture(measured: Path, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"rates.{suffix}"
    code, _, err = bench(*ONE_EACH, "--plot", str(path))
    assert code == 0 and f"Written to {path}" in err
    begins = {"png": b"\x89PNG\r\n", "svg": b"<?xml"}
    assert path.read_bytes().startswith(begins[suffix])
    assert path.stat().st_size > 10_000


def test_a_wider_range_asks_for_what_is_missing(measured: Path) -> None:
    code, out, err = bench(*ONE_EACH, "--dry-run")
    assert (code, err) == (0, "") and "0 of 6 runs to make" in out
    _, out, _ = bench(*ARGUMENTS, "--low", "0.001", "--high", "10", "--points", "1", "--dry-run")
    assert "4 of 10 runs to make" in out
    _, out, _ = bench(*ARGUMENTS, "--decades", "2", "--seeds", "3", "--points", "2", "--dry-run")
    assert "24 of 30 runs to make" in out
    _, out, _ = bench(*ARGUMENTS, "--dry-run")
    assert "of 14 runs to make" in out  # three decades, two points in each


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-s", "adamw", "-w", "nothing"), "The workload 'nothing' does not exist"),
        (("-s", "adamw", "-w", "@core"), "a sensitivity is of one"),
        (("-s", ",", "-w", "mlp"), "Name a submission"),
        (("-s", "adamw,adamw", "-w", "mlp"), "asks twice"),
        (("-s", "adamw", "-w", "mlp", "--hyperparameter", "rate"), "'rate' does not exist"),
        (("-s", "lion", "-w", "mlp", "--set", "lr=0"), "is 0.0 on mlp/digits"),
        (("-s", "torch.optim:SGD", "-w", "mlp"), "has no card"),
        (
            ("-s", "adamw", "-w", "mlp", "--hyperparameter", "beta1"),
            r"beta1 must be in [0, 0.9999], not 2.84605",
        ),
        (("-s", "adamw", "-w", "mlp", "--decades", "2", "--low", "0.1"), "Give one or the other"),
        (("-s", "adamw", "-w", "mlp", "--low", "0.1"), "belong together"),
        (("-s", "adamw", "-w", "mlp", "--decades", "nan"), "--decades is a width above 0"),
        (("-s", "adamw", "-w", "mlp", "--plot", "rates.gif"), "ends in .png, .svg, .pdf"),
        (("-s", "adamw", "-w", "mlp", "--plot", "no/rates.svg"), "there is no folder"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    home: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, out, err = bench("sensitivity", "--device", "cpu", *arguments)
    assert (code, out) == (2, "")
    assert said in err and "Traceback" not in err
    assert not home.exists()


def test_without_matplotlib_the_extra_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, err = bench(*ARGUMENTS, "--plot", "rates.svg")
    assert (code, out) == (2, "") and "pip install 'timetrial[plots]'" in err


@pytest.mark.slow
def test_a_sweep_over_decades_for_real(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        paths = [str(PLUGINS), os.environ.get("PYTHONPATH", "")]
        return subprocess.run(
            [
                *(sys.executable, "-m", "harness.cli", "sensitivity", "-s", "adamw"),
                *("-w", "quick/blobs", "--points", "1", "--device", "cpu", *arguments),
            ],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "BENCH_RESULTS": str(tmp_path / "results"),
                "TMPDIR": str(tmp_path),
                "XDG_CACHE_HOME": str(tmp_path / "cache"),
            },
            check=False,
            capture_output=True,
            text=True,
            timeout=250,
        )

    first = run("--low", "0.01", "--high", "1", "--format", "json")
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert [rate["runs"] for rate in told["rates"]] == [1, 1, 1]
    assert 0 <= told["sensitivity"][0]["time"] <= 1
    assert math.isfinite(told["untrained_metric"])
    assert told["sensitivity"][0]["metric_share"] <= 1
    runs = set((tmp_path / "results" / "runs").iterdir())
    again = run("--low", "0.01", "--high", "10", "--plot", str(tmp_path / "rates.svg"))
    assert again.returncode == 0, again.stderr
    assert len(set((tmp_path / "results" / "runs").iterdir()) - runs) == 1
    assert "sensitivity over 3 decades" in again.stdout
    assert (tmp_path / "rates.svg").is_file()
