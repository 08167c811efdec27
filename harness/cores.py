"""Which CPU cores the trainee and the referee get: never the same ones if there are two."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class CorePlan:
    """Logical CPU numbers; empty lists where the platform cannot pin (macOS)."""

    trainee: list[int]
    referee: list[int]
    threads: int  # one a physical core of the trainee's
    single_core: bool


def plan_cores() -> CorePlan:
    """Give the referee the first physical core and the trainee all others."""
    if not hasattr(os, "sched_getaffinity"):
        count = os.cpu_count() or 1
        return CorePlan(trainee=[], referee=[], threads=max(1, count - 1), single_core=count == 1)
    available = sorted(os.sched_getaffinity(0))
    return split_cores(available, {cpu: _siblings(cpu) for cpu in available})


def split_cores(available: Sequence[int], siblings: Mapping[int, Sequence[int]]) -> CorePlan:
    """Split `available` CPUs by physical core; hyperthreads of one core stay together."""
    physical: list[list[int]] = []
    placed: set[int] = set()
    for cpu in available:
        if cpu not in placed:
            core = [sibling for sibling in siblings[cpu] if sibling in available] or [cpu]
            physical.append(core)
            placed.update(core)
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


def _siblings(cpu: int) -> list[int]:
    try:
        text = (_TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return [cpu]
    numbers: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        numbers.extend(range(int(low), int(high or low) + 1))
    return numbers
