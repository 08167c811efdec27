"""`bench sweep`: the plan without a run, the errors, and for real what an end leaves behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from cli.test_bad_input import bench
from records.synthetic_runs import SyntheticRun

from harness import catalogue
from harness.home import runs_folder
from harness.records.record import RunDetail, read_run
from harness.records.run_directory import RunDirectory, run_directories
from harness.sweeps.jobs import Slot, jobs_of
from harness.sweeps.sweep_file import Entrant, SweepFile

PLUGINS = Path(__file__).parents[1] / "plugins"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


def test_a_dry_run_says_what_there_is_to_do(home: Path) -> None:
    asked = SweepFile(
        submissions=(Entrant(submission="lion"), Entrant(submission="sgd")),
        workloads=("mlp",),
        seeds=3,
    )
    jobs = jobs_of(asked, Slot(device="cpu"), home)
    card = catalogue.workload("mlp").card
    for number, job in enumerate(jobs[:3]):
        SyntheticRun(
            run_id=str(number),
            identity=job.identity,
            submission=job.submission,
            workload=card,
            values=(0.5, 0.96, 0.97),
            credited=1,
            outcome="crashed" if number == 2 else "reached",
        ).write(home)
    arguments = ("sweep", "-s", "lion,sgd", "-w", "mlp", "--seeds", "3", "--device", "cpu")
    code, out, err = bench(*arguments, "--dry-run")
    assert (code, err) == (0, "")
    rows = {line.split()[1]: line.split()[2:6] for line in out.splitlines()[1:3]}
    # Of the first three jobs lion has one and sgd two; the third, sgd's, crashed.
    assert rows == {"lion": ["3", "1", "0", "2"], "sgd": ["3", "1", "1", "1"]}
    assert "3 of 6 runs to make, about" in out
    _, out, _ = bench(*arguments, "--dry-run", "--retry-failed")
    assert "4 of 6 runs to make, about" in out
    assert len(list(runs_folder(home).iterdir())) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Say what to run"),
        (("-s", "lion"), "Say what to run"),
        (("-s", "lion,lino", "-w", "mlp"), "Did you mean 'lion'"),
        (("-s", "lion", "-w", "@cor"), "Did you mean 'core'"),
        (("-s", "lion", "-w", "mlp", "--ruleset", "extern"), "The ruleset 'extern' does not exist"),
        (("-s", "lion", "-w", "mlp", "--trials", "3"), "belong to a ruleset"),
        (("-s", "lion,lion", "-w", "mlp"), "asks twice"),
        (("-s", "lion", "-w", "mlp", "--jobs", "500", "--device", "cpu"), "needs 1000 cores"),
        (("absent.yaml",), "absent.yaml cannot be read"),
        (("plan.yaml", "-s", "lion", "--seeds", "2"), "so -s, --seeds cannot say it too"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    home: Path, arguments: tuple[str, ...], said: str
) -> None:
    Path("plan.yaml").write_text("submissions: [adamw]\nworkloads: [mlp]\n")
    code, out, err = bench("sweep", *arguments)
    assert (code, out) == (2, "")
    assert said in err and "Traceback" not in err
    assert not home.exists()


def environment(home: Path) -> dict[str, str]:
    paths = [str(PLUGINS), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "BENCH_RESULTS": str(home),
        "TMPDIR": str(home.parent),
        "XDG_CACHE_HOME": str(home.parent / "cache"),
        "COLUMNS": "80",
    }


def start(home: Path, *arguments: str, command: str = "sweep") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", command, *arguments],
        env=environment(home),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=250)
    assert "Traceback" not in err, err
    return process.returncode, out + err


def details(home: Path) -> list[RunDetail]:
    found = [read_run(directory) for directory in run_directories(runs_folder(home))]
    return sorted(found, key=lambda detail: detail.record.run_id)


def wait_for_a_clock(home: Path, runs: int) -> RunDirectory:
    """Return the newest of so many run directories once its clock has started."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        directories = sorted(run_directories(runs_folder(home)), key=lambda d: d.run_id)
        if len(directories) >= runs:
            try:
                if directories[-1].events():
                    return directories[-1]
            except (OSError, msgspec.MsgspecError):
                pass
        time.sleep(0.05)
    raise AssertionError("no run began")


PAIR = ("-s", "adamw,torch.optim:SGD", "-w", "quick/blobs")


@pytest.mark.slow
def test_a_sweep_runs_once_and_grows(tmp_path: Path) -> None:
    home = tmp_path / "results"
    code, said = finish(start(home, *PAIR))
    assert code == 0, said
    first = details(home)
    assert [d.record.submission for d in first] == ["adamw", "torch.optim:SGD"]
    assert all(d.spec.identity for d in first)
    assert "2 of 2" in said and "quick/blobs" in said
    code, said = finish(start(home, *PAIR, "--seeds", "2"))
    assert code == 0, said
    grown = details(home)
    assert [d.record.run_id for d in grown[:2]] == [d.record.run_id for d in first]
    assert sorted((d.record.submission, d.record.seed) for d in grown[2:]) == [
        ("adamw", 1),
        ("torch.optim:SGD", 1),
    ]
    code, said = finish(start(home, *PAIR, "--seeds", "2"))
    assert code == 0 and len(details(home)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_an_ended_sweep_goes_on_where_it_stopped(tmp_path: Path, number: signal.Signals) -> None:
    home = tmp_path / "results"
    budget = ("--budget", "300000")  # SGD at its default rate takes long
    process = start(home, "-s", "adamw,torch.optim:SGD", "-w", "quick/blobs", *budget)
    wait_for_a_clock(home, 2)
    process.send_signal(number)
    code, said = (process.wait(), "") if number == signal.SIGKILL else finish(process)
    if number == signal.SIGKILL:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        assert code == -signal.SIGKILL
    else:
        assert code == 130 and "1 runs to go: the same command goes on." in said
    outcomes = {d.record.submission: d.record.outcome for d in details(home)}
    assert outcomes == {"adamw": "reached", "torch.optim:SGD": "interrupted"}
    process = start(home, "-s", "adamw,torch.optim:SGD", "-w", "quick/blobs", *budget)
    again = wait_for_a_clock(home, 3)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert again.spec().submission == "torch.optim:SGD"
    assert len(details(home)) == 3  # adamw's run was not repeated
