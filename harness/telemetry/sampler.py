"""Samples the trainee and its GPU beside the clock, and sums up the on-clock spans."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.telemetry.gpu_group import GpuGroup
from harness.telemetry.nvml import THROTTLING, GpuMonitor, GpuSample, plausible_energy_j
from harness.telemetry.process_memory import ProcessTreeMemory
from harness.telemetry.rapl import RaplCounter
from harness.telemetry.reading import (
    CpuEnergySource,
    GpuEnergySource,
    GpuMemorySource,
    MemoryScope,
    PeakMemorySource,
    Reading,
    TelemetrySummary,
)

PERIOD_S = 0.05
# NVML's utilisation looks back over its own sampling period: 1/6 s on current GPUs (up to 1 s
# on old ones). Sooner after the clock stopped it still shows the work before.
PAUSE_SETTLE_S = 0.2
BUSY_IN_PAUSE = 0.10
# Processor times advance in steps of 10 ms; over a shorter time their ratio says nothing.
MIN_CPU_WINDOW_S = 0.02
# How long `stop` waits for a reading that hangs in the driver.
JOIN_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EnergyCounters:
    """What the counters showed at one edge of a span; only differences mean anything."""

    gpu_j: float | None = None
    cpu_j: float | None = None


@dataclass(kw_only=True, slots=True)
class WeightedMean:
    """A mean in which each value weighs as many seconds as it stands for."""

    weighted_sum: float = 0.0
    seconds: float = 0.0
    plain_sum: float = 0.0
    values: int = 0

    def add(self, value: float | None, seconds: float) -> None:
        if value is None:
            return
        self.weighted_sum += value * seconds
        self.seconds += seconds
        self.plain_sum += value
        self.values += 1

    def mean(self) -> float | None:
        if self.seconds > 0:
            return self.weighted_sum / self.seconds
        # One value at the start of a span stands for no time, but it is all there is.
        return self.plain_sum / self.values if self.values else None


@dataclass(kw_only=True, slots=True)
class _GpuMemory:
    mean: WeightedMean = field(default_factory=WeightedMean)
    peak_bytes: int | None = None


class SpanAccumulator:
    """Sums readings and counters up over on-clock spans; pure, knows neither time nor threads.

    Readings are kept until their span ends, because one may be stamped after the end: the
    clock stops a moment before the sampler learns of it. A reading stands for the time since
    the one before it, since utilisation and power look back too.
    """

    def __init__(
        self,
        *,
        gpu_run: bool,
        gpus: int = 1,
        judges_pauses: bool = True,
        pause_settle_s: float = PAUSE_SETTLE_S,
    ) -> None:
        self._gpu_run = gpu_run
        self._gpus = gpus
        self._judges_pauses = judges_pauses
        self._pause_settle_s = pause_settle_s
        self._span_start_ns: int | None = None
        self._span_end_ns: int | None = None
        self._span_readings: list[Reading] = []
        self._busy_in_this_pause = False
        self._busy_in_a_pause = False

        self._spans = 0
        self._on_clock_s = 0.0
        self._samples = 0
        self._memory = WeightedMean()
        self._memory_peak_bytes: int | None = None
        self._high_water_bytes: int | None = None
        self._cpu_utilisation = WeightedMean()
        self._gpu_memory: dict[MemoryScope, _GpuMemory] = {
            "process": _GpuMemory(),
            "device": _GpuMemory(),
        }
        self._gpu_utilisation = WeightedMean()
        self._gpu_power_w = WeightedMean()
        self._gpu_sm_clock_mhz = WeightedMean()
        self._gpu_max_temperature_c: int | None = None
        self._gpu_energy_j: float | None = 0.0
        self._gpu_integrated_j: float | None = 0.0
        self._gpu_energy_source: GpuEnergySource = "nvml"
        self._cpu_energy_j: float | None = 0.0
        self._throttle_reasons: set[str] = set()
        self._foreign_pids: set[int] = set()

    @property
    def on_clock(self) -> bool:
        return self._span_start_ns is not None

    def enter(self, wall_ns: int) -> None:
        """Begin a span."""
        assert not self.on_clock, "the clock is running already"
        self._span_start_ns = wall_ns
        # Only now is it certain that the run went on: what a GPU does after a run's last span
        # (the pace measured again, say) is nobody's pause.
        self._busy_in_a_pause |= self._busy_in_this_pause
        self._busy_in_this_pause = False

    def add(self, reading: Reading, foreign_pids: tuple[int, ...] = ()) -> None:
        """Take in one reading, of a span or of a pause."""
        if reading.on_clock:
            self._span_readings.append(reading)
            self._throttle_reasons |= THROTTLING.intersection(reading.gpu_throttle_reasons or ())
            self._foreign_pids.update(foreign_pids)
        elif (
            self._judges_pauses
            and self._span_end_ns is not None
            and (reading.wall_ns - self._span_end_ns) / 1e9 >= self._pause_settle_s
            and reading.gpu_utilisation is not None
            and reading.gpu_utilisation > BUSY_IN_PAUSE
        ):
            self._busy_in_this_pause = True

    def leave(
        self,
        wall_ns: int,
        *,
        before: EnergyCounters,
        after: EnergyCounters,
        high_water_bytes: int | None = None,
    ) -> None:
        """End the span; its last reading has been added already.

        `high_water_bytes` is the kernel's high-water mark of this span, None where unknown.
        """
        assert self._span_start_ns is not None, "the clock is not running"
        start_ns, readings = self._span_start_ns, self._span_readings
        self._span_start_ns, self._span_readings = None, []
        self._span_end_ns = wall_ns
        span_s = (wall_ns - start_ns) / 1e9
        self._spans += 1
        self._on_clock_s += span_s
        self._samples += len(readings)
        self._high_water_bytes = _larger(self._high_water_bytes, high_water_bytes)

        span_power_w = WeightedMean()
        previous_ns = start_ns
        for reading in readings:
            now_ns = min(max(reading.wall_ns, previous_ns), wall_ns)
            seconds = (now_ns - previous_ns) / 1e9
            previous_ns = now_ns
            self._memory.add(reading.memory_bytes, seconds)
            self._memory_peak_bytes = _larger(self._memory_peak_bytes, reading.memory_bytes)
            self._cpu_utilisation.add(reading.cpu_utilisation, seconds)
            if reading.gpu_memory_scope is not None:
                gpu_memory = self._gpu_memory[reading.gpu_memory_scope]
                gpu_memory.mean.add(reading.gpu_memory_bytes, seconds)
                gpu_memory.peak_bytes = _larger(gpu_memory.peak_bytes, reading.gpu_memory_bytes)
            self._gpu_utilisation.add(reading.gpu_utilisation, seconds)
            self._gpu_power_w.add(reading.gpu_power_w, seconds)
            span_power_w.add(reading.gpu_power_w, seconds)
            self._gpu_sm_clock_mhz.add(reading.gpu_sm_clock_mhz, seconds)
            self._gpu_max_temperature_c = _larger(
                self._gpu_max_temperature_c, reading.gpu_temperature_c
            )

        gpu_energy_j = plausible_energy_j(before.gpu_j, after.gpu_j, span_s, self._gpus)
        power_w = span_power_w.mean()
        integrated_j = None if power_w is None else power_w * span_s
        self._gpu_integrated_j = _sum(self._gpu_integrated_j, integrated_j)
        if gpu_energy_j is None:
            gpu_energy_j = integrated_j
            self._gpu_energy_source = "nvml_integrated_power"
        self._gpu_energy_j = _sum(self._gpu_energy_j, gpu_energy_j)
        cpu_energy_j = None
        if before.cpu_j is not None and after.cpu_j is not None:
            cpu_energy_j = after.cpu_j - before.cpu_j
        self._cpu_energy_j = _sum(self._cpu_energy_j, cpu_energy_j)

    def summary(self, idle_bytes: int | None, failures: tuple[str, ...] = ()) -> TelemetrySummary:
        """The figures of all spans that have ended. `idle_bytes` is the idle trainee's memory."""
        peak_source: PeakMemorySource | None = None
        peak_bytes = _larger(self._high_water_bytes, self._memory_peak_bytes)
        if peak_bytes is not None:
            peak_source = "vmhwm" if peak_bytes == self._high_water_bytes else "psutil"
        above_idle_bytes = None
        if peak_bytes is not None and idle_bytes is not None:
            above_idle_bytes = max(peak_bytes - idle_bytes, 0)

        gpu_memory = self._gpu_memory["process"]
        gpu_memory_source: GpuMemorySource | None = "nvml"
        if gpu_memory.peak_bytes is None:
            gpu_memory = self._gpu_memory["device"]
            gpu_memory_source = None if gpu_memory.peak_bytes is None else "nvml_device"

        gpu_energy_j, gpu_energy_source = self._gpu_energy()
        cpu_energy_j = self._cpu_energy_j if self._spans else None
        cpu_energy_source: CpuEnergySource | None = None if cpu_energy_j is None else "rapl"

        intervals = self._samples - self._spans
        return TelemetrySummary(
            peak_memory_bytes=peak_bytes,
            peak_memory_source=peak_source,
            mean_memory_bytes=_rounded(self._memory.mean()),
            peak_memory_above_idle_bytes=above_idle_bytes,
            mean_cpu_utilisation=self._cpu_utilisation.mean(),
            gpu_peak_memory_bytes=gpu_memory.peak_bytes,
            gpu_peak_memory_source=gpu_memory_source,
            gpu_mean_memory_bytes=_rounded(gpu_memory.mean.mean()),
            gpu_mean_utilisation=self._gpu_utilisation.mean(),
            gpu_mean_power_w=self._gpu_power_w.mean(),
            gpu_energy_j=gpu_energy_j,
            gpu_energy_source=gpu_energy_source,
            cpu_energy_j=cpu_energy_j,
            cpu_energy_source=cpu_energy_source,
            energy_j=gpu_energy_j if self._gpu_run else cpu_energy_j,
            energy_source=gpu_energy_source if self._gpu_run else cpu_energy_source,
            gpu_mean_sm_clock_mhz=self._gpu_sm_clock_mhz.mean(),
            gpu_max_temperature_c=self._gpu_max_temperature_c,
            samples=self._samples,
            sampling_hz=intervals / self._on_clock_s
            if intervals > 0 and self._on_clock_s > 0
            else None,
            taints=(*self._taints(), *failures),
        )

    def _gpu_energy(self) -> tuple[float | None, GpuEnergySource | None]:
        if not self._gpu_run or not self._spans:
            return None, None
        energy_j, source = self._gpu_energy_j, self._gpu_energy_source
        # A counter that stands still shows only over the whole run if every span is short.
        if plausible_energy_j(0.0, energy_j, self._on_clock_s, self._gpus) is None:
            energy_j, source = self._gpu_integrated_j, "nvml_integrated_power"
        return energy_j, None if energy_j is None else source

    def _taints(self) -> Iterator[str]:
        if self._throttle_reasons:
            yield f"the GPU was throttled: {', '.join(sorted(self._throttle_reasons))}"
        for pid in sorted(self._foreign_pids):
            yield f"a foreign process used the GPU: pid {pid}"
        if self._busy_in_a_pause:
            yield "the GPU was busy during an evaluation pause"


