"""The local executor: one worker process a slot, a slot being a GPU or a set of cores."""

import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from harness.cores import cpu_quota, physical_cores
from harness.device import refuse_different, resolve_device, visible_gpus
from harness.errors import UsageError
from harness.sweeps.execution import Watcher
from harness.sweeps.jobs import Job, Slot, require_data
from harness.sweeps.worker import Refused, Report, Task
from harness.sweeps.worker_process import WORKER, WorkerDiedError, WorkerProcess

POLL_S = 0.2


def local_slots(device: str, count: int | None, nproc: int = 1) -> list[Slot]:
    """Return the slots of this machine: its GPUs, or `count` equal sets of its cores.

    A slot has `nproc` GPUs, for runs of so many processes.

    Raises:
        UsageError: fewer devices or cores than asked for, or GPUs of different kinds.
    """
    chosen = resolve_device(device, nproc)
    if chosen.gpu is None:
        return core_slots(count or 1, nproc=nproc)
    gpus = visible_gpus() if device in ("auto", "cuda") else list(chosen.gpus)
    if count is not None and count * nproc > len(gpus):
        raise UsageError(
            f"--jobs {count} needs {count * nproc} GPUs; {device} means {len(gpus)} here. "
            "Use fewer."
        )
    count = count or len(gpus) // nproc
    refuse_different(gpus[: count * nproc])
    return [Slot(device=f"cuda:{gpus[number * nproc].index}") for number in range(count)]


def core_slots(count: int, cpus: int | None = None, nproc: int = 1) -> list[Slot]:
    """Return `count` equal sets of this machine's cores, or of as many as hold `cpus` CPUs.

    Raises:
        UsageError: fewer cores than that takes.
    """
    cores = physical_cores()
    if cpus is not None and cpus < sum(map(len, cores)):
        held = itertools.accumulate(map(len, cores))
        cores = [core for core, logical in zip(cores, held, strict=True) if logical <= cpus]
    elif count == 1:
        return [Slot(device="cpu")]
    quota = cpu_quota()
    usable = len(cores) if quota is None else min(len(cores), int(quota))
    each, needed = usable // count, nproc + 1  # one referees
    if each < needed:
        raise UsageError(
            f"--jobs {count} needs {needed * count} cores, {needed} for each run; "
            f"{usable} can be used here. Use --jobs {max(1, usable // needed)}."
        )
    sets = [cores[number * each : (number + 1) * each] for number in range(count)]
    return [
        Slot(device="cpu", cores=tuple(cpu for core in own for cpu in core), beside=count - 1)
        for own in sets
    ]


class LocalExecutor:
    """Runs jobs on this machine's slots, in workers that `command` and our pid start."""

    def __init__(self, slots: Sequence[Slot], command: Sequence[str] = WORKER) -> None:
        self._slots = slots
        self._command = command

    @property
    def places(self) -> list[str]:
        """See `Executor`."""
        return [slot.name for slot in self._slots]

    def planned(self, make: Callable[[Slot], list[Job]]) -> list[Job]:
        """See `Executor`."""
        jobs = make(self._slots[0])
        require_data(jobs)
        return jobs

    def run(self, jobs: Sequence[Job], watcher: Watcher, interrupted: Callable[[], bool]) -> None:
        """See `Executor`."""
        todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            todo.put(job)
        heard: queue.SimpleQueue[tuple[int, Job, Report] | None] = queue.SimpleQueue()
        stopping = threading.Event()
        slots = [
            _Slot(number, slot, self._command, todo, heard, stopping)
            for number, slot in enumerate(self._slots)
        ]
        for slot in slots:
            slot.start()
        left = len(slots)
        try:
            while left:
                if interrupted() and not stopping.is_set():
                    stopping.set()
                    for slot in slots:
                        slot.interrupt()
                with suppress(queue.Empty):
                    message = heard.get(timeout=POLL_S)
                    if message is None:
                        left -= 1
                    else:
                        watcher.reported(*message)
        finally:
            stopping.set()
            for slot in slots:
                slot.interrupt()

    def close(self) -> None:
        """See `Executor`."""


class _Slot(threading.Thread):
    """Feeds one worker, and another where it died."""

    def __init__(
        self,
        number: int,
        slot: Slot,
        command: Sequence[str],
        todo: "queue.SimpleQueue[Job]",
        heard: "queue.SimpleQueue[tuple[int, Job, Report] | None]",
        stopping: threading.Event,
    ) -> None:
        super().__init__(daemon=True)
        self._number, self._slot = number, slot
        self._todo, self._heard, self._stopping = todo, heard, stopping
        self._worker = WorkerProcess(command)

    def interrupt(self) -> None:
        """Have the worker end its run."""
        self._worker.interrupt()

    def run(self) -> None:
        """Feed the worker until nothing is left."""
        try:
            while not self._stopping.is_set():
                try:
                    job = self._todo.get_nowait()
                except queue.Empty:
                    return
                self._carry_out(job)
        finally:
            self._worker.close()
            self._heard.put(None)

    def _carry_out(self, job: Job) -> None:
        task = Task.of(self._slot.take(job.request), job.seed)
        try:
            self._worker.carry_out(task, lambda report: self._tell(job, report))
        except WorkerDiedError as error:
            self._tell(job, Refused(reason=str(error), interrupted=self._stopping.is_set()))

    def _tell(self, job: Job, report: Report) -> None:
        self._heard.put((self._number, job, report))
