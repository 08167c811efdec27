"""Ties the trainee's life to the referee's: no process outlives it, not even a stopped one."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process, and the children it forks, when the parent dies.

    Linux only. A program that is started by `fork` + `exec`, as `subprocess` does, keeps no such
    tie: the referee ends it with the run, or the guardian does where the referee cannot.
    """
    if sys.platform != "linux":
        return
    _ask_for_kill()
    if os.getppid() != parent_pid:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)
    os.register_at_fork(after_in_child=_ask_for_kill)  # a fork clears the request


def _ask_for_kill() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