class Sampler:
    """Reads the trainee (process `pid` and its descendants) every `period_s` from a thread.

    The referee calls `enter_clock` just before its clock resumes and `leave_clock` just after
    it stopped; both read counters and take a reading of their own, so the shortest span has
    two. `sink` gets every reading, from the thread and from the referee's calls: it must be
    thread-safe, and sort by `wall_ns` where order matters. All `wall_ns` are on `clock`.

    With `evaluates_on_gpu` the referee itself keeps the device busy in pauses, and that is not
    held against the trainee.

    Nothing here raises because a measurement failed: the first failure becomes a taint.
    """

    def __init__(
        self,
        pid: int,
        gpu: GpuMonitor | GpuGroup | None,
        rapl: RaplCounter | None,
        sink: Callable[[Reading], None],
        period_s: float = PERIOD_S,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
        evaluates_on_gpu: bool = False,
        pause_settle_s: float = PAUSE_SETTLE_S,
    ) -> None:
        if not period_s > 0:
            raise ValueError(f"Sampler: period_s must be above 0 seconds, not {period_s}")
        self._gpu = gpu
        self._rapl = rapl
        self._sink = sink
        self._period_s = period_s
        self._clock = clock
        self._memory = ProcessTreeMemory(pid)
        self._spans = SpanAccumulator(
            gpu_run=gpu is not None,
            gpus=1 if gpu is None else gpu.count,
            judges_pauses=not evaluates_on_gpu,
            pause_settle_s=pause_settle_s,
        )
        # Guards everything below and the calls into NVML, psutil and RAPL.
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._latest: Reading | None = None
        self._idle_bytes: int | None = None
        self._cpu_anchor: tuple[int, float] | None = None
        self._counters_before = EnergyCounters()
        self._high_water_before: int | None = None
        self._high_water_was_reset = False
        self._failure: str | None = None

    def start(self) -> None:
        """Start the thread; it ends with `stop`, or with the process."""
        assert self._thread is None, "the sampler was started before"
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def set_idle_baseline(self) -> None:
        """Take the tree's present memory as that of an idle trainee."""
        with self._lock, self._surviving():
            self._idle_bytes = self._memory.memory_bytes()

    def enter_clock(self, wall_ns: int) -> None:
        """Begin an on-clock span at `wall_ns`."""
        reading = None
        with self._lock:
            self._counters_before = EnergyCounters()
            self._high_water_before, self._high_water_was_reset = None, False
            with self._surviving():
                self._spans.enter(wall_ns)
            with self._surviving():
                self._high_water_was_reset = self._memory.reset_peak()
                self._high_water_before = self._memory.peak()
                self._cpu_anchor = None
                reading = self._take_reading(wall_ns)
            # Last, so that the cost of the reading is not in the span's energy.
            with self._surviving():
                self._counters_before = self._read_counters()
        self._deliver(reading)

    def leave_clock(self, wall_ns: int) -> None:
        """End the on-clock span at `wall_ns`."""
        with self._lock:
            reading = self._leave(wall_ns)
        self._deliver(reading)

    def latest(self) -> Reading | None:
        """The newest reading; never waits for one in progress."""
        return self._latest

    def stop(self) -> TelemetrySummary:
        """End the thread, close a span still open (the trainee died, say), and sum up."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(JOIN_TIMEOUT_S)
            if self._thread.is_alive():
                # It holds the lock; the spans that have ended are not its concern.
                return self._spans.summary(
                    self._idle_bytes, ("telemetry failed: a reading did not come back",)
                )
        reading = None
        with self._lock:
            if self._spans.on_clock:
                reading = self._leave(self._clock())
        self._deliver(reading)
        with self._lock:
            failures = () if self._failure is None else (self._failure,)
            return self._spans.summary(self._idle_bytes, failures)

    def _run(self) -> None:
        while not self._stopping.is_set():
            reading = None
            with self._lock, self._surviving():
                reading = self._take_reading(self._clock())
                # Unread for long, RAPL's counters wrap around unnoticed.
                if self._rapl is not None:
                    self._rapl.energy_j()
            self._deliver(reading)
            self._stopping.wait(self._period_s)

    def _leave(self, wall_ns: int) -> Reading | None:
        counters_after = EnergyCounters()
        high_water_bytes = None
        reading = None
        with self._surviving():
            counters_after = self._read_counters()
        with self._surviving():
            high_water_bytes = self._high_water_of_span()
            reading = self._take_reading(wall_ns)
        with self._surviving():
            self._spans.leave(
                wall_ns,
                before=self._counters_before,
                after=counters_after,
                high_water_bytes=high_water_bytes,
            )
        return reading

    def _high_water_of_span(self) -> int | None:
        peak_bytes = self._memory.peak()
        if self._high_water_was_reset or peak_bytes is None:
            return peak_bytes
        # Without a reset the mark may be from before the span, unless it rose within.
        before = self._high_water_before
        return peak_bytes if before is not None and peak_bytes > before else None

    def _read_counters(self) -> EnergyCounters:
        return EnergyCounters(
            gpu_j=None if self._gpu is None else self._gpu.energy_counter_j(),
            cpu_j=None if self._rapl is None else self._rapl.energy_j(),
        )

    def _take_reading(self, wall_ns: int) -> Reading:
        gpu: GpuSample | None = None
        if self._gpu is not None:
            gpu = self._gpu.sample(self._memory.pids(), (os.getpid(),))
        foreign_pids = None if gpu is None else gpu.foreign_pids
        reading = Reading(
            wall_ns=wall_ns,
            on_clock=self._spans.on_clock,
            memory_bytes=self._memory.memory_bytes(),
            cpu_utilisation=self._cpu_utilisation(),
            gpu_memory_bytes=None if gpu is None else gpu.memory_bytes,
            gpu_memory_scope=None if gpu is None else gpu.memory_scope,
            gpu_utilisation=None if gpu is None else gpu.utilisation,
            gpu_power_w=None if gpu is None else gpu.power_w,
            gpu_sm_clock_mhz=None if gpu is None else gpu.sm_clock_mhz,
            gpu_temperature_c=None if gpu is None else gpu.temperature_c,
            gpu_throttle_reasons=None if gpu is None else gpu.throttle_reasons,
            foreign_gpu_processes=None if foreign_pids is None else len(foreign_pids),
        )
        self._spans.add(reading, foreign_pids or ())
        self._latest = reading
        return reading

    def _cpu_utilisation(self) -> float | None:
        now_ns, cpu_seconds = self._clock(), self._memory.cpu_seconds()
        if cpu_seconds is None:
            return None
        if self._cpu_anchor is None:
            self._cpu_anchor = now_ns, cpu_seconds
            return None
        then_ns, then_cpu_seconds = self._cpu_anchor
        elapsed_s = (now_ns - then_ns) / 1e9
        if elapsed_s < MIN_CPU_WINDOW_S:
            return None
        self._cpu_anchor = now_ns, cpu_seconds
        return (cpu_seconds - then_cpu_seconds) / elapsed_s

    def _deliver(self, reading: Reading | None) -> None:
        # Outside the lock: a sink may ask for `latest`, or hold a lock of its own.
        if reading is not None:
            with self._surviving():
                self._sink(reading)

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  (no failure of telemetry may end a run)
            if self._failure is None:
                self._failure = f"telemetry failed: {type(error).__name__}: {error}"


def _larger(a: int | None, b: int | None) -> int | None:
    if a is None or b is None:
        return a if b is None else b
    return max(a, b)


def _sum(total: float | None, part: float | None) -> float | None:
    # One unknown part makes the whole unknown: a sum of the rest would flatter.
    return None if total is None or part is None else total + part


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)
