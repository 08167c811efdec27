"""`bench compare`: the sentence, the tables, the exit codes, and one comparison for real."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from cli.test_bad_input import bench
from sweeps import test_sweep_command as sweeps
from sweeps.made_runs import Made, RecordedRuns, Script, times

from harness import catalogue
from harness.sweeps import local

Compare = Callable[..., tuple[object, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@pytest.fixture
def compare(home: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Call the command with runs that a script makes up."""

    def call(script: Script, *arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(local, "LocalExecutor", lambda slots: RecordedRuns(home, script))
        return bench("compare", *arguments, "--device", "cpu")

    return call


FASTER = times({"lion": [10.0, 10.2, 9.9, 10.1, 10.0], "sgd": [12.1, 12.4, 12.2, 12.0, 12.3]})
ALIKE = times({"lion": [10.0, 10.4, 9.8], "sgd": [10.2, 10.1, 10.0]})
TARGET = catalogue.workload("mlp").card.metric.target
EFFORT = f"{catalogue.submission('lion').card.tuned['mlp/digits'].trials} trials"
LION_SGD = ("lion", "sgd", "-w", "mlp")


def last_line(text: str) -> str:
    return text.rstrip().splitlines()[-1]


def test_it_ends_in_one_sentence(compare: Compare, home: Path) -> None:
    code, out, err = compare(FASTER, *LION_SGD)
    assert code == 0
    sentence = last_line(out)
    assert sentence == (
        f"lion is 1.22 (1.18 to 1.25) times faster than sgd to accuracy {TARGET:g} on mlp/digits, "
        "5 pairs."
    )
    assert "B ÷ A so far 1.22 (1.18 to 1.25), pairs 5" in err
    code, again, err = compare(FASTER, *LION_SGD)
    assert (code, again, err) == (0, out, "")
    code, out, _ = compare(FASTER, "sgd", "lion", "-w", "mlp")
    assert last_line(out).startswith("sgd is 1.22 (1.18 to 1.25) times slower than lion to")


def test_no_difference_says_how_many_more_pairs_would_decide(compare: Compare) -> None:
    _, out, _ = compare(ALIKE, *LION_SGD)
    sentence = last_line(out)
    assert sentence.startswith("No difference shown between lion and sgd to accuracy")
    assert "sgd took 1.0" in sentence and " times as long, 5 pairs; about " in sentence
    assert sentence.endswith("more pairs would show 5 %.")
    _, out, _ = compare(ALIKE, *LION_SGD, "--effect", "20%")
    assert "a difference of 20 % is ruled out" in out
    _, out, _ = compare(ALIKE, *LION_SGD, "--effect", "0.001")
    assert "cannot be said yet" in out


def test_until_decided(compare: Compare) -> None:
    code, out, _ = compare(FASTER, *LION_SGD, "--until-decided")
    assert code == 0
    assert last_line(out).startswith("lion is 1.2") and last_line(out).endswith(", 9 pairs.")
    _, out, _ = compare(FASTER, *LION_SGD, "--until-decided", "--dry-run")
    assert "At most 41 pairs to make" in out and "after 9 at the earliest" in out


def test_different_efforts_are_said_loudly(compare: Compare) -> None:
    _, out, _ = compare(FASTER, *LION_SGD, "--set-b", "lr=0.1")
    assert f"{EFFORT} : by hand" in out
    assert "THE TUNING EFFORTS DIFFER on mlp/digits: different efforts are never ranked" in out
    _, out, _ = compare(FASTER, *LION_SGD, "--set-a", "lr=0.01", "--set-b", "lr=0.1")
    assert "THE TUNING EFFORTS DIFFER" not in out


def test_a_name_against_itself_is_told_apart(compare: Compare) -> None:
    script = times({"lion": [10.0, 10.1, 10.2]})
    _, out, _ = compare(script, "lion", "lion", "-w", "mlp")
    assert "between lion (A) and lion (B)" in out
    _, out, _ = compare(
        script, "lion", "lion", "-w", "mlp", "--set", "beta1=0.8", "--set-b", "lr=1e-4"
    )
    assert "A = lion (A), B = lion (lr=1e-4); times" in out and "by hand : by hand" in out


def test_misses_give_a_bound(compare: Compare) -> None:
    script = times({"lion": [0.2, 0.21, 0.19, 0.2, 0.22], "sgd": [None]})
    _, out, _ = compare(script, *LION_SGD)
    sentence = last_line(out)
    assert sentence.startswith("lion is at least ") and "times faster than sgd" in sentence
    assert sentence.endswith("5 pairs (sgd missed the target in 5).")
    assert "5 : 0" in out
    # At risk of lion and in all: 5 of 10, 4 of 9 (two arrive), 2 of 7, 1 of 6.
    expected = 5 / 10 + 2 * 4 / 9 + 2 / 7 + 1 / 6
    variance = 1 / 4 + 2 * (4 / 9) * (5 / 9) * (7 / 8) + (2 / 7) * (5 / 7) + (1 / 6) * (5 / 6)
    p = math.erfc(math.sqrt((5 - expected) ** 2 / variance / 2))
    _, json_out, _ = compare(script, *LION_SGD, "--format", "json")
    assert json.loads(json_out)["workloads"][0]["log_rank_p"] == pytest.approx(p, rel=1e-9)
    assert f"{p:.2g}" in out and "log-rank p" in out
    _, out, _ = compare(times({"sgd": [None], "adamw": [None]}), "sgd", "adamw", "-w", "finetune")
    assert last_line(out).endswith("both missed in all of 5 pairs.")


def test_what_is_left_out_is_named(compare: Compare) -> None:
    def script(job: object, _: int) -> Made:
        seed = job.seed  # type: ignore[attr-defined]
        return Made(
            seconds=10.0 + 0.1 * seed,
            outcome="crashed" if seed == 1 else "reached",
            taints=["drift of 12 %"] if seed == 2 else [],
        )

    code, out, _ = compare(script, *LION_SGD)
    assert code == 4
    assert "Left out on mlp/digits, tainted each time: seed 2 (drift of 12 %)." in out
    assert "Seed 1 on mlp/digits is left out: " in out and "crashed: so the script says" in out
    assert "3 pairs" in last_line(out)


def test_a_refused_run_ends_it(compare: Compare) -> None:
    code, out, err = compare(lambda job, _: Made(refused="the disk is full"), *LION_SGD)
    assert code == 4 and "the disk is full" in err
    assert last_line(out).endswith("no pair counts.")


def test_json_has_it_all(compare: Compare) -> None:
    _, out, _ = compare(FASTER, *LION_SGD, "-w", "finetune", "--format", "json")
    content = json.loads(out)
    mlp, finetune = content["workloads"]
    assert (mlp["workload"], finetune["workload"]) == ("mlp/digits", "finetune/digits")
    assert mlp["verdict"] == "faster" and mlp["low"] < mlp["ratio"] < mlp["high"]
    assert mlp["adjusted_p"] >= mlp["p"] and mlp["test"] == "student"
    assert mlp["median_ratios"] == {
        "steps": 1.0, "model_passes": 1.0, "peak_memory": 1.0, "energy": None,
    }  # fmt: skip
    assert len(mlp["made"]) == 5 and mlp["made"][0]["a"]["time_s"] == 10.0
    assert mlp["a"]["tuning_effort"] == EFFORT
    assert content["sentence"] == "lion is shown to be faster than sgd on 2 of 2 workloads."


def test_csv_has_a_row_a_workload(compare: Compare) -> None:
    _, out, err = compare(FASTER, *LION_SGD, "-w", "vit", "--pairs", "5", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["workload"] for row in rows] == ["mlp/digits", "vit/digits"]
    assert rows[0]["verdict"] == "faster" and float(rows[0]["ratio"]) == pytest.approx(1.22, 0.01)
    assert json.loads(rows[0]["a"])["submission"] == "lion"
    assert last_line(err).startswith("lion is shown to be faster than sgd on 2 of 2 workloads")


def test_markdown_for_several(compare: Compare) -> None:
    script = times({"lion": [10.0, 10.3, 9.8], "sgd": [12.0, 10.1, 10.0]})
    _, out, _ = compare(script, *LION_SGD, "-w", "finetune", "--format", "md")
    assert "| workload | A is | time B ÷ A |" in out
    assert "nothing is decided" in last_line(out)


def test_a_dry_run_estimates_and_starts_nothing(compare: Compare, home: Path) -> None:
    code, out, err = compare(FASTER, *LION_SGD, "--pairs", "3", "--dry-run")
    assert (code, err) == (0, "") and "3 pairs to make, about" in out
    assert not home.exists()
    compare(FASTER, *LION_SGD, "--pairs", "2")
    _, out, _ = compare(FASTER, *LION_SGD, "--pairs", "3", "--dry-run")
    assert out.splitlines()[1].split()[:4] == ["mlp/digits", "2", "0", "1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lion",), "Missing argument 'B'"),
        (("lion", "sgd"), "Missing option '-w'"),
        (("lion", "lino", "-w", "mlp"), "Did you mean 'lion'"),
        (("lion", "sgd", "-w", "mpl"), "The workload 'mpl' does not exist"),
        ((*LION_SGD, "--pairs", "1"), "1 is not in the range 2<=x<=10000"),
        ((*LION_SGD, "--pairs", "9", "--until-decided"), "Give one of them"),
        ((*LION_SGD, "--max-pairs", "9"), "--max-pairs belongs to --until-decided"),
        ((*LION_SGD, "--effect", "nan"), "'nan' is no share. Legal: 0.05, say, or 5%"),
        ((*LION_SGD, "--effect", "5"), "'5' is no share"),
        ((*LION_SGD, "--alpha", "0"), "'0' is no share"),
        ((*LION_SGD, "--set-b", "rl=1"), "the hyperparameter 'rl'"),
        ((*LION_SGD, "--results", "/dev/null"), "is a file"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    home: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, out, err = bench("compare", *arguments)
    assert (code, out) == (2, "")
    assert said in err and "Traceback" not in err
    assert not home.exists()


@pytest.mark.slow
def test_a_real_submission_against_itself(tmp_path: Path) -> None:
    home = tmp_path / "results"
    asked = ("adamw", "adamw", "-w", "quick/blobs", "--pairs", "2")
    code, said = sweeps.finish(sweeps.start(home, *asked, command="compare"))
    assert code == 0, said
    made = len(sweeps.details(home))
    assert made >= 4 and made % 2 == 0
    assert "No difference shown between adamw (A) and adamw (B) to " in said
    code, _ = sweeps.finish(sweeps.start(home, *asked, command="compare"))
    assert code == 0 and len(sweeps.details(home)) == made
