"""The processes of a data-parallel run: rank 0, which the referee started, forks the others.

They are its children in its process group, so that whatever stops or ends a trainee's tree does
it to them. Towards each of them rank 0 plays the referee's part on a pipe of its own: it passes
on what the referee says, and tells the referee who failed. This imports no torch: a fork comes
before any thread.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from harness import messages
from harness.counters import Counters
from harness.messages import ProtocolError, RefereeEnd, TraineeEnd
from harness.process_end import KernelMemoryKills, end_in_words

FAREWELL_S = 2.0
LOCALHOST = "127.0.0.1"
_POLL_S = 0.01
_LISTENING_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RankProcess:
    """What a rank knows of itself."""

    rank: int
    count: int
    port: int  # where the ranks find each other
    listener: int | None  # the socket that listens there, rank 0's
    pipe: TraineeEnd  # to the referee, or to rank 0 in its place
    others: "OtherRanks | None"  # rank 0's


def fork_ranks(count: int, pipe: TraineeEnd, counters: int) -> RankProcess:
    """Fork `count` - 1 processes; returns in each of them, as the rank that it is.

    Args:
        count: how many ranks there are.
        pipe: the trainee's end of the pipe to the referee.
        counters: the descriptor of the shared counters.
    """
    parent = os.getpid()
    listener = socket.create_server((LOCALHOST, 0))
    port = listener.getsockname()[1]
    ends: dict[int, tuple[int, socket.socket]] = {}
    for rank in range(1, count):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            if os.getppid() != parent:  # it died before we asked to die with it
                os.kill(os.getpid(), signal.SIGKILL)
            # Whoever holds one of these keeps it open for those who wait for its end.
            for connection in (listener, ours, *(other for _, other in ends.values())):
                connection.close()
            pipe.close()
            mine = TraineeEnd(theirs)
            return _registered(rank, count, port, None, mine, None, counters)
        theirs.close()
        ends[rank] = pid, ours
    others = OtherRanks({rank: (pid, RefereeEnd(end)) for rank, (pid, end) in ends.items()}, pipe)
    return _registered(0, count, port, listener.detach(), pipe, others, counters)


def _registered(
    rank: int,
    count: int,
    port: int,
    listener: int | None,
    pipe: TraineeEnd,
    others: "OtherRanks | None",
    counters: int,
) -> RankProcess:
    """Leave word of this process, and set what `torchrun` sets, which submissions may read."""
    Counters(counters).register_rank(rank, os.getpid())
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": LOCALHOST,
        "MASTER_PORT": str(port),
    }
    return RankProcess(
        rank=rank, count=count, port=port, listener=listener, pipe=pipe, others=others
    )


class OtherRanks:
    """The ranks from 1 on, as rank 0 sees them; a thread listens to each."""

    def __init__(self, ends: dict[int, tuple[int, RefereeEnd]], referee: TraineeEnd) -> None:
        self._ends = ends
        self._referee = referee
        self._ready = threading.Semaphore(0)
        self._failed = threading.Event()
        self._closing = False
        self._codes: dict[int, int] = {}
        self._collecting = threading.Lock()
        self._kills = KernelMemoryKills()

    def listen(self) -> None:
        """Start to listen; the threads end with the ranks."""
        for rank in self._ends:
            threading.Thread(target=self._listen, args=(rank,), daemon=True).start()

    def tell(self, message: messages.FromReferee) -> None:
        """Pass on a message to all; one that is gone is reported by who listens to it."""
        self._closing |= isinstance(message, messages.Stop)
        for _, end in self._ends.values():
            with contextlib.suppress(OSError):
                end.send(message)

    def await_ready(self) -> None:
        """Wait until all are ready; one that fails before has the referee end the run."""
        for _ in self._ends:
            self._ready.acquire()

    def await_end(self) -> None:
        """Wait a little for them to end in good order."""
        deadline = time.monotonic() + FAREWELL_S
        for pid, _ in self._ends.values():
            self._end_of(pid, deadline)

    def failure_is_told(self, within_s: float) -> bool:
        """Return whether the referee heard of a failure of theirs, or does within the time."""
        return self._failed.wait(within_s)

    def _listen(self, rank: int) -> None:
        for message in self._messages(rank):
            if isinstance(message, messages.Ready):
                self._ready.release()
            elif isinstance(message, messages.Failed):
                self._report(rank, message)
                return

    def _messages(self, rank: int) -> Iterator[messages.FromTrainee]:
        pid, end = self._ends[rank]
        while True:
            if not end.wait(_LISTENING_S):
                continue
            try:
                yield end.receive()
            except ProtocolError as error:
                yield messages.Failed(kind="disqualified", summary=str(error), traceback="")
            except EOFError:
                break
        code = self._end_of(pid, time.monotonic() + FAREWELL_S)
        if code is None:
            yield messages.Failed(
                kind="disqualified", summary="closed its pipe and went on", traceback=""
            )
        elif self._kills.explain(code):
            words = f"{end_in_words(code)}: the machine ran out of memory"
            yield messages.Failed(kind="out_of_memory", summary=words, traceback="")
        else:
            yield messages.Failed(kind="exception", summary=end_in_words(code), traceback="")

    def _end_of(self, pid: int, deadline: float) -> int | None:
        """Return the code with which a rank ended, None if it is not known to have by then."""
        while True:
            with self._collecting:  # the thread that listens and `await_end` may both ask
                if pid not in self._codes:
                    ended, status = 0, 0
                    with contextlib.suppress(ChildProcessError):  # the submission collected it
                        ended, status = os.waitpid(pid, os.WNOHANG)
                    if ended:
                        self._codes[pid] = os.waitstatus_to_exitcode(status)
                if pid in self._codes:
                    return self._codes[pid]
            if time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_S)

    def _report(self, rank: int, failure: messages.Failed) -> None:
        if self._closing:
            return
        words = f"rank {rank} {failure.summary}" if not failure.traceback else None
        summary = words or f"rank {rank}: {failure.summary}"
        with contextlib.suppress(messages.RefereeGoneError):
            self._referee.send(msgspec.structs.replace(failure, summary=summary))
        self._failed.set()
