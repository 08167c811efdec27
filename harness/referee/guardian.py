"""Ends what is left of a run whose referee died: a program of its own, `guardian.py MARK GROUP`.

The kernel kills the trainee with its referee (harness.trainee.parent_death), but not a program
that the submission started, nor a child that was stopped before it could ask for that. So the
guardian sleeps beside each run, on a pipe whose other end the referee alone holds: a byte means
that the referee has cleaned up, the end of the pipe that it is dead.

It starts in a few milliseconds and imports nothing of the harness.
"""

import os
import signal
import sys
import time
from pathlib import Path

# Every process that a run starts inherits this variable, whatever session it moves to.
RUN_MARK = "TIMETRIAL_RUN_MARK"
_ROUNDS = 50  # of looking for processes that a dying tree still started
_PAUSE_S = 0.005


def end_marked(mark: str, *, spare: int | None = None) -> None:
    """Kill every process that carries this run's mark, but not `spare`; Linux only."""
    for _ in range(_ROUNDS):
        marked = [pid for pid in _marked(mark) if pid != spare]
        if not marked:
            return
        for pid in marked:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(_PAUSE_S)


def _marked(mark: str) -> list[int]:
    wanted = f"{RUN_MARK}={mark}".encode()
    marked: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:  # gone, or another user's
            continue
        if wanted in environment.split(b"\0"):  # empty once a process has ended
            marked.append(int(folder.name))
    return marked


def main() -> None:
    """Detach from the referee, wait for its word or its end."""
    mark, group = sys.argv[1:]
    if os.fork():
        os._exit(0)  # nobody's child: whoever ends the referee's children leaves this one
    os.setsid()
    if os.read(sys.stdin.fileno(), 1):
        return
    if sys.platform == "linux":
        end_marked(mark)
    else:
        try:
            os.killpg(int(group), signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


if __name__ == "__main__":
    main()
