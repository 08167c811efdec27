"""Referees that are interrupted or killed: nothing is left running, nothing recorded is lost."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from referee.quick_runs import FAULTY, Track, is_alive, processes_of_runs, wait_until

from harness.records.record import RunDetail, read_run
from harness.records.run_directory import RunDirectory, run_directories
from harness.run import Request, plan

TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def nothing_left(quick_weights: Path, track: Track) -> Iterator[None]:
    yield
    wait_until(lambda: processes_of_runs(quick_weights) == [])


@pytest.fixture
def home(tmp_path: Path, track: Track) -> Path:
    """A results folder with a pace in it, so that a run starts at once."""
    request = Request(submission="adamw", workload="quick/blobs", device="cpu", home=tmp_path)
    Track(home=tmp_path, monkeypatch=track.monkeypatch).store_pace(plan(request), 100_000_000)
    return tmp_path


def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    paths = [str(TESTS.parent), str(TESTS), os.environ["PYTHONPATH"]]
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
        text=True,
    )


def start_referee(home: Path, *script: Sequence[object]) -> subprocess.Popen[str]:
    return start(["referee.lone_referee", str(home), json.dumps(script)])


def start_bench(home: Path, submission: str) -> subprocess.Popen[str]:
    return start(
        ["harness.cli", "run", "-s", submission, "-w", "quick/blobs", "--device", "cpu",
         "--results", str(home)]
    )  # fmt: skip


def only_run(home: Path) -> RunDirectory:
    (directory,) = run_directories(home / "runs")
    return directory


def assert_interrupted(directory: RunDirectory) -> RunDetail:
    detail = read_run(directory)
    assert detail.record.outcome == "interrupted" and detail.record.time_to_target_s is None
    assert not directory.is_live()
    return detail


def kill(referee: subprocess.Popen[str]) -> None:
    referee.kill()
    referee.communicate()
    assert referee.returncode == -signal.SIGKILL


def test_a_referee_killed_while_its_trainee_trains(home: Path, quick_weights: Path) -> None:
    referee = start_referee(
        home, ["fork"], ["start_program"], ["steps", 10], ["show", "bad"], ["steps", 10],
        ["show", "good"], ["steps", 3], ["sleep", 1000],
    )  # fmt: skip
    wait_until(lambda: any(len(run.events()) == 3 for run in run_directories(home / "runs")))
    directory = only_run(home)
    assert directory.is_live() and len(processes_of_runs(quick_weights)) == 3
    kill(referee)
    wait_until(lambda: processes_of_runs(quick_weights) == [])
    detail = assert_interrupted(directory)
    assert [e.meets for e in detail.evaluations] == [False, True]
    assert detail.record.first_crossing_s is not None and detail.started_unix_ns is not None


def test_a_referee_killed_while_its_trainee_stands_still(
    home: Path, tmp_path: Path, quick_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluating = tmp_path / "evaluating"
    monkeypatch.setenv("QUICK_EVALUATING_FILE", str(evaluating))
    monkeypatch.setenv("QUICK_EVALUATION_SLEEP_S", "100")
    referee = start_referee(home, ["fork"], ["start_program"], ["steps", 10], ["show", "good"])
    wait_until(evaluating.exists)
    processes = processes_of_runs(quick_weights)
    assert [process.status() for process in processes] == [psutil.STATUS_STOPPED] * 3
    directory = only_run(home)
    assert directory.is_live()
    kill(referee)
    wait_until(lambda: processes_of_runs(quick_weights) == [])
    assert assert_interrupted(directory).started_unix_ns is not None


def test_one_ctrl_c_ends_a_run_in_good_order(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("QUICK_NOTES_FILE", str(notes))
    bench = start_bench(home, f"{FAULTY}:ForksAndHangs")
    wait_until(lambda: notes.exists() and notes.read_text().endswith("\n"))
    directory = only_run(home)
    assert directory.is_live()
    bench.send_signal(signal.SIGINT)
    _, errors = bench.communicate(timeout=60)
    assert bench.returncode == 130, errors
    detail = assert_interrupted(directory)
    assert detail.record.reason == "interrupted by the user" and detail.record.steps == 4
    assert not any(is_alive(int(pid)) for pid in notes.read_text().split())


def test_a_second_ctrl_c_ends_everything_at_once(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluating = tmp_path / "evaluating"
    monkeypatch.setenv("QUICK_EVALUATING_FILE", str(evaluating))
    monkeypatch.setenv("QUICK_EVALUATION_SLEEP_S", "100")
    bench = start_bench(home, "adamw")
    wait_until(evaluating.exists)
    directory = only_run(home)
    bench.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):  # it waits for the evaluation
        bench.wait(0.5)
    bench.send_signal(signal.SIGINT)
    _, errors = bench.communicate(timeout=20)
    assert bench.returncode == 130 and "Interrupted at once." in errors
    assert_interrupted(directory)
