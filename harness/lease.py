"""Leases: one run at a time on a device or core set of this machine, whoever starts it.

The lock is the kernel's (`flock`), so a killed run frees it. A CPU run takes every core, so
it excludes all others; a GPU run takes its GPU alone and shares the cores with GPU runs.
"""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

POLL_S = 0.25


class Lease:
    """A lease that is held, or deliberately not (`--share`)."""

    def __init__(self, folder: Path, names: list[str], *, shared: bool) -> None:
        self._folder = folder
        self._names = names
        self._shared = shared
        self._since = time.time_ns()

    @property
    def taints(self) -> list[str]:
        """Why the device was not this run's alone; empty if it was, as far as is known."""
        if self._shared:
            return ["the device was shared (--share)"]
        for name in self._names:
            with suppress(OSError):
                if (self._folder / f"{name}.shared").stat().st_mtime_ns >= self._since:
                    return ["another run used the device at the same time (--share)"]
        return []

    def beat(self) -> None:
        """A sharing run leaves its mark for the run that holds the lease."""
        if self._shared:
            for name in self._names:
                mark = self._folder / f"{name}.shared"
                with suppress(OSError):
                    mark.touch()
                    mark.chmod(0o666)


@contextmanager
def leased(
    lease_name: str,
    *,
    share: bool,
    waiting: Callable[[str], None],
    interrupted: Callable[[], bool],
    folder: Path | None = None,
) -> Iterator[Lease]:
    """Hold the device until the block ends.

    Calls `waiting` once, with who holds it, if it must wait; raises KeyboardInterrupt if
    `interrupted` says so meanwhile.
    """
    folder = folder or Path(tempfile.gettempdir()) / "timetrial-leases"
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o1777)  # other users of the machine take leases too
    locks = [("cpu", fcntl.LOCK_EX if lease_name == "cpu" else fcntl.LOCK_SH)]
    if lease_name != "cpu":
        locks.append((lease_name, fcntl.LOCK_EX))
    names = [name for name, _ in locks]
    with ExitStack() as stack:
        if not share:
            for name, kind in locks:
                descriptor = _open(folder / f"{name}.lock")
                stack.callback(os.close, descriptor)
                _lock(descriptor, kind, name, waiting, interrupted)
        lease = Lease(folder, names, shared=share)
        lease.beat()
        yield lease


def _open(path: Path) -> int:
    previous = os.umask(0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    finally:
        os.umask(previous)


def _lock(
    descriptor: int,
    kind: int,
    name: str,
    waiting: Callable[[str], None],
    interrupted: Callable[[], bool],
) -> None:
    told = False
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not told:
                told = True
                waiting(
                    f"Waiting for {name}, which {_holder(descriptor)} uses. "
                    "Ctrl-C to give up; --share to go on beside it, tainted."
                )
            if interrupted():
                raise KeyboardInterrupt from None
            time.sleep(POLL_S)
    text = json.dumps({"pid": os.getpid()}).encode()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text, 0)


def _holder(descriptor: int) -> str:
    try:
        return f"the run of process {json.loads(os.pread(descriptor, 200, 0))['pid']}"
    except (ValueError, KeyError, TypeError):
        return "another run"
