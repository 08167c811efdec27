"""What an executor is to a sweep: it hands out runs, one to a slot at a time, and times nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.sweeps.jobs import Job, Slot
from harness.sweeps.worker import Report


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """The run ended with its worker or machine; it will be made again, in this slot or another."""

    reason: str


class Watcher(Protocol):
    """Hears what the workers report; calls come one at a time."""

    def reported(self, slot: int, job: Job, report: Report | Lost) -> None:
        """Take a report of the job that runs in this slot; `Finished` and `Refused` end it."""


class Executor(Protocol):
    """Carries out jobs in its slots."""

    @property
    def places(self) -> Sequence[str]:
        """What the user calls each slot; empty for the only one of this machine."""

    def planned(self, make: Callable[[Slot], list[Job]]) -> list[Job]:
        """Return the jobs that `make` finds for one slot, which are those of every slot.

        Raises:
            UsageError: what `make` raises; data files are missing; the slots would not ask the
                same questions, so their times would not compare.
        """

    def run(self, jobs: Sequence[Job], watcher: Watcher, interrupted: Callable[[], bool]) -> None:
        """Carry out the jobs in their order and return when all have ended; called once.

        Once `interrupted` says so, runs under way are ended and recorded as interrupted, and
        none is begun. A job whose worker dies ends as refused, if it is not handed out again,
        and another worker takes the slot.
        """

    def close(self) -> None:
        """Let go of the slots; runs under way end with their workers."""
