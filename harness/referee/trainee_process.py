"""Starts, stops, continues and ends the trainee's process tree, and reads why it ended."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

import harness
from harness.counters import SIZE_BYTES, Counters, create_shared_file
from harness.messages import RefereeEnd

STOPPED_WITHIN_S = 2.0


class TraineeProcess:
    """A running trainee: its pipe, its counters, the file of its weights."""

    def __init__(
        self, process: subprocess.Popen[bytes], pipe: RefereeEnd, counters: int, weights: int
    ) -> None:
        self.pipe = pipe
        self.counters = Counters(counters)
        self.weights_descriptor = weights
        self._counters_descriptor = counters
        self._process = process
        self._kernel_kills = _kernel_out_of_memory_kills()

    @classmethod
    def spawn(
        cls, *, cores: list[int], threads: int, output: Path, environment: Mapping[str, str]
    ) -> "TraineeProcess":
        """Start a fresh interpreter in its own session, pinned to `cores`.

        Args:
            cores: logical CPUs; empty: unpinned.
            threads: compute threads of torch's pools.
            output: file for what it prints.
            environment: variables on top of this process's.
        """
        ours, theirs = multiprocessing.Pipe(duplex=True)
        counters = create_shared_file("timetrial-counters", SIZE_BYTES)
        weights = create_shared_file("timetrial-weights", 0)
        inherited = (theirs.fileno(), counters, weights)
        root = str(Path(harness.__file__).parents[1])
        paths = [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        variables = {
            **os.environ,
            # Workers that spin while they wait steal the very cores that are timed.
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            **environment,
        }
        arguments = ("--pipe", "--counters", "--weights")
        command = [sys.executable, "-P", "-m", "harness.trainee", "--parent", str(os.getpid())]
        for name, descriptor in zip(arguments, inherited, strict=True):
            command += [name, str(descriptor)]
        command += ["--cores", ",".join(map(str, cores))]
        with output.open("ab") as sink:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                pass_fds=inherited,
                env=variables,
                start_new_session=True,  # a Ctrl-C in the terminal is the referee's to handle
            )
        theirs.close()
        return cls(process, RefereeEnd(ours), counters, weights)

    @property
    def pid(self) -> int:
        """The trainee's process id."""
        return self._process.pid

    def stop(self) -> None:
        """Stop the whole tree (SIGSTOP) and wait until the trainee itself stands still."""
        self._signal_tree(signal.SIGSTOP)
        if not hasattr(os, "waitid"):
            return
        deadline = time.monotonic() + STOPPED_WITHIN_S
        while time.monotonic() < deadline:
            # WNOWAIT leaves an exit to be collected by Popen.
            options = os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG
            with contextlib.suppress(ChildProcessError):
                if os.waitid(os.P_PID, self.pid, options) is None:
                    time.sleep(0.0005)
                    continue
            return

    def resume(self) -> None:
        """Let the tree go on (SIGCONT)."""
        self._signal_tree(signal.SIGCONT)

    def kill(self) -> None:
        """End the whole tree at once, also when it is stopped."""
        self._signal_tree(signal.SIGKILL)
        self._process.wait()

    def wait(self, timeout_s: float) -> bool:
        """Return whether the trainee has ended within the time."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """End what is left of the tree and release the descriptors."""
        self.kill()
        self.pipe.close()
        os.close(self._counters_descriptor)
        os.close(self.weights_descriptor)

    def exit_in_words(self) -> str:
        """Say how the trainee ended, which it must have."""
        code = self._process.wait()
        if code >= 0:
            return f"the trainee exited with code {code} without a word"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"the trainee was killed by {name}"

    def killed_by_kernel_for_memory(self) -> bool:
        """Return whether a SIGKILL coincided with an out-of-memory kill of the kernel's."""
        return (
            self._process.returncode == -signal.SIGKILL
            and _kernel_out_of_memory_kills() > self._kernel_kills
        )

    def kept_waiting_ns(self) -> int | None:
        """Return how long the trainee's threads were ready to run and not let, so far."""
        total = 0
        try:
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    total += int((task / "schedstat").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return None
        return total

    def _signal_tree(self, number: signal.Signals) -> None:
        if self._process.poll() is not None and number != signal.SIGKILL:
            return
        descendants: list[psutil.Process] = []
        if self._process.returncode is None:
            with contextlib.suppress(psutil.Error):
                descendants = psutil.Process(self.pid).children(recursive=True)
        # The group has the trainee's own id, and outlives it while a member does.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        for process in descendants:  # those that left the group
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)


def _kernel_out_of_memory_kills() -> int:
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
