"""Tries on two small processes what the referee does to a trainee: stop it, and die on it."""

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.doctor.system_files import text

START_WITHIN_S = 5.0  # a cold interpreter on a slow disk
OBEY_WITHIN_S = 0.5
_POLL_S = 0.002

# The parent stands for the referee, its child for the trainee.
_ACT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from harness.trainee.parent_death import die_with_parent
parent = os.getpid()
if os.fork() == 0:
    die_with_parent(parent)
    print(os.getpid(), flush=True)
signal.pause()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsal:
    """What came of it; `failure` says why nothing did."""

    tree_stopped: bool = False
    died_with_parent: bool = False
    failure: str | None = None


def rehearse(proc: Path = Path("/proc"), platform: str = sys.platform) -> Rehearsal:
    """Stop a process group, kill the parent alone, and see whether the stopped child dies."""
    if platform != "linux":
        return Rehearsal(failure=f"Linux only; this is {platform}")
    root = str(Path(harness.__file__).parents[1])
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ACT, root],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as parent:
            try:
                return _perform(parent, proc)
            finally:
                os.killpg(parent.pid, signal.SIGKILL)
    except OSError as error:
        return Rehearsal(failure=f"no process could be started: {error}")


def _perform(parent: subprocess.Popen[bytes], proc: Path) -> Rehearsal:
    assert parent.stdout is not None
    ready, _, _ = select.select([parent.stdout], [], [], START_WITHIN_S)
    line = parent.stdout.readline() if ready else b""
    if not line.strip().isdigit():
        return Rehearsal(failure="a child process that asks to die with its parent does not start")
    child = int(line)
    os.killpg(parent.pid, signal.SIGSTOP)
    stopped = _comes_to(proc, [parent.pid, child], "T")
    parent.kill()
    return Rehearsal(tree_stopped=stopped, died_with_parent=_comes_to(proc, [child], "ZX"))


def _comes_to(proc: Path, pids: list[int], states: str) -> bool:
    """Return whether all of `pids` get into one of `states` in time; a dead one is an X."""
    deadline = time.monotonic() + OBEY_WITHIN_S
    while True:
        if all(_state(proc, pid) in states for pid in pids):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)


def _state(proc: Path, pid: int) -> str:
    stat = text(proc / str(pid) / "stat")
    # The name before the state stands in brackets and may hold any character.
    return "X" if stat is None else stat.rpartition(")")[2].split()[0]
