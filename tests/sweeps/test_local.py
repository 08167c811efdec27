"""The local executor: slots, workers, and what becomes of a sweep when one of them dies."""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness import cores
from harness.device import Device, Gpu
from harness.errors import UsageError
from harness.run import Request, plan
from harness.sweeps import local
from harness.sweeps.jobs import Job, Slot
from harness.sweeps.local import LocalExecutor, local_slots
from harness.sweeps.worker import Finished, Refused, Report, Task

FAKE = Path(__file__).with_name("fake_worker.py")


def job(submission: str, seed: int) -> Job:
    return Job(
        request=Request(submission=submission, workload="mlp", home=Path("nowhere")),
        seed=seed,
        identity=f"{submission}-{seed}",
        submission=submission,
        workload="mlp/digits",
        machine_class="a machine",
    )


class Notes:
    def __init__(self) -> None:
        self.heard: list[tuple[int, str, Report]] = []
        self.threads: set[int] = set()

    def reported(self, slot: int, job: Job, report: Report) -> None:
        self.threads.add(threading.get_ident())
        self.heard.append((slot, job.identity, report))

    def ends(self) -> dict[str, Report]:
        return {name: r for _, name, r in self.heard if isinstance(r, Finished | Refused)}


def run(
    folder: Path,
    jobs: Sequence[Job],
    slots: int = 1,
    interrupt_after: int | None = None,
) -> Notes:
    notes = Notes()
    made = [Slot(device="cpu", cores=(2 * n, 2 * n + 1), beside=slots - 1) for n in range(slots)]
    LocalExecutor(made, [sys.executable, str(FAKE), str(folder)]).run(
        jobs, notes, lambda: interrupt_after is not None and len(notes.heard) >= interrupt_after
    )
    return notes


def logs(folder: Path) -> list[list[str]]:
    return [path.read_text().splitlines() for path in folder.glob("*.log")]


def test_one_worker_takes_the_jobs_in_their_order(tmp_path: Path) -> None:
    notes = run(tmp_path, [job("a", n) for n in range(5)])
    [lines] = logs(tmp_path)
    assert [line.split()[1] for line in lines] == list("01234")
    assert len(notes.ends()) == 5
    assert all(isinstance(report, Finished) for report in notes.ends().values())
    assert notes.threads == {threading.get_ident()}


def test_each_slot_has_its_worker_on_its_cores(tmp_path: Path) -> None:
    notes = run(tmp_path, [job("a", n) for n in range(40)], slots=2)
    assert len(notes.ends()) == 40
    by_worker = logs(tmp_path)
    assert len(by_worker) == 2
    for lines in by_worker:
        assert len({line.split(" ", 3)[3] for line in lines}) == 1
    assert {line.split(" ", 3)[3] for lines in by_worker for line in lines} == {"(0, 1)", "(2, 3)"}


def test_a_dead_worker_costs_its_run_only(tmp_path: Path) -> None:
    notes = run(tmp_path, [job("a", 0), job("dies", 1), job("babbles", 2), job("a", 3)])
    ends = notes.ends()
    assert isinstance(ends["a-0"], Finished) and isinstance(ends["a-3"], Finished)
    dead = ends["dies-1"]
    assert isinstance(dead, Refused)
    assert (dead.reason, dead.interrupted) == ("its worker died (signal SIGKILL)", False)
    assert isinstance(ends["babbles-2"], Refused)
    assert len(logs(tmp_path)) == 3


def test_an_interrupt_ends_what_runs_and_begins_nothing(tmp_path: Path) -> None:
    notes = run(tmp_path, [job("slow", n) for n in range(6)], slots=2, interrupt_after=2)
    ends = notes.ends()
    assert len(ends) == 2
    assert all(isinstance(r, Refused) and r.interrupted for r in ends.values())


def test_no_jobs_start_no_worker(tmp_path: Path) -> None:
    assert run(tmp_path, []).heard == [] and logs(tmp_path) == []


def gpus(*names: str) -> list[Gpu]:
    return [
        Gpu(index=index, uuid=f"GPU-{index}", name=name, driver="1")
        for index, name in enumerate(names)
    ]


