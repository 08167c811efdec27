"""The typed messages between referee and trainee, and the pipe they travel on.

The referee decodes msgspec structs only and never unpickles what a trainee sends. On the pipe, a
stream socket, each message stands behind its length in four bytes, most significant first.
"""

import select
import socket
import struct
import threading
import time
from typing import Literal

import msgspec

from harness.spec import RunSpec

MAX_MESSAGE_BYTES = 4 << 20
_LENGTH = struct.Struct("!I")
_CHUNK_BYTES = 1 << 16


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


class RefereeGoneError(BaseException):
    """The referee closed the pipe; no `except Exception` of a submission may swallow it."""


class RefereeEnd:
    """The referee's end of the pipe. A message that is cut off never holds the referee up."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._decoder: msgspec.msgpack.Decoder[FromTrainee] = msgspec.msgpack.Decoder(FromTrainee)
        self._received = bytearray()
        self._ended = False
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def send(self, message: FromReferee) -> None:
        """Send; raises OSError when the trainee is gone."""
        self._socket.sendall(_framed(message))

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a whole message (or the end of the pipe) is there; False on time-out."""
        deadline = time.monotonic() + timeout_s
        while not self._is_complete():
            if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1e3):
                return False
            self._take_in()
        return True

    def receive(self) -> FromTrainee:
        """Return the next message, which `wait` has announced.

        Raises:
            EOFError: the trainee closed the pipe.
            ProtocolError: it sent something else.
        """
        assert self._is_complete(), "no whole message is there yet"
        length = self._announced_length()
        if length is None:
            raise EOFError
        if length > MAX_MESSAGE_BYTES:
            raise ProtocolError(
                f"the trainee sent a message of {length:,} bytes; the limit is "
                f"{MAX_MESSAGE_BYTES:,}"
            )
        end = _LENGTH.size + length
        if len(self._received) < end:
            raise EOFError
        content = bytes(self._received[_LENGTH.size : end])
        del self._received[:end]
        try:
            return self._decoder.decode(content)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"the trainee sent no valid message: {error}") from None

    def close(self) -> None:
        """Close this end; the trainee reads the end of the pipe."""
        self._socket.close()

    def _announced_length(self) -> int | None:
        if len(self._received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        return int(length)

    def _is_complete(self) -> bool:
        """Return whether `receive` has something to say at once."""
        length = self._announced_length()
        if self._ended or (length is not None and length > MAX_MESSAGE_BYTES):
            return True
        return length is not None and len(self._received) >= _LENGTH.size + length

    def _take_in(self) -> None:
        try:
            chunk = self._socket.recv(_CHUNK_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:  # reset: the trainee died with a message of ours unread
            chunk = b""
        self._ended = not chunk
        self._received += chunk


class TraineeEnd:
    """The trainee's end of the pipe. Both ways raise RefereeGoneError when the referee is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._decoder: msgspec.msgpack.Decoder[FromReferee] = msgspec.msgpack.Decoder(FromReferee)
        self._sending = threading.Lock()

    def send(self, message: FromTrainee) -> None:
        """Send one message; from any thread."""
        try:
            with self._sending:
                self._socket.sendall(_framed(message))
        except OSError:
            raise RefereeGoneError from None

    def receive(self) -> FromReferee:
        """Block until the referee speaks."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return self._decoder.decode(self._read(length))

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _read(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            try:
                chunk = self._socket.recv(length - len(content))
            except OSError:
                raise RefereeGoneError from None
            if not chunk:
                raise RefereeGoneError
            content += chunk
        return bytes(content)


def _framed(message: FromTrainee | FromReferee) -> bytes:
    content = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(content)) + content
