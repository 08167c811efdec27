"""Which CPU cores the trainee and the referee get: never the same ones if there are two."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass(frozen=True, kw_only=True, slots=True)
class CorePlan:
    """Logical CPU numbers; empty lists where the platform cannot pin (macOS)."""

    trainee: list[int]
    referee: list[int]
    threads: int  # one a physical core of the trainee's
    single_core: bool

    def for_ranks(self, count: int) -> "RankCores":
        """Divide the trainee's physical cores among the ranks of a data-parallel run.

        Each gets as many as any other, and one that is left over stays idle: the slowest rank
        sets the pace of all. Ranks that are more than the cores share them all.
        """
        physical = _by_core(self.trainee, {cpu: _siblings(cpu) for cpu in self.trainee})
        each = (len(physical) if physical else self.threads) // count
        if each == 0:
            return RankCores(cores=[self.trainee] * count, threads=1, used=self.threads)
        cores = [
            sorted(cpu for core in physical[rank * each : (rank + 1) * each] for cpu in core)
            for rank in range(count)
        ]
        return RankCores(cores=cores, threads=each, used=each * count)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankCores:
    """The cores of each rank, likewise."""

    cores: list[list[int]]
    threads: int  # of each rank
    used: int  # physical cores of all ranks

    @property
    def shared(self) -> bool:
        """Whether there are fewer cores than ranks."""
        return self.used < len(self.cores)


def plan_cores(within: Sequence[int] | None = None) -> CorePlan:
    """Give the referee the first physical core and the trainee all others that we may use.

    `within` limits it to a set of logical CPUs.
    """
    if not hasattr(os, "sched_getaffinity"):
        count = os.cpu_count() or 1
        return CorePlan(trainee=[], referee=[], threads=max(1, count - 1), single_core=count == 1)
    available = sorted(os.sched_getaffinity(0).intersection(within or os.sched_getaffinity(0)))
    siblings = {cpu: _siblings(cpu) for cpu in available}
    return split_cores(available, siblings, cpu_quota())


def physical_cores() -> list[list[int]]:
    """Return the logical CPUs that we may use, those of one physical core together."""
    if not hasattr(os, "sched_getaffinity"):
        return [[cpu] for cpu in range(os.cpu_count() or 1)]
    available = sorted(os.sched_getaffinity(0))
    return _by_core(available, {cpu: _siblings(cpu) for cpu in available})


def _by_core(available: Sequence[int], siblings: Mapping[int, Sequence[int]]) -> list[list[int]]:
    physical: list[list[int]] = []
    placed: set[int] = set()
    for cpu in available:
        if cpu not in placed:
            core = sorted(set(available).intersection(siblings[cpu]) - placed | {cpu})
            physical.append(core)
            placed.update(core)
    return physical


def split_cores(
    available: Sequence[int], siblings: Mapping[int, Sequence[int]], quota: float | None = None
) -> CorePlan:
    """Split `available` CPUs by physical core; hyperthreads of one core stay together.

    A container's `quota` of CPU time counts as so many cores: the kernel would stop threads
    that use more, in the middle of a step.
    """
    physical = _by_core(available, siblings)
    if quota is not None:
        physical = physical[: max(1, math.ceil(quota))]
    if len(physical) == 1:
        core = physical[0]
        return CorePlan(trainee=core, referee=core, threads=1, single_core=True)
    return CorePlan(
        trainee=sorted(cpu for core in physical[1:] for cpu in core),
        referee=sorted(physical[0]),
        threads=len(physical) - 1,
        single_core=False,
    )


def pin(cores: Sequence[int]) -> None:
    """Pin the calling thread, and the threads that it starts later, to `cores`."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Keep the calling thread on `cores`, and give it back what it had."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    pin(cores)
    try:
        yield
    finally:
        pin(sorted(before))


def _siblings(cpu: int) -> list[int]:
    try:
        text = (_TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return [cpu]
    try:
        return parse_cpu_list(text)
    except ValueError:
        return [cpu]


def parse_cpu_list(text: str) -> list[int]:
    """Return the numbers in the kernel's notation, as in `0,4-6`. Raises ValueError."""
    numbers: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        numbers.extend(range(int(low), int(high or low) + 1))
    return numbers


def cpu_quota(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float | None:
    """Return how many CPUs' time the process's cgroups (v1 or v2) grant, None for no limit."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / ("cpu" if controllers else "")
        # Every ancestor limits; inside a container the path may be the host's, not ours.
        below = Path(path.lstrip("/"))
        for folder in (root / part for part in (below, *below.parents)):
            quotas += _quota_v1(folder) if controllers else _quota_v2(folder)
    return min(quotas, default=None)


def _quota_v2(folder: Path) -> list[float]:
    try:
        quota_us, period_us = (folder / "cpu.max").read_text().split()
        return [] if quota_us == "max" else [int(quota_us) / int(period_us)]
    except (OSError, ValueError):
        return []


def _quota_v1(folder: Path) -> list[float]:
    try:
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        period_us = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return []
    return [quota_us / period_us] if quota_us > 0 else []
