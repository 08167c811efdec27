"""A worker as its parent sees it: a process that is told tasks and answers with reports."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from harness.sweeps.worker import Finished, Refused, Report, Task

WORKER = (sys.executable, "-m", "harness.sweeps.worker")


class WorkerDiedError(Exception):
    """The worker ended in the middle of a task; says how."""


class WorkerProcess:
    """One worker that `command` and our pid start, when there is a task for it.

    The thread that calls `carry_out` must outlive it: the kernel kills the worker, and with it
    the run's processes, when that thread ends.
    """

    def __init__(
        self, command: Sequence[str] = WORKER, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def carry_out(self, task: Task, heard: Callable[[Report], None]) -> None:
        """Have a task carried out; the last report is its end.

        Raises:
            WorkerDiedError: the next task gets another process.
        """
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(task) + b"\n")
            process.stdin.flush()
            for line in process.stdout:
                report = msgspec.json.decode(line, type=Report)
                heard(report)
                if isinstance(report, Finished | Refused):
                    return
        except (BrokenPipeError, msgspec.MsgspecError):
            process.kill()
        raise WorkerDiedError(f"its worker died ({_end_in_words(self.close())})")

    def interrupt(self) -> None:
        """Have the worker end its run."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)

    def close(self) -> int:
        """Let the worker end, and return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError):  # it died with a task half told
            process.stdin.close()
        code = process.wait()
        process.stdout.close()
        return code

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            # A session of its own: Ctrl-C in the terminal is the sweep's to pass on.
            self._process = subprocess.Popen(
                [*self._command, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
        return self._process


def _end_in_words(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
