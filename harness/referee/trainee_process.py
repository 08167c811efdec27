"""Starts, stops, continues and ends the trainee's process tree, and reads why it ended."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

import harness
from harness.counters import SIZE_BYTES, Counters, create_shared_file
from harness.messages import RefereeEnd
from harness.process_end import KernelMemoryKills, end_in_words
from harness.referee import guardian

TRAINEE_MODULE = "harness.trainee"
STOPPED_WITHIN_S = 2.0
_POLL_S = 0.005


class TraineeProcess:
    """A running trainee: its pipe, its counters, the file of its weights."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        mark: str,
        pipe: RefereeEnd,
        counters: int,
        weights: int,
        lifeline: int,
        ranks: int = 1,
    ) -> None:
        self.pipe = pipe
        self.counters = Counters(counters)
        self.weights_descriptor = weights
        self._counters_descriptor = counters
        self._process = process
        self._mark = mark
        self._lifeline = lifeline
        self._killed = False
        self._name = "the trainee" if ranks == 1 else "rank 0, the trainee,"
        self._kernel_kills = KernelMemoryKills()

    @classmethod
    def spawn(cls, *, cores: list[list[int]], threads: int, output: Path) -> "TraineeProcess":
        """Start a fresh interpreter in its own session, pinned to its cores.

        The calling thread must outlive the trainee: the kernel kills the trainee when it ends.

        Args:
            cores: logical CPUs of each rank that is to train, mostly one; empty: unpinned.
            threads: compute threads of torch's pools, in each rank.
            output: file for what it prints.
        """
        with contextlib.ExitStack() as on_failure:
            ours, theirs = socket.socketpair()
            on_failure.callback(ours.close)
            with theirs:
                counters = create_shared_file("timetrial-counters", SIZE_BYTES)
                on_failure.callback(os.close, counters)
                weights = create_shared_file("timetrial-weights", 0)
                on_failure.callback(os.close, weights)
                mark = secrets.token_hex(16)
                process = _start((theirs.fileno(), counters, weights), cores, threads, output, mark)
            on_failure.callback(process.wait)
            on_failure.callback(process.kill)
            lifeline = _start_guardian(mark, process.pid)
            trainee = cls(process, mark, RefereeEnd(ours), counters, weights, lifeline, len(cores))
            on_failure.pop_all()
        return trainee

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
            # WNOWAIT leaves an exit to be collected by `kill`.
            options = os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG
            if os.waitid(os.P_PID, self.pid, options) is not None:
                return
            time.sleep(_POLL_S / 10)

    def resume(self) -> None:
        """Let the tree go on (SIGCONT)."""
        self._signal_tree(signal.SIGCONT)

    def kill(self) -> None:
        """End the whole tree at once, also when it is stopped, and what has left the tree."""
        if self._killed:
            return
        self._killed = True
        # Collected only after the signals: until then nobody else can get its id or its group's.
        self._signal_tree(signal.SIGKILL)
        guardian.end_marked(self._mark, spare=self.pid)
        self._process.wait()

    def has_ended(self) -> bool:
        """Return whether the trainee itself has ended; others of its tree may live."""
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def wait(self, timeout_s: float) -> bool:
        """Return whether the trainee has ended within the time."""
        deadline = time.monotonic() + timeout_s
        while not self.has_ended():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def close(self) -> None:
        """End what is left of the tree and release the descriptors."""
        self.kill()
        with contextlib.suppress(BrokenPipeError):  # somebody ended the guardian
            os.write(self._lifeline, b".")
        os.close(self._lifeline)
        self.pipe.close()
        os.close(self._counters_descriptor)
        os.close(self.weights_descriptor)

    def exit_in_words(self) -> str:
        """Say how the trainee ended, which it must have; what it left running is ended."""
        assert self.has_ended(), "the trainee still runs"
        self.kill()
        return f"{self._name} {end_in_words(self._process.wait())}"

    def killed_by_kernel_for_memory(self) -> bool:
        """Return whether a SIGKILL coincided with an out-of-memory kill of the kernel's."""
        code: int | None = self._process.returncode
        return code is not None and self._kernel_kills.explain(code)

    def kept_waiting_ns(self) -> int | None:
        """Return how long the trainee's threads were ready to run and not let, so far."""
        total = 0
        try:
            for pid in self.counters.rank_pids() or [self.pid]:
                for task in Path(f"/proc/{pid}/task").iterdir():
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                        total += int((task / "schedstat").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return None
        return total

    def _signal_tree(self, number: signal.Signals) -> None:
        descendants: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            descendants = psutil.Process(self.pid).children(recursive=True)
        # The group has the trainee's own id.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        for process in descendants:  # those that left the group
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)


def _start(
    inherited: tuple[int, int, int], cores: list[list[int]], threads: int, output: Path, mark: str
) -> subprocess.Popen[bytes]:
    """Start the interpreter with the pipe, the counters and the weights as descriptors."""
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
        guardian.RUN_MARK: mark,
    }
    command = [sys.executable, "-P", "-m", TRAINEE_MODULE, "--parent", str(os.getpid())]
    for name, descriptor in zip(("--pipe", "--counters", "--weights"), inherited, strict=True):
        command += [name, str(descriptor)]
    command += ["--cores", ";".join(",".join(map(str, own)) for own in cores)]
    with output.open("ab") as sink:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            pass_fds=inherited,
            env=variables,
            start_new_session=True,  # a Ctrl-C in the terminal is the referee's to handle
        )


def _start_guardian(mark: str, group: int) -> int:
    """Start the guardian of the run; return the descriptor that keeps it asleep."""
    theirs, ours = os.pipe()
    try:
        subprocess.run(
            [sys.executable, "-I", "-S", guardian.__file__, mark, str(group)],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return ours
