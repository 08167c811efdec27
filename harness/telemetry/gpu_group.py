"""Several GPUs read as one: those of a run that trains in several processes."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from harness.telemetry.nvml import GpuMonitor, GpuSample
from harness.telemetry.reading import MemoryScope

T = TypeVar("T", int, float)
W = TypeVar("W")


class GpuGroup:
    """Reads some GPUs. Not thread-safe, as a `GpuMonitor`.

    Memory, power and energy are sums, utilisation is the mean, the lowest clock counts and the
    highest temperature. A figure that one of them lacks is None, but for memory: a GPU without a
    process of ours adds nothing.
    """

    def __init__(self, monitors: Sequence[GpuMonitor]) -> None:
        self._monitors = monitors
        self.count = len(monitors)

    def close(self) -> None:
        """Hand NVML back."""
        for monitor in self._monitors:
            monitor.close()

    def energy_counter_j(self) -> float | None:
        """Return the sum of the counters; only differences mean anything."""
        return _of_all(sum, [monitor.energy_counter_j() for monitor in self._monitors])

    def sample(
        self, trainee_pids: Collection[int], referee_pids: Collection[int] = ()
    ) -> GpuSample:
        """Read every GPU once, one after the other."""
        samples = [monitor.sample(trainee_pids, referee_pids) for monitor in self._monitors]
        memory_bytes, memory_scope = _memory(samples)
        utilisation = _of_all(sum, [s.utilisation for s in samples])
        return GpuSample(
            memory_bytes=memory_bytes,
            memory_scope=memory_scope,
            utilisation=None if utilisation is None else utilisation / self.count,
            power_w=_of_all(sum, [s.power_w for s in samples]),
            sm_clock_mhz=_of_all(min, [s.sm_clock_mhz for s in samples]),
            temperature_c=_of_all(max, [s.temperature_c for s in samples]),
            throttle_reasons=_union(s.throttle_reasons for s in samples),
            foreign_pids=_union(s.foreign_pids for s in samples),
        )


def _memory(samples: Sequence[GpuSample]) -> tuple[int | None, MemoryScope | None]:
    known = [(s.memory_bytes, s.memory_scope) for s in samples if s.memory_bytes is not None]
    if not known:
        return None, None
    scope: MemoryScope = "device" if any(scope == "device" for _, scope in known) else "process"
    return sum(size for size, _ in known), scope


def _of_all(combine: Callable[[Iterable[T]], T], figures: Sequence[T | None]) -> T | None:
    known = [figure for figure in figures if figure is not None]
    return combine(known) if len(known) == len(figures) else None


def _union(parts: Iterable[tuple[W, ...] | None]) -> tuple[W, ...] | None:
    """Return what any of them names, once; None where none could be asked."""
    told = [part for part in parts if part is not None]
    return tuple(dict.fromkeys(one for part in told for one in part)) if told else None
