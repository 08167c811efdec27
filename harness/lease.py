"""Leases: one run at a time on a device or core set of this machine, whoever starts it.

The lock is the kernel's (`flock`), so a killed run frees it. A CPU run takes every core, so
it excludes all others; a GPU run takes its GPU alone and shares the cores with GPU runs.
"""

import fcntl
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from harness.errors import UsageError

POLL_S = 0.25
CPU = "cpu"
FILE_CLOCK_STEP_NS = 10_000_000  # a file's times lag behind the clock by up to a kernel tick


class Lease:
    """A lease that is held, or deliberately not (`--share`)."""

    def __init__(self, folder: Path, names: Sequence[str], *, shared: bool) -> None:
        self._folder = folder
        self._names = names
        self._shared = shared
        self._since = time.time_ns() - FILE_CLOCK_STEP_NS

    @property
    def taints(self) -> list[str]:
        """Why the device was not this run's alone; empty if it was, as far as is known."""
        if self._shared:
            return ["the device was shared (--share)"]
        # Beside a run on a GPU, runs on other GPUs are legal; beside one on the CPU none is.
        telling = {f"{name}.shared" for name in (CPU, *self._names)}
        for mark in self._folder.glob("*.shared"):
            if CPU in self._names or mark.name in telling:
                with suppress(OSError):
                    if mark.stat().st_mtime_ns >= self._since:
                        return ["another run used the device at the same time (--share)"]
        return []

    def beat(self) -> None:
        """A sharing run leaves its mark for the run that holds the lease."""
        for name in self._names if self._shared else ():
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
    further: Sequence[str] = (),
    folder: Path | None = None,
) -> Iterator[Lease]:
    """Hold the device, and `further` ones, until the block ends.

    Calls `waiting` with who holds it if it must wait.

    Raises:
        KeyboardInterrupt: `interrupted` said so while it waited.
        UsageError: no lock can be taken in the folder of the leases.
    """
    # In one order for all: two runs that want the same devices never wait for each other.
    wanted = sorted(re.sub(r"[^A-Za-z0-9.-]+", "-", name) for name in (lease_name, *further))
    folder = folder or _folder()
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o1777)  # other users of the machine take leases too
    locks = [(CPU, fcntl.LOCK_EX if CPU in wanted else fcntl.LOCK_SH)]
    locks += [(name, fcntl.LOCK_EX) for name in wanted if name != CPU]
    with ExitStack() as stack:
        for lock, kind in () if share else locks:
            try:
                descriptor = _open(folder / f"{lock}.lock")
            except OSError as error:
                raise _unusable(error) from None
            stack.callback(os.close, descriptor)
            _lock(descriptor, kind, lock, waiting, interrupted)
        lease = Lease(folder, wanted, shared=share)
        lease.beat()
        yield lease


def _folder() -> Path:
    try:
        return Path(tempfile.gettempdir()) / "timetrial-leases"
    except FileNotFoundError as error:
        raise _unusable(error) from None


def _unusable(error: OSError) -> UsageError:
    return UsageError(
        f"No lease can be taken on the device: {error}. Make the file writable for you, name "
        "another folder by TMPDIR (runs with another TMPDIR are then not waited for), or go on "
        "without a lease, tainted, by --share."
    )


def _open(path: Path) -> int:
    """Open a lock file, making it where there is none.

    Not in one step: in a sticky folder Linux may refuse O_CREAT for another user's file, even if
    that file may be written (`fs.protected_regular`).
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        with suppress(FileNotFoundError):
            try:
                return os.open(path, os.O_RDWR | flags)
            except PermissionError:
                return os.open(path, os.O_RDONLY | flags)  # enough to lock, not to say who does
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o666)
            os.fchmod(descriptor, 0o666)  # whatever the umask
            return descriptor


def _lock(
    descriptor: int,
    kind: int,
    name: str,
    waiting: Callable[[str], None],
    interrupted: Callable[[], bool],
) -> None:
    told = False
    while not _taken(descriptor, kind):
        if not told:
            told = True
            waiting(
                f"Waiting for the {'CPU' if name == CPU else name}, which {_holder(descriptor)} "
                "uses. Ctrl-C to give up; --share to go on beside it, tainted."
            )
        if interrupted():
            raise KeyboardInterrupt
        time.sleep(POLL_S)
    with suppress(OSError):  # opened for reading only
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid()}).encode(), 0)


def _taken(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a network file system without locks
        raise _unusable(error) from None
    return True


def _holder(descriptor: int) -> str:
    try:
        pid = json.loads(os.pread(descriptor, 200, 0))["pid"]
        # Several runs on GPUs share the CPU's lock; the last to write may be over.
        if psutil.pid_exists(pid):
            return f"the run of process {pid}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        pass
    return "another run"
