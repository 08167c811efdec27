"""The verdict on a run, and the exception that carries it out of wherever it was found."""

from dataclasses import dataclass

from harness.events import Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How a run ended, why in words, and the submission's traceback if it raised."""

    outcome: Outcome
    reason: str
    traceback: str | None = None


class RunOverError(Exception):
    """Ends the run with a verdict."""

    def __init__(self, outcome: Outcome, reason: str, traceback: str | None = None) -> None:
        super().__init__(reason)
        self.verdict = Verdict(outcome=outcome, reason=reason, traceback=traceback)
