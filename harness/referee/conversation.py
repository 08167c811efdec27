"""The referee's side of the talk with the trainee: waiting, and what silence and death mean."""

import time
from collections.abc import Callable
from typing import TypeVar

from harness import messages
from harness.events import Outcome
from harness.messages import FromTrainee, ProtocolError
from harness.referee.trainee_process import TraineeProcess
from harness.referee.verdict import RunOverError

M = TypeVar("M", bound=FromTrainee)


class Conversation:
    """Sends to one trainee and waits for its messages, asleep.

    A message that does not come, or is none, is an end of the run: every method raises
    RunOverError with the verdict.

    Args:
        trainee: the process at the other end.
        poll_s: how long to sleep at most before `between` is called again.
        farewell_s: how long a trainee that closed the pipe may take to end.
        between: called at least every `poll_s` while waiting, and once before each message.
        note: takes the submission's notes, which may come at any time.
    """

    def __init__(
        self,
        trainee: TraineeProcess,
        *,
        poll_s: float,
        farewell_s: float,
        between: Callable[[], None],
        note: Callable[[messages.Note], None],
    ) -> None:
        self._trainee = trainee
        self._poll_s = poll_s
        self._farewell_s = farewell_s
        self._between = between
        self._note = note

    def send(self, message: messages.FromReferee) -> None:
        """Send a message."""
        try:
            self._trainee.pipe.send(message)
        except OSError:
            # It may have said why before it went.
            while self._trainee.pipe.wait(0):
                self._read()
            raise self._gone() from None

    def next(self, watch: Callable[[], None]) -> FromTrainee:
        """Return the next message that is no note; `watch` ends the wait by raising.

        A message that is there comes before `watch` is asked, so that a referee that was kept
        from its core does not judge late what came in time.
        """
        while True:
            # Also when messages come thick and fast: an interrupt must not wait for a pause.
            self._between()
            if self._trainee.pipe.wait(self._poll_s):
                message = self._read()
                if not isinstance(message, messages.Note):
                    return message
                self._note(message)
            elif self._trainee.has_ended() and not self._trainee.pipe.wait(0):
                # What the submission forked may hold the pipe open after the trainee's end.
                raise self._gone()
            watch()

    def expect(self, kind: type[M], patience_s: float, when: str) -> M:
        """Return the next message, which has to be of this kind and to come in time."""
        deadline = time.monotonic() + patience_s

        def watch() -> None:
            if time.monotonic() >= deadline:
                raise RunOverError(
                    "timeout", f"the trainee was silent for {patience_s:.0f} s {when}"
                )

        message = self.next(watch)
        if not isinstance(message, kind):
            raise breach(message, kind.__name__)
        return message

    def _read(self) -> FromTrainee:
        try:
            message = self._trainee.pipe.receive()
        except EOFError:
            raise self._gone() from None
        except ProtocolError as error:
            raise RunOverError("disqualified", str(error)) from None
        if isinstance(message, messages.Failed):
            outcome: Outcome = "crashed" if message.kind == "exception" else message.kind
            raise RunOverError(outcome, message.summary, message.traceback)
        return message

    def _gone(self) -> RunOverError:
        """Return the end for a trainee that closed the pipe, or ended, without a word."""
        if not self._trainee.wait(self._farewell_s):
            return RunOverError("disqualified", "the trainee closed the pipe and went on")
        words = self._trainee.exit_in_words()
        if self._trainee.killed_by_kernel_for_memory():
            return RunOverError("out_of_memory", f"{words}: the machine ran out of memory")
        return RunOverError("crashed", words)


def breach(message: FromTrainee, expected: str) -> RunOverError:
    """Return the end for a message at the wrong moment."""
    return RunOverError(
        "disqualified", f"{type(message).__name__} was sent where {expected} was due"
    )