def test_every_gpu_is_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpus("H", "H", "H")
    monkeypatch.setattr(local, "visible_gpus", lambda: found)
    monkeypatch.setattr(
        local, "resolve_device", lambda text, nproc: Device(name="cuda:1", gpu=found[1])
    )
    assert [slot.device for slot in local_slots("auto", None)] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [slot.device for slot in local_slots("cuda", 2)] == ["cuda:0", "cuda:1"]
    assert [slot.device for slot in local_slots("cuda:1", None)] == ["cuda:1"]
    with pytest.raises(UsageError, match="--jobs 4 needs 4 GPUs; auto means 3 here"):
        local_slots("auto", 4)
    found[1] = gpus("H", "A")[1]
    with pytest.raises(UsageError, match=r"The GPUs differ \(A, H\)"):
        local_slots("auto", None)


def test_a_slot_has_a_gpu_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpus(*"HHHHH")
    monkeypatch.setattr(local, "visible_gpus", lambda: found)
    monkeypatch.setattr(
        local, "resolve_device", lambda text, nproc: Device(name="cuda:0", gpu=found[0])
    )
    assert [slot.device for slot in local_slots("auto", None, 2)] == ["cuda:0", "cuda:2"]
    assert [slot.device for slot in local_slots("cuda", 1, 4)] == ["cuda:0"]
    with pytest.raises(UsageError, match="--jobs 3 needs 6 GPUs; auto means 5 here"):
        local_slots("auto", 3, 2)
    found[4] = Gpu(index=4, uuid="GPU-4", name="A", driver="1")
    assert len(local_slots("auto", None, 2)) == 2  # the odd one is left out


def test_cores_are_split_into_equal_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = [[n, n + 10] for n in range(5)]  # five cores of two hyperthreads
    monkeypatch.setattr(local, "physical_cores", lambda: threads)
    monkeypatch.setattr(local, "cpu_quota", lambda: None)
    assert local_slots("cpu", None) == [Slot(device="cpu")]
    assert local_slots("cpu", 2) == [
        Slot(device="cpu", cores=(0, 10, 1, 11), beside=1),
        Slot(device="cpu", cores=(2, 12, 3, 13), beside=1),
    ]
    with pytest.raises(UsageError, match=r"--jobs 3 needs 6 cores.*Use --jobs 2\."):
        local_slots("cpu", 3)
    with pytest.raises(UsageError, match=r"--jobs 2 needs 8 cores, 4 for each run.*--jobs 1\."):
        local_slots("cpu", 2, nproc=3)
    monkeypatch.setattr(local, "cpu_quota", lambda: 3.5)
    with pytest.raises(UsageError, match=r"3 can be used here. Use --jobs 1"):
        local_slots("cpu", 2)


def test_a_set_of_cores_has_its_own_lease_and_machine_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(cores, "_siblings", lambda cpu: [cpu])
    monkeypatch.setattr(cores, "cpu_quota", lambda: None)
    whole = plan(Request(submission="lion", workload="mlp", device="cpu", home=Path("x")))
    part = plan(
        Request(
            submission="lion", workload="mlp", device="cpu", home=Path("x"), cores=(2, 3), beside=1
        )
    )
    assert (whole.lease_name, part.lease_name) == ("cpu", "cores-2-3")
    assert (part.cores.referee, part.cores.trainee) == ([2], [3])
    assert "1 training core beside 1 other run" in part.machine_class
    assert "beside" not in whole.machine_class
    assert whole.identity(0) != part.identity(0)


def test_a_task_is_the_request_again() -> None:
    request = Request(
        submission="lion",
        workload="mlp",
        settings=("lr=1",),
        device="cpu",
        home=Path("/somewhere"),
        budget_paces=3.0,
        tuned=False,
        tuning_effort="trial of 5",
        ruleset="external",
        study=1,
        trial=2,
        cores=(0, 1),
        beside=1,
        nproc=2,
    )
    task = Task.of(request, 7)
    assert task.request() == request and task.seed == 7
