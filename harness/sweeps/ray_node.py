"""A slot on a node of a Ray cluster: the part of the Ray executor that lives beside the runs.

An instance is an actor, so a process of Ray's that holds the slot's CPUs or GPU. It trains and
times nothing: a worker process does, as on any machine, and dies with the actor.
"""

import functools
import os
import queue
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.identity import environment
from harness.records.environment import VARIABLES
from harness.sweeps.execution import Lost
from harness.sweeps.jobs import Job, Slot, require_data
from harness.sweeps.local import core_slots
from harness.sweeps.worker import Finished, Refused, Report, Task
from harness.sweeps.worker_process import WORKER, WorkerDiedError, WorkerProcess

HEARING_S = 5.0  # a call that waits for reports returns at least so often

_VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
_PATH = "PYTHONPATH"
# Ray gives its workers these; a run must see what it would see without Ray.
_OF_RAY = ("OMP_NUM_THREADS", "PYTHONBREAKPOINT", "SPT_NOENV")


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What a slot gets of its node: one of its GPUs, or one of `count` equal sets of cores."""

    gpu: bool
    number: int  # among the node's slots
    count: int
    cpus: int  # that the node gives to Ray


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """The jobs as one node would run them, and the versions that are part of their identities."""

    jobs: list[Job]
    environment: tuple[str, ...]


class NodeSlot:
    """Carries out one task at a time; `hear` says how it goes."""

    def __init__(
        self,
        share: Share,
        command: Sequence[str] | None,
        folder: str,
        variables: Mapping[str, str],
    ) -> None:
        """Take the place of the sweep's process: its folder, and the variables that it tells."""
        with suppress(
            OSError
        ):  # then only what is named by a relative path is missing, and says so
            os.chdir(folder)
        run_variables = variables_of_runs(os.environ, variables, gpu=share.gpu)
        os.environ.update(run_variables)
        paths = run_variables.get(_PATH, "").split(os.pathsep)
        sys.path[:0] = [path for path in paths if path and path not in sys.path]
        self._share = share
        self._worker = WorkerProcess(command or WORKER, run_variables)
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._heard: queue.SimpleQueue[Report | Lost] = queue.SimpleQueue()
        self._stopping = threading.Event()
        # Ray calls from threads of its own choice, and a worker dies with the one that started it.
        threading.Thread(target=self._serve, daemon=True).start()

    def planned(self, make: Callable[[Slot], list[Job]]) -> Planned:
        """Return the jobs as this slot would run them.

        Raises:
            UsageError: what `make` raises; data files are missing here.
        """
        jobs = make(self._slot)
        require_data(jobs)
        return Planned(jobs=jobs, environment=environment())

    def sees(self, home: Path, token: str, content: str) -> str | None:
        """Return why results cannot be written to the sweep's own home; None if they can."""
        try:
            found = (home / token).read_text(encoding="utf-8")
            aside = home / f"{token}-{secrets.token_hex(4)}"
            aside.touch()
            aside.unlink()
        except OSError as error:
            return str(error)
        return None if found == content else "another folder lies there"

    def ready(self) -> Slot:
        """Return the slot once it is there.

        Raises:
            UsageError: the node has not the cores for it.
        """
        return self._slot

    def carry_out(self, task: Task) -> None:
        """Begin a task."""
        self._tasks.put(task)

    def hear(self) -> list[Report | Lost]:
        """Return what was reported since the last call; waits a while for a first report."""
        reports: list[Report | Lost] = []
        with suppress(queue.Empty):
            reports.append(self._heard.get(timeout=HEARING_S))
            while True:
                reports.append(self._heard.get_nowait())
        return reports

    def interrupt(self) -> None:
        """Have the run end; none begins any more."""
        self._stopping.set()
        self._worker.interrupt()

    @functools.cached_property
    def _slot(self) -> Slot:
        share = self._share
        # Ray makes the slot's GPU the only visible one.
        if share.gpu:
            return Slot(device="cuda")
        return core_slots(share.count, share.cpus)[share.number]

    def _serve(self) -> None:
        # Ray blocks signals in its threads, and what they start inherits that.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        while True:
            task = self._tasks.get()
            if self._stopping.is_set():
                self._heard.put(Refused(reason="interrupted before it began", interrupted=True))
                continue
            own = Task.of(self._slot.take(task.request()), task.seed)
            try:
                self._worker.carry_out(own, self._heard.put)
            except WorkerDiedError as error:
                self._heard.put(
                    Refused(reason=str(error), interrupted=True)
                    if self._stopping.is_set()
                    else Lost(reason=str(error))
                )


def is_end(report: Report | Lost) -> bool:
    """Return whether a slot is free after this report."""
    return isinstance(report, Finished | Refused | Lost)


def variables_to_tell(ours: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the sweep's process that its runs would see on this machine."""
    names = (*VARIABLES, "BENCH_", _PATH)
    return {
        name: value
        for name, value in ours.items()
        if name.startswith(names) and name != _VISIBLE_GPUS
    }


def variables_of_runs(
    ours: Mapping[str, str], told: Mapping[str, str], *, gpu: bool
) -> dict[str, str]:
    """Return the variables for runs on this node: its own, without Ray's, and those told."""
    own = {
        name: value
        for name, value in ours.items()
        if name not in _OF_RAY and not name.startswith("RAY_")
    }
    if not gpu:  # Ray hides all GPUs from who asked for none
        own.pop(_VISIBLE_GPUS, None)
    paths = [*told.get(_PATH, "").split(os.pathsep), *own.get(_PATH, "").split(os.pathsep)]
    own |= told
    if any(paths):
        own[_PATH] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    return own
