"""A worker: carries out one job after the other, told by its parent over a pipe of JSON lines.

It writes run directories and never opens the index; the sweep that started it collects.
`python -m harness.sweeps.worker PARENT_PID`
"""

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO

import msgspec

from harness.errors import UsageError
from harness.events import Ended, Evaluation
from harness.referee.observer import Status
from harness.run import Request, carry_out, plan
from harness.spec import RunSpec
from harness.trainee.parent_death import die_with_parent


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it goes over a pipe: a request's fields, and the seed."""

    submission: str
    workload: str
    settings: tuple[str, ...]
    device: str
    home: str
    budget_paces: float | None
    tuned: bool
    tuning_effort: str | None
    ruleset: str | None
    study: int | None
    trial: int | None
    cores: tuple[int, ...] | None
    beside: int
    nproc: int
    seed: int

    @classmethod
    def of(cls, request: Request, seed: int) -> "Task":
        """Return a request and a seed as a task."""
        fields = {name: getattr(request, name) for name in cls.__struct_fields__ if name != "seed"}
        fields |= {"home": str(request.home), "settings": tuple(request.settings)}
        return cls(**fields, seed=seed)

    def request(self) -> Request:
        """Return the request."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "seed"}
        return Request(**fields | {"home": Path(self.home)})


class Said(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Words for the user."""

    text: str


class Began(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The run has its directory."""

    run_id: str


class Measured(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An evaluation is over."""

    elapsed_s: float
    value: float | None


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The run is recorded."""

    run_id: str
    outcome: str
    reason: str
    tainted: bool
    time_to_target_s: float | None
    best_metric: float | None


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """There is no run: it was asked wrongly, the record cannot be written, or it was given up."""

    reason: str
    interrupted: bool = False


Report = Said | Began | Measured | Finished | Refused


class _Reporter:
    """The observer of a run that tells the parent."""

    def __init__(self, report: Callable[[Report], None]) -> None:
        self._report = report

    def say(self, text: str) -> None:
        self._report(Said(text=text))

    def preparing(self, spec: RunSpec, status: Callable[[], Status]) -> None:  # noqa: ARG002
        self._report(Began(run_id=spec.run_id))

    def started(self) -> None:
        pass

    def evaluated(self, evaluation: Evaluation) -> None:
        self._report(Measured(elapsed_s=evaluation.elapsed_ns / 1e9, value=evaluation.value))

    def finishing(self, outcome: str, reason: str) -> None:
        pass

    def ended(self, ended: Ended) -> None:
        pass


def perform(
    task: Task, report: Callable[[Report], None], interrupted: Callable[[], bool]
) -> Finished | Refused:
    """Carry out one task and return how it went; reports come on the way."""
    try:
        detail = carry_out(
            plan(task.request()), task.seed, _Reporter(report), interrupted=interrupted
        )
    except KeyboardInterrupt:
        return Refused(reason="interrupted before it began", interrupted=True)
    except (UsageError, OSError) as error:
        return Refused(reason=str(error))
    record = detail.record
    return Finished(
        run_id=record.run_id,
        outcome=record.outcome,
        reason=record.reason,
        tainted=bool(record.tainted),
        time_to_target_s=record.time_to_target_s,
        best_metric=record.best_metric,
    )


def serve(tasks: IO[bytes], reports: IO[bytes], interrupted: Callable[[], bool]) -> None:
    """Carry out the tasks that come, a line each, until there are no more."""
    lock = threading.Lock()

    def report(message: Report) -> None:
        with lock:
            reports.write(msgspec.json.encode(message) + b"\n")
            reports.flush()

    for line in tasks:
        report(perform(msgspec.json.decode(line, type=Task), report, interrupted))
        if interrupted():
            return


def main() -> None:
    """Serve standard input and output until the parent closes it, dies or interrupts."""
    die_with_parent(int(sys.argv[1]))
    asked = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler
        asked.set()

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    # What prints by mistake must not end up among the reports.
    reports = open(1, "wb", closefd=False)  # noqa: SIM115 - for the process's life
    sys.stdout = sys.stderr
    serve(sys.stdin.buffer, reports, asked.is_set)


if __name__ == "__main__":
    main()
