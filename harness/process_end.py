"""How a process ended, in words, and whether the kernel may have killed it for its memory."""

import signal
from pathlib import Path


def end_in_words(code: int) -> str:
    """Say what a return code means, negative ones being signals: `was killed by SIGKILL`."""
    if code >= 0:
        return f"exited with code {code} without a word"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}"


class KernelMemoryKills:
    """Counts the kernel's out-of-memory kills from now on; Linux only."""

    def __init__(self) -> None:
        self._before = _kills_so_far()

    def explain(self, code: int) -> bool:
        """Return whether a process that ended with `code` may have been one."""
        return code == -signal.SIGKILL and _kills_so_far() > self._before


def _kills_so_far() -> int:
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
