"""Resident memory and processor time of the trainee and its descendants."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import psutil

# Finding descendants walks all processes of the machine, so it is not done at every sample.
CHILDREN_REFRESH_S = 1.0


class ProcessTreeMemory:
    """Reads the processes of one tree. A process that vanishes is left out, without an error.

    The high-water mark (VmHWM of /proc, see proc_pid_status(5)) is kept by the kernel, misses
    nothing, and covers the process `pid` alone; it exists on Linux only.
    """

    def __init__(
        self, pid: int, clock: Callable[[], float] = time.monotonic, proc: Path = Path("/proc")
    ) -> None:
        self._clock = clock
        self._status_file = proc / str(pid) / "status"
        self._clear_refs_file = proc / str(pid) / "clear_refs"
        self._reset_denied = False
        self._root: psutil.Process | None = None
        self._descendants: list[psutil.Process] = []
        self._refreshed_at: float | None = None
        # Per process, not summed: a child that ends takes its seconds with it.
        self._cpu_seconds_by_process: dict[psutil.Process, float] = {}
        self._cpu_seconds = 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            self._root = psutil.Process(pid)

    def pids(self) -> frozenset[int]:
        """The ids of the tree's processes, as of the last refresh."""
        return frozenset(process.pid for process in self._processes())

    def memory_bytes(self) -> int | None:
        """Sum of the resident sizes, or None when no process is left."""
        total = 0
        for process in self._processes():
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        # A process that has ended but was not waited for has size 0: gone, not small.
        return total or None

    def cpu_seconds(self) -> float | None:
        """Processor seconds (user + system) of the tree since the first call, which gives 0.

        A process first seen later counts from its start. None when no process is left.
        """
        first_call = not self._cpu_seconds_by_process
        seen: dict[psutil.Process, float] = {}
        for process in self._processes():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            seen[process] = times.user + times.system
        if not seen:
            return None
        if not first_call:
            for process, seconds in seen.items():
                self._cpu_seconds += seconds - self._cpu_seconds_by_process.get(process, 0.0)
        self._cpu_seconds_by_process |= seen
        return self._cpu_seconds

    def reset_peak(self) -> bool:
        """Lower the high-water mark to the present size; False where that is not possible."""
        if self._reset_denied:
            return False
        try:
            self._clear_refs_file.write_text("5")
        except OSError:
            self._reset_denied = True
            return False
        return True

    def peak(self) -> int | None:
        """The high-water mark in bytes since the last reset that worked, else since the start."""
        try:
            status = self._status_file.read_text()
        except OSError:
            return None
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None

    def _processes(self) -> list[psutil.Process]:
        if self._root is None:
            return []
        now = self._clock()
        if self._refreshed_at is None or now - self._refreshed_at >= CHILDREN_REFRESH_S:
            self._refreshed_at = now
            with contextlib.suppress(psutil.Error):  # the root is gone; the others may not be
                self._descendants = self._root.children(recursive=True)
        return [self._root, *self._descendants]
