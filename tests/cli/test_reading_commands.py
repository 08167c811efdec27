import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from plugin_package import install_plugin
from records.synthetic_runs import SyntheticRun

from harness.cli import COMMANDS, main
from harness.cli.curve import curve
from harness.home import index_path, runs_folder

REPOSITORY = Path(__file__).parents[2]


class Bench:
    """Runs the command line in this process, on its own results folder."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.error = ""
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        output, self.error = self._capsys.readouterr()
        assert ended.value.code == code, self.error
        assert "Traceback" not in self.error
        return output


@pytest.fixture
def bench(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Bench:
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COLUMNS", "80")
    return Bench(tmp_path / "results", capsys)


@pytest.fixture
def measured(bench: Bench) -> Bench:
    for seed in range(3):
        SyntheticRun(run_id=f"20240101-00000{seed}-adamw", seed=seed).write(_made(bench.home))
    SyntheticRun(
        run_id="20240102-000000-lion",
        submission="lion",
        source_sha256="b" * 64,
        interval_s=0.5,
        hyperparameters={"optimizer.lr": 0.01, "optimizer.nesterov": True},
        created_unix_ns=1_700_000_001_000_000_000,
    ).write(bench.home)
    return bench


def _made(home: Path) -> Path:
    home.mkdir(exist_ok=True)
    return home


def _fits(output: str, width: int = 80) -> bool:
    return max(map(len, output.splitlines())) <= width


def test_runs_are_listed_newest_first_with_the_live_marked(measured: Bench) -> None:
    writer = SyntheticRun(run_id="20240103-000000-sgd", submission="sgd").start(measured.home)
    damaged = SyntheticRun(run_id="20230101-000000-old").write(measured.home).folder
    (damaged / "spec.json").write_text("{")
    rows = json.loads(measured("list", "runs", "--format", "json"))
    writer.close()
    assert [row["status"] for row in rows] == [
        "running",
        "reached",
        "reached",
        "reached",
        "reached",
        "damaged",
    ]
    assert rows[0]["outcome"] is None and rows[0]["submission"] == "sgd"
    assert rows[1]["run_id"] == "20240102-000000-lion"
    assert rows[1]["time_to_target_s"] == pytest.approx(1.5)


def test_the_list_of_runs_has_a_limit(measured: Bench) -> None:
    table = measured("list", "runs", "--limit", "2")
    assert "20240102-000000-lion" in table and "20240101-000000-adamw" not in table
    assert "2 older ones" in table
    assert _fits(table)
    assert len(json.loads(measured("list", "runs", "--format", "json", "--limit", "2"))) == 2


def test_an_empty_home_says_what_to_do(bench: Bench) -> None:
    assert "bench run" in bench("list", "runs")
    assert "bench run --workload" in bench("leaderboard")
    assert json.loads(bench("list", "runs", "--format", "json")) == []
    assert json.loads(bench("leaderboard", "--format", "json")) == []
    assert bench("leaderboard", "--format", "csv").startswith("rank,")
    assert not bench.home.exists()


def test_show_tells_what_the_directory_tells(measured: Bench) -> None:
    shown = measured("show", "last")
    for said in (
        "20240102-000000-lion",
        "reached",
        "optimizer.lr=0.01, optimizer.nesterov=true",
        "accuracy against submission time",
        "peak_memory",
        "git.commit",
        "warm-up",
        "lion reached accuracy ≥ 0.9000 in 1.5 s.",
    ):
        assert said in shown
    assert _fits(shown)
    assert "[brackets]" not in shown
    assert "[brackets]" in measured("show", "last", "--source")


def test_show_as_json_is_one_object_with_the_record_in_it(measured: Bench) -> None:
    told = json.loads(measured("show", "20240102", "--format", "json", "--source"))
    assert told["run_id"] == "20240102-000000-lion"
    assert told["outcome"] == told["status"] == "reached"
    assert told["time_to_target_s"] == pytest.approx(1.5)
    assert len(told["evaluations"]) == 4
    assert told["spec"]["workload"]["name"] == "blobs/two"
    assert "class AdamW" in told["source"]["method.py"]
    assert told["energy_j"] is None


def test_show_explains_a_crash(bench: Bench) -> None:
    SyntheticRun(
        run_id="a",
        outcome="crashed",
        reason="ValueError: too steep",
        values=(0.1, None),
        traceback="Traceback (most recent call last):\n  ValueError: too steep",
        output="".join(f"line {number}\n" for number in range(100)),
        taints=["a shared device"],
    ).write(_made(bench.home))
    shown = bench("show", "a")
    for said in ("ValueError: too steep", "line 99", "line 80", "a shared device"):
        assert said in shown
    assert "line 79" not in shown
    assert "did not reach accuracy ≥ 0.9000: crashed" in shown


def test_show_of_a_run_under_way(bench: Bench) -> None:
    writer = SyntheticRun(run_id="a").start(_made(bench.home))
    assert "still running" in bench("show", "last")
    told = json.loads(bench("show", "last", "--format", "json"))
    assert (told["status"], told["outcome"]) == ("running", None)
    writer.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("20240101", "3 runs begin with"),
        ("20240102-000000-lino", "Did you mean '20240102-000000-lion'"),
        ("", "does not exist"),
        ("..", "does not exist"),
    ],
)
def test_a_run_must_be_named_without_doubt(measured: Bench, name: str, said: str) -> None:
    assert measured("show", name, code=2) == ""
    assert said in measured.error
    measured("runs", "rm", "--yes", name, code=2)
    assert len(list(runs_folder(measured.home).iterdir())) == 4


def test_show_of_a_damaged_run_says_so(measured: Bench) -> None:
    (runs_folder(measured.home) / "20240102-000000-lion" / "spec.json").write_text("{")
    measured("show", "20240102", code=2)
    assert "damaged" in measured.error


def test_the_leaderboard_in_every_format(measured: Bench) -> None:
    table = measured("leaderboard")
    assert "blobs/two v1 · tuning effort: defaults" in table
    assert "lion reached the target in 1.50 s (median of 1), 2.00 times faster than adamw" in table
    assert _fits(table)
    rows = json.loads(measured("leaderboard", "--format", "json"))
    assert [(row["rank"], row["submission"]) for row in rows] == [(1, "lion"), (2, "adamw")]
    assert rows[0]["hyperparameters"] == {"optimizer.lr": 0.01, "optimizer.nesterov": True}
    (first, _) = csv.DictReader(io.StringIO(measured("leaderboard", "--format", "csv")))
    assert first["submission"] == "lion" and float(first["time_s"]) == pytest.approx(1.5)
    assert first["energy_j"] == ""
    assert "| 1 | lion |" in measured("leaderboard", "--format", "md")


def test_the_leaderboard_of_a_workload_without_a_card(measured: Bench) -> None:
    assert "lion" in measured("leaderboard", "-w", "blobs/two", "--clock", "warm")
    measured("leaderboard", "-w", "blobs/tow", code=2)
    assert "does not exist" in measured.error


def test_a_missed_target_is_shown_beyond_the_budget(bench: Bench) -> None:
    SyntheticRun(run_id="a", outcome="budget", reason="missed", values=(0.1,)).write(
        _made(bench.home)
    )
    shown = bench("leaderboard")
    assert "> 10.0" in shown and "0/1" in shown and "no rank" in shown


def test_questions_in_sql(measured: Bench) -> None:
    sql = "SELECT submission, count(*) AS n, NULL AS none FROM runs GROUP BY ALL ORDER BY ALL"
    rows = [
        {"submission": "adamw", "n": 3, "none": None},
        {"submission": "lion", "n": 1, "none": None},
    ]
    assert json.loads(measured("query", sql, "--format", "json")) == rows
    assert measured("query", sql, "--format", "csv") == "submission,n,none\nadamw,3,\nlion,1,\n"
    assert "| adamw | 3 | – |" in measured("query", sql, "--format", "md")
    assert "adamw" in measured("query", sql)
    whole = measured("query", "SELECT * FROM runs")
    assert "row 4" in whole and _fits(whole)
    assert measured("query", "SELECT * FROM runs WHERE false", "--format", "json") == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("query",), "No SQL"),
        (("query", "DROP TABLE runs"), "DROP is not allowed"),
        (("query", "SELECT nonsense FROM runs"), "nonsense"),
        (("query", "SELECT 1", "--format", "html"), "html"),
        (("list", "everything"), "everything"),
    ],
)
def test_wrong_questions_exit_2(measured: Bench, arguments: Sequence[str], said: str) -> None:
    assert measured(*arguments, code=2) == ""
    assert said in measured.error


def test_the_schema_is_documented(bench: Bench) -> None:
    for form in ("table", "json", "csv", "md"):
        told = bench("query", "--schema", "--format", form)
        assert "time_to_target_s" in told and "credited for reaching" in told
    assert _fits(bench("query", "--schema"), 100)


def test_the_index_is_rebuilt_on_demand(measured: Bench) -> None:
    folder = SyntheticRun(run_id="broken").write(measured.home).folder
    (folder / "spec.json").unlink()
    assert "4 runs are in" in measured("db", "rebuild")
    assert "broken" in measured.error
    assert index_path(measured.home).exists()


def test_runs_are_removed_with_their_rows(measured: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    measured("db", "rebuild")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    measured("runs", "rm", "last", code=130)
    assert (runs_folder(measured.home) / "20240102-000000-lion").exists()
    assert "Removed 1 run." in measured("runs", "rm", "last", "--yes")
    assert not (runs_folder(measured.home) / "20240102-000000-lion").exists()
    rows = json.loads(measured("query", "SELECT run_id FROM runs", "--format", "json"))
    assert len(rows) == 3


def test_a_live_run_is_not_removed(measured: Bench) -> None:
    writer = SyntheticRun(run_id="live").start(measured.home)
    measured("runs", "rm", "live", "20240102", "--yes", code=2)
    assert "still running" in measured.error
    assert len(list(runs_folder(measured.home).iterdir())) == 5
    writer.close()


def test_the_curve_shows_the_target_between_its_ends() -> None:
    lines = curve([(1.0, 0.1), (2.0, 0.9)], target=0.5)
    assert "0.500" in "\n".join(lines)
    assert _fits("\n".join(lines))
    assert curve([], target=0.5) == []
    assert curve([(0.0, 0.5)], target=0.5)  # no extent in either direction
    assert curve([(1.0, 1e-9), (2.0, 1e9)], target=5.0)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a process that has the package double and two runs."""
    folder = tmp_path_factory.mktemp("elsewhere")
    home = _made(folder / "results")
    SyntheticRun(run_id="a").write(home)
    SyntheticRun(run_id="b", submission="lion").write(home)
    search = f"{install_plugin(folder / 'packages')}{os.pathsep}{REPOSITORY}"
    changes = {"PYTHONPATH": search, "BENCH_RESULTS": str(home), "COLUMNS": "80"}
    return {**os.environ, **changes}


