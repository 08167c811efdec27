"""`bench sweep --executor ray` with real runs: the same runs as here, and what an end leaves."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sweeps.ray_clusters import ray_cluster
from sweeps.test_sweep_command import details, finish, start, wait_for_a_clock

from harness.referee.guardian import RUN_MARK

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

PAIR = ("-s", "adamw,torch.optim:SGD", "-w", "quick/blobs", "--device", "cpu")
LONG = (*PAIR, "--budget", "300000")  # SGD at its default rate takes long


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(2, 2) as made:
        yield made


def on(cluster: Any) -> tuple[str, ...]:
    return ("--executor", "ray", "--ray-address", cluster.address)


def trainees(home: Path) -> list[psutil.Process]:
    """Return the processes of the runs that go there."""
    found = []
    for process in psutil.process_iter():
        try:
            variables = process.environ()
        except psutil.Error:
            continue
        if variables.get("BENCH_RESULTS") == str(home) and RUN_MARK in variables:
            found.append(process)
    return found


def wait_until_gone(home: Path) -> None:
    deadline = time.monotonic() + 20
    while left := trainees(home):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_runs_on_a_cluster_are_the_runs_of_this_machine(cluster: Any, tmp_path: Path) -> None:
    home = tmp_path / "results"
    code, said = finish(start(home, *PAIR))
    assert code == 0, said
    here = {d.record.submission: d.spec for d in details(home)}
    code, said = finish(start(home, *PAIR, "--seeds", "2", *on(cluster)))
    assert code == 0, said
    made = details(home)
    assert sorted((d.record.submission, d.record.seed) for d in made) == [
        ("adamw", 0), ("adamw", 1), ("torch.optim:SGD", 0), ("torch.optim:SGD", 1),
    ]  # fmt: skip
    for detail in made[2:]:
        one, other = detail.spec, here[detail.record.submission]
        for name in ("recipe", "hyperparameters", "source_sha256", "device", "machine_class",
                     "trainee_cores", "referee_cores", "threads", "pace_ns", "budget_paces",
                     "shared"):  # fmt: skip
            assert getattr(one, name) == getattr(other, name), name
        assert detail.record.outcome in ("reached", "budget")
    code, said = finish(start(home, *PAIR, "--seeds", "2", *on(cluster)))
    assert code == 0 and len(details(home)) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_an_ended_driver_ends_its_runs_and_goes_on(
    cluster: Any, tmp_path: Path, number: signal.Signals
) -> None:
    home = tmp_path / "results"
    code, said = finish(start(home, "-s", "adamw", *PAIR[2:], "--budget", "300000", *on(cluster)))
    assert code == 0, said
    process = start(home, *LONG, *on(cluster))
    wait_for_a_clock(home, 2)
    assert trainees(home)
    process.send_signal(number)
    if number == signal.SIGKILL:
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    else:
        code, said = finish(process)
        assert code == 130 and "1 runs to go: the same command goes on." in said
    wait_until_gone(home)
    outcomes = {d.record.submission: d.record.outcome for d in details(home)}
    assert outcomes == {"adamw": "reached", "torch.optim:SGD": "interrupted"}
    process = start(home, *LONG, *on(cluster))
    again = wait_for_a_clock(home, 3)
    assert again.spec().submission == "torch.optim:SGD"
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert len(details(home)) == 3  # adamw's run was not repeated


def test_a_run_ends_with_the_process_of_ray_and_is_made_again(cluster: Any, tmp_path: Path) -> None:
    home = tmp_path / "results"
    process = start(home, "-s", "torch.optim:SGD", *LONG[2:], *on(cluster))
    first = wait_for_a_clock(home, 1)
    [trainee] = [one for one in trainees(home) if "harness.trainee" in one.cmdline()]
    worker = trainee.parent()
    assert worker is not None
    actor = worker.parent()
    assert actor is not None and "NodeSlot" in actor.cmdline()[0]
    assert trainee.nice() == worker.nice() == os.nice(0)
    actor.kill()
    psutil.wait_procs([trainee, worker], timeout=20)
    assert not trainee.is_running() and not worker.is_running()
    second = wait_for_a_clock(home, 2)
    assert second.run_id != first.run_id
    process.send_signal(signal.SIGINT)
    code, said = finish(process)
    assert code == 130 and "the run is made again" in said
    assert [d.record.outcome for d in details(home)] == ["interrupted", "interrupted"]
    wait_until_gone(home)
