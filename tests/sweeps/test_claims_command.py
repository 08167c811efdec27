"""`bench claims`: equal tuning on both sides, pairs of the best points, the ledger."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from cli.test_bad_input import bench
from sweeps.made_runs import Made, RecordedRuns, Script

from harness import catalogue
from harness.judging.ledger import ledger_path, read_ledger
from harness.sweeps import local
from harness.sweeps.claims import FIRST_SEED
from harness.sweeps.jobs import Job

Claims = Callable[..., tuple[object, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@pytest.fixture
def claims(home: Path, monkeypatch: pytest.MonkeyPatch) -> Claims:
    """Call the command with runs that a script makes up."""

    def call(script: Script, *arguments: str) -> tuple[object, str, str]:
        runs = lambda slots: RecordedRuns(home, script)  # noqa: E731
        monkeypatch.setattr(local, "LocalExecutor", runs)
        return bench("claims", "run", *arguments, "--device", "cpu")

    return call


class Races:
    """A script in which the trial with a given number is a submission's best, and counts runs."""

    def __init__(self, seconds: dict[str, float], best: int = 2) -> None:
        self.seconds, self.best = seconds, best
        self.tried: Counter[str] = Counter()
        self.paired: dict[str, set[tuple[str, ...]]] = {}

    def __call__(self, job: Job, _: int) -> Made:
        base = self.seconds[job.submission]
        if job.seed < FIRST_SEED:
            self.tried[job.submission] += 1
            return Made(seconds=base if job.request.trial == self.best else 2 * base)
        self.paired.setdefault(job.submission, set()).add(tuple(job.request.settings))
        return Made(seconds=base * (1 + 0.01 * (job.seed % len(job.submission))))


LION = catalogue.submission("lion").card.claim
assert LION is not None


def test_both_sides_try_as_many_points_and_the_best_meet(claims: Claims, home: Path) -> None:
    script = Races({"lion": 1.0, "adamw": 10.0})
    code, out, err = claims(script, "lion", "--trials", "3", "--pairs", "5")
    assert code == 0, err
    assert script.tried == {"lion": 3, "adamw": 3}
    (entry,) = read_ledger(ledger_path(home))
    assert (entry.own.trials, entry.other.trials, entry.pairs) == (3, 3, 5)
    assert entry.verdict == "holds here" and entry.claimed == LION.ratio
    assert entry.ratio == pytest.approx(0.1, rel=0.05) and len(entry.run_ids) == 10
    assert "lion: submission time" in out and "holds here" in out
    # The pairs ran at the third point of each side, with seeds of their own.
    for submission, side in (("lion", entry.own), ("adamw", entry.other)):
        (settings,) = script.paired[submission]
        for setting in settings:
            name, _, value = setting.removeprefix(f"{submission}.").partition("=")
            assert float(side.hyperparameters[name]) == pytest.approx(float(value))
    again = Races({"lion": 1.0, "adamw": 10.0})
    assert claims(again, "lion", "--trials", "3", "--pairs", "5")[0] == 0
    assert not again.tried and not again.paired


def test_a_baseline_begins_at_the_recipe_where_the_submission_inherits_it(
    claims: Claims, home: Path
) -> None:
    script = Races({"rs2": 9.0, "adamw": 10.0}, best=0)
    code, _, err = claims(script, "rs2", "--trials", "2", "--pairs", "5")
    assert code == 0, err
    (entry,) = read_ledger(ledger_path(home))
    recipe = catalogue.workload(entry.workload).card.recipe.hyperparameters
    assert entry.other.hyperparameters.items() >= recipe.items()
    assert {f"adamw.{name}": value for name, value in recipe.items()}.items() <= (
        entry.own.hyperparameters.items()
    )
    assert entry.verdict == "does not hold here"


def test_list_and_show_say_what_is_measured_and_what_is_not(claims: Claims) -> None:
    claims(Races({"lion": 9.0, "adamw": 10.0}), "lion", "--trials", "2", "--pairs", "5")
    code, out, _ = bench("claims", "list", "--format", "json")
    rows = {row["submission"]: row for row in json.loads(out)}
    claiming = {name for name, one in catalogue.submissions().items() if one.card.claim is not None}
    assert code == 0 and rows.keys() == claiming
    assert rows["lion"]["verdict"] == "does not hold here" and rows["lion"]["pairs"] == 5
    assert rows["muon"]["verdict"] == "not measured yet" and rows["muon"]["ratio"] is None
    _, table, _ = bench("claims", "list", "--format", "md")
    assert "| lion | submission time ≤ 0.2 × adamw on resnet/digits | 0." in table
    _, shown, _ = bench("claims", "show", "lion")
    assert "does not hold here: at least 0." in shown and "the best of 2 points" in shown
    assert LION.source in shown
    _, shown, _ = bench("claims", "show", "muon")
    assert "bench claims run muon" in shown


def test_a_failed_tuning_run_leaves_the_claim_unjudged(claims: Claims, home: Path) -> None:
    def script(job: Job, _: int) -> Made:
        return Made(outcome="crashed") if job.submission == "lion" else Made(seconds=10.0)

    code, _, err = claims(script, "lion", "--trials", "2", "--pairs", "5")
    assert code == 4 and "lion: not judged, since runs that tune a side failed" in err
    assert read_ledger(ledger_path(home)) == []


def test_a_dry_run_makes_nothing(claims: Claims, home: Path) -> None:
    script = Races({})
    code, out, _ = claims(script, "--all", "--dry-run")
    assert code == 0 and "Then 8 pairs for each of" in out
    assert not script.tried and read_ledger(ledger_path(home)) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "Name submissions or give --all"),
        (("lion", "--all"), "Name submissions or give --all"),
        (("sgd",), "The card of sgd claims nothing"),
        (("lino",), "lion"),
    ],
)
def test_wrong_names_say_what_is_legal(
    home: Path, arguments: tuple[str, ...], expected: str
) -> None:
    code, _, err = bench("claims", "run", *arguments)
    assert code == 2 and expected in err
