"""What an executor is to a sweep: it hands out runs, one to a slot at a time, and times nothing."""

from collections.abc import Callable, Sequence
from typing import Protocol

from harness.sweeps.jobs import Job
from harness.sweeps.worker import Report


class Watcher(Protocol):
    """Hears what the workers report; calls come one at a time."""

    def reported(self, slot: int, job: Job, report: Report) -> None:
        """Take a report of the job that runs in this slot; `Finished` and `Refused` end it."""


class Executor(Protocol):
    """Carries out jobs."""

    def run(self, jobs: Sequence[Job], watcher: Watcher, interrupted: Callable[[], bool]) -> None:
        """Carry out the jobs in their order and return when all have ended.

        Once `interrupted` says so, runs under way are ended and recorded as interrupted, and
        none is begun. A worker that dies ends its job as refused, and another takes its slot.
        """
