"""What the referee tells those who watch: the display and the record."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from harness.events import Ended, Evaluation, Event
from harness.spec import RunSpec
from harness.telemetry.reading import Reading


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """A run at this moment, as far as the referee sees it from outside."""

    elapsed_ns: int
    running: bool  # on the clock
    steps: int
    examples: int
    model_passes: int
    reading: Reading | None


class Observer(Protocol):
    """Watches one run. Calls come from the referee's thread, off the clock where they can."""

    def preparing(self, spec: RunSpec, status: Callable[[], Status]) -> None:
        """The trainee is being started; `status` may be called from any thread until `ended`."""

    def started(self) -> None:
        """The clock runs."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """An evaluation is over."""

    def finishing(self, outcome: str, reason: str) -> None:
        """The outcome stands; the pace is being measured again."""

    def ended(self, ended: Ended) -> None:
        """The run is over and recorded."""


class Recorder(Protocol):
    """Writes the run down."""

    def event(self, event: Event) -> None:
        """Append an event durably."""

    def reading(self, reading: Reading) -> None:
        """Append a reading; called from the sampler's thread too."""

    def beat(self) -> None:
        """Say that the referee lives."""
