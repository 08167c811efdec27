"""The typed messages between referee and trainee, and the pipe they travel on.

The referee decodes msgspec structs only and never unpickles what a trainee sends.
"""

from multiprocessing.connection import Connection
from typing import Literal

import msgspec

from harness.spec import RunSpec

MAX_MESSAGE_BYTES = 4 << 20


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """Referee → trainee: load the data, build the model, import the submission."""

    spec: RunSpec


class Start(msgspec.Struct, frozen=True, tag=True):
    """Referee → trainee: the clock runs; build the submission's state and train."""


class Resume(msgspec.Struct, frozen=True, tag=True):
    """Referee → trainee: the evaluation is over and the clock runs again."""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Referee → trainee: end in good order."""

    reason: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Trainee → referee: prepared; nothing of the submission has run yet."""

    import_ns: int  # importing the submission's code, off the clock


class Evaluate(msgspec.Struct, frozen=True, tag=True):
    """Trainee → referee: the weights to evaluate stand still; the clock stops on receipt."""

    compile_ns: int  # spent compiling since the start, on the clock
    gpu_peak_allocated_bytes: int | None  # torch.cuda.max_memory_allocated of the span


class Exported(msgspec.Struct, frozen=True, tag=True):
    """Trainee → referee: parameters and buffers lie in the shared file, `size` bytes."""

    size: int


class Finished(msgspec.Struct, frozen=True, tag=True):
    """Trainee → referee: the training loop ended."""

    reason: str
    compile_ns: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Trainee → referee: an exception ended the run."""

    kind: Literal["exception", "out_of_memory", "disqualified"]
    summary: str
    traceback: str


class Note(msgspec.Struct, frozen=True, tag=True):
    """Trainee → referee: a figure of the submission's own for the record."""

    key: str
    value: str


FromTrainee = Ready | Evaluate | Exported | Finished | Failed | Note
FromReferee = Prepare | Start | Resume | Stop


class ProtocolError(Exception):
    """The other side sent bytes that are no message of the protocol."""


class RefereeEnd:
    """The referee's end of the pipe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._decoder = msgspec.msgpack.Decoder(FromTrainee)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._connection.fileno()

    def send(self, message: FromReferee) -> None:
        """Send; raises OSError when the trainee is gone."""
        self._connection.send_bytes(msgspec.msgpack.encode(message))

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a message (or the end of the pipe) is there; False on time-out."""
        return self._connection.poll(timeout_s)

    def receive(self) -> FromTrainee:
        """Return the next message.

        Raises:
            EOFError: the trainee closed the pipe.
            ProtocolError: it sent something else.
        """
        try:
            return self._decoder.decode(self._connection.recv_bytes(MAX_MESSAGE_BYTES))
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"the trainee sent no valid message: {error}") from None
        except EOFError:
            raise
        except OSError as error:  # recv_bytes: over the size limit, or the pipe broke
            if "bad message length" in str(error):
                raise ProtocolError("the trainee sent a message over the size limit") from None
            raise EOFError from None

    def close(self) -> None:
        """Close this end; the trainee reads the end of the pipe."""
        self._connection.close()


class TraineeEnd:
    """The trainee's end of the pipe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._decoder = msgspec.msgpack.Decoder(FromReferee)

    def send(self, message: FromTrainee) -> None:
        """Send one message."""
        self._connection.send_bytes(msgspec.msgpack.encode(message))

    def receive(self) -> FromReferee:
        """Block until the referee speaks; raises EOFError when it is gone."""
        return self._decoder.decode(self._connection.recv_bytes())
