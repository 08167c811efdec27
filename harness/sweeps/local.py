"""The local executor: one worker process a slot, a slot being a GPU or a set of cores."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec

from harness.cores import cpu_quota, physical_cores
from harness.device import refuse_different, resolve_device, visible_gpus
from harness.errors import UsageError
from harness.sweeps.execution import Watcher
from harness.sweeps.jobs import Job, Slot
from harness.sweeps.worker import Finished, Refused, Report, Task

POLL_S = 0.2


def local_slots(device: str, count: int | None, nproc: int = 1) -> list[Slot]:
    """Return the slots of this machine: its GPUs, or `count` equal sets of its cores.

    A slot has `nproc` GPUs, for runs of so many processes.

    Raises:
        UsageError: fewer devices or cores than asked for, or GPUs of different kinds.
    """
    chosen = resolve_device(device, nproc)
    if chosen.gpu is None:
        return _core_slots(count or 1, nproc)
    gpus = visible_gpus() if device in ("auto", "cuda") else list(chosen.gpus)
    if count is not None and count * nproc > len(gpus):
        raise UsageError(
            f"--jobs {count} needs {count * nproc} GPUs; {device} means {len(gpus)} here. "
            "Use fewer."
        )
    count = count or len(gpus) // nproc
    refuse_different(gpus[: count * nproc])
    return [Slot(device=f"cuda:{gpus[number * nproc].index}") for number in range(count)]


def _core_slots(count: int, nproc: int) -> list[Slot]:
    if count == 1:
        return [Slot(device="cpu")]
    cores = physical_cores()
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


WORKER = (sys.executable, "-m", "harness.sweeps.worker")


class LocalExecutor:
    """Runs jobs on this machine's slots, in workers that `command` and our pid start."""

    def __init__(self, slots: Sequence[Slot], command: Sequence[str] = WORKER) -> None:
        self._slots = slots
        self._command = command

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


class _Slot(threading.Thread):
    """Feeds one worker, and starts another where it died."""

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
        self._number, self._slot, self._command = number, slot, command
        self._todo, self._heard, self._stopping = todo, heard, stopping
        self._worker: subprocess.Popen[bytes] | None = None

    def interrupt(self) -> None:
        """Have the worker end its run."""
        worker = self._worker
        if worker is not None and worker.poll() is None:
            worker.send_signal(signal.SIGINT)

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
            self._close()
            self._heard.put(None)

    def _carry_out(self, job: Job) -> None:
        worker = self._running_worker()
        assert worker.stdin is not None
        assert worker.stdout is not None
        slot = self._slot
        request = replace(job.request, device=slot.device, cores=slot.cores, beside=slot.beside)
        try:
            worker.stdin.write(msgspec.json.encode(Task.of(request, job.seed)) + b"\n")
            worker.stdin.flush()
            for line in worker.stdout:
                report = msgspec.json.decode(line, type=Report)
                self._heard.put((self._number, job, report))
                if isinstance(report, Finished | Refused):
                    return
        except (BrokenPipeError, msgspec.MsgspecError):
            worker.kill()
        code = self._close()
        gone = Refused(
            reason=f"its worker died ({_end_in_words(code)})",
            interrupted=self._stopping.is_set(),
        )
        self._heard.put((self._number, job, gone))

    def _running_worker(self) -> "subprocess.Popen[bytes]":
        if self._worker is None:
            # A session of its own: Ctrl-C in the terminal is the sweep's to pass on.
            self._worker = subprocess.Popen(
                [*self._command, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        return self._worker

    def _close(self) -> int:
        """Let the worker end, and return its exit status."""
        worker, self._worker = self._worker, None
        if worker is None:
            return 0
        assert worker.stdin is not None
        assert worker.stdout is not None
        with suppress(OSError):  # it died with a task half told
            worker.stdin.close()
        code = worker.wait()
        worker.stdout.close()
        return code


def _end_in_words(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