def _process(environment: dict[str, str], *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "harness.cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_cards_of_installed_packages_are_listed(elsewhere: dict[str, str]) -> None:
    workloads = json.loads(_process(elsewhere, "list", "workloads", "--format", "json"))
    (blobs,) = [card for card in workloads if card["workload"] == "blobs/two"]
    assert blobs["tier"] == "embedded" and blobs["target"] == 0.9
    for name in ("family", "modality", "metric", "version", "parameters", "reference_seconds"):
        assert blobs[name] is not None
    submissions = json.loads(_process(elsewhere, "list", "submissions", "--format", "json"))
    (steady,) = [card for card in submissions if card["name"] == "steady"]
    assert steady["paper"]["year"] == 2020 and steady["claim"]["ratio"] == 0.5
    table = _process(elsewhere, "list", "submissions")
    assert "[ever]" in table and _fits(table)
    assert "≥ 0.9" in _process(elsewhere, "list", "workloads")


def test_colour_is_for_terminals(elsewhere: dict[str, str]) -> None:
    for arguments in (("leaderboard",), ("show", "last"), ("list", "workloads")):
        assert "\x1b" not in _process(elsewhere, *arguments)


TENSORS = {"torch", "sklearn", "scipy", "pytorch_optimizer"}
NETWORK = {"pooch", "requests", "urllib3"}  # downloads are asked for, by `bench data get`
ANYTHING_SLOW = TENSORS | NETWORK | {"numpy", "polars", "duckdb", "psutil", "pynvml", "rich.live"}

_REPORT = """
import sys
from harness.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
print("\\n".join(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (("--help",), ANYTHING_SLOW),
        (("list", "submissions"), ANYTHING_SLOW),
        (("list", "workloads", "--format", "json"), ANYTHING_SLOW),
        (("data", "list", "--format", "json"), ANYTHING_SLOW - {"psutil"}),
        (("data", "verify", "finetune"), TENSORS | NETWORK),
        (("list", "runs"), TENSORS | NETWORK | {"polars", "duckdb"}),
        (("show", "last"), TENSORS | NETWORK | {"polars", "duckdb"}),
        (("leaderboard",), TENSORS | NETWORK),
        (("leaderboard", "--score", "algoperf"), TENSORS | NETWORK),
        (("import", "algoperf", "--help"), ANYTHING_SLOW),
        (("leaderboard", "--score", "suite", "-w", "mlp"), TENSORS | NETWORK),
        (("query", "SELECT 1"), TENSORS),
        (("db", "rebuild"), TENSORS),
        (("sensitivity", "--help"), ANYTHING_SLOW - {"psutil"} | {"matplotlib"}),
        (("runs", "rm", "--help"), ANYTHING_SLOW - {"pynvml"}),
    ],
)
def test_reading_loads_no_tensor_library(
    elsewhere: dict[str, str], arguments: Sequence[str], forbidden: set[str]
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _REPORT, *arguments],
        env=elsewhere,
        capture_output=True,
        text=True,
        check=True,
    )
    assert forbidden.isdisjoint(result.stderr.splitlines())


def test_every_command_of_the_table_is_there(bench: Bench) -> None:
    shown = bench("--help")
    for name in COMMANDS:
        assert name in shown
    for name in ("leaderboard", "show", "list", "query", "db", "runs"):
        assert "Usage:" in bench(name, "--help")
