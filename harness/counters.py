"""The block of counters that referee and trainee share in memory.

Aligned eight-byte words, each written by one side only, so no lock is needed. A step costs
the trainee a few stores; the referee reads at its leisure for the display and the watchdog.
Where several ranks train together, rank 0 writes for all; each has a word for its process id and
one that tells how far it is.
"""

import mmap
import os
from pathlib import Path

SIZE_BYTES = 4096


class Counters:
    """The shared words by name: see the properties for who writes which."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE_BYTES)
        self.words = memoryview(self._map).cast("q")  # indexed by the constants below

    @property
    def steps(self) -> int:
        """Optimizer steps (written by the trainee)."""
        return self.words[STEPS]

    @property
    def examples(self) -> int:
        """Training examples consumed (trainee)."""
        return self.words[EXAMPLES]

    @property
    def model_passes(self) -> int:
        """Examples forwarded + 2 × examples backwarded (trainee)."""
        return self.words[MODEL_PASSES]

    @property
    def not_finite(self) -> bool:
        """Whether a training loss was NaN or infinite, as of the last evaluation (trainee)."""
        return bool(self.words[NOT_FINITE])

    def ask_for_evaluation(self) -> None:
        """Have the trainee evaluate at its next step boundary (referee)."""
        self.words[EVALUATE_NOW] = 1

    def register_rank(self, rank: int, pid: int) -> None:
        """Say which process a rank is (that rank)."""
        self.words[RANK_PIDS + rank] = pid

    def advance(self, rank: int) -> None:
        """Say that a rank is one pass or step further (that rank)."""
        self.words[RANK_PROGRESS + rank] += 1

    def rank_pids(self) -> list[int]:
        """Return the processes of the ranks that have registered; empty without ranks."""
        return [pid for pid in self.words[RANK_PIDS : RANK_PIDS + MAX_RANKS] if pid]

    def rank_behind(self) -> int | None:
        """Return the rank that is further behind than every other, if one is."""
        progress = list(self.words[RANK_PROGRESS : RANK_PROGRESS + len(self.rank_pids())])
        least = min(progress, default=0)
        return progress.index(least) if len(progress) > 1 and progress.count(least) == 1 else None


MAX_RANKS = 64
STEPS, EXAMPLES, MODEL_PASSES, NOT_FINITE, EVALUATE_NOW = range(5)
RANK_PIDS, RANK_PROGRESS = 64, 64 + MAX_RANKS  # the first of as many words


def create_shared_file(name: str, size_bytes: int) -> int:
    """Return the descriptor of an unlinked file in memory, to be inherited by the trainee."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:  # macOS
        import tempfile

        descriptor, path = tempfile.mkstemp(prefix=name)
        Path(path).unlink()
    os.ftruncate(descriptor, size_bytes)
    return descriptor
