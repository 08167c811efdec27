import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness.telemetry
from harness.telemetry.nvml import GpuMonitor
from harness.telemetry.rapl import RaplCounter
from harness.telemetry.reading import Reading, TelemetrySummary
from harness.telemetry.sampler import EnergyCounters, Sampler, SpanAccumulator
from tests.telemetry.nvml_double import Device, NvmlDouble, Process, error, mig_instance

SECOND = 10**9
NO_COUNTERS = EnergyCounters()
BUSY = "the GPU was busy during an evaluation pause"


def on(seconds: float, **fields: object) -> Reading:
    return Reading(wall_ns=round(seconds * SECOND), on_clock=True, **fields)  # type: ignore[arg-type]


def off(seconds: float, **fields: object) -> Reading:
    return Reading(wall_ns=round(seconds * SECOND), on_clock=False, **fields)  # type: ignore[arg-type]


def add_span(
    spans: SpanAccumulator,
    *readings: Reading,
    until: float | None = None,
    before: EnergyCounters = NO_COUNTERS,
    after: EnergyCounters = NO_COUNTERS,
    high_water_bytes: int | None = None,
) -> None:
    """One span from the first reading's time to the last one's, or to `until` seconds."""
    spans.enter(readings[0].wall_ns)
    for reading in readings:
        spans.add(reading)
    end_ns = readings[-1].wall_ns if until is None else round(until * SECOND)
    spans.leave(end_ns, before=before, after=after, high_water_bytes=high_water_bytes)


def summary_of(*readings: Reading, gpu_run: bool = True) -> TelemetrySummary:
    spans = SpanAccumulator(gpu_run=gpu_run)
    add_span(spans, *readings)
    return spans.summary(None)


# --- the accumulator: times and readings are given, figures derived by hand ---


def test_nothing_measured_is_none_everywhere() -> None:
    summary = SpanAccumulator(gpu_run=True).summary(None)
    assert summary == TelemetrySummary(samples=0)


def test_means_are_weighted_by_time() -> None:
    summary = summary_of(
        on(0.0, memory_bytes=999, gpu_utilisation=0.0),
        on(1.0, memory_bytes=100, gpu_utilisation=0.5),
        on(4.0, memory_bytes=500, gpu_utilisation=1.0),
    )
    # The reading at 1 s stands for one second, the one at 4 s for three, the first for none.
    assert summary.mean_memory_bytes == 400  # (100·1 + 500·3) ÷ 4
    assert summary.gpu_mean_utilisation == pytest.approx(0.875)
    assert summary.peak_memory_bytes == 999


def test_pauses_weigh_nothing() -> None:
    spans = SpanAccumulator(gpu_run=False)
    add_span(spans, on(0.0, memory_bytes=0), on(1.0, memory_bytes=100))
    spans.add(off(5.0, memory_bytes=10**9))
    add_span(spans, on(100.0, memory_bytes=10), on(101.0, memory_bytes=300))
    summary = spans.summary(None)
    assert summary.mean_memory_bytes == 200
    assert summary.peak_memory_bytes == 300
    assert summary.samples == 4
    assert summary.sampling_hz == 1.0  # two intervals in two seconds


def test_a_gap_in_a_figure_is_not_a_zero() -> None:
    summary = summary_of(
        on(0.0), on(1.0, gpu_power_w=100.0), on(2.0), on(3.0, gpu_power_w=200.0), on(4.0)
    )
    assert summary.gpu_mean_power_w == 150.0
    # What was not measured is taken to be as what was: 150 W over all 4 s.
    assert summary.gpu_energy_j == 600.0


def test_a_figure_known_at_the_start_only() -> None:
    assert summary_of(on(0.0, gpu_sm_clock_mhz=1500), on(1.0)).gpu_mean_sm_clock_mhz == 1500


def test_a_span_without_duration() -> None:
    summary = summary_of(on(2.0, memory_bytes=100), on(2.0, memory_bytes=300))
    assert summary.mean_memory_bytes == 200
    assert summary.samples == 2
    assert summary.sampling_hz is None


def test_readings_stamped_after_the_end_weigh_until_the_end() -> None:
    spans = SpanAccumulator(gpu_run=False)
    late = on(3.0, memory_bytes=400)
    add_span(spans, on(0.0), on(1.0, memory_bytes=100), late, on(2.0, memory_bytes=10**6), until=2)
    summary = spans.summary(None)
    assert summary.mean_memory_bytes == 250  # 100 for the first second, 400 for the second


def test_cpu_utilisation() -> None:
    summary = summary_of(
        on(0.0), on(1.0, cpu_utilisation=3.0), on(2.0, cpu_utilisation=1.0), gpu_run=False
    )
    assert summary.mean_cpu_utilisation == 2.0


def test_hottest_reading() -> None:
    summary = summary_of(*(on(t, gpu_temperature_c=c) for t, c in enumerate([60, 71, 65])))
    assert summary.gpu_max_temperature_c == 71


@given(
    values=st.lists(st.integers(0, 10**12), min_size=2, max_size=20),
    gaps=st.lists(st.integers(1, 10**9), min_size=20, max_size=20),
)
def test_a_mean_lies_between_the_extremes(values: list[int], gaps: list[int]) -> None:
    times = [sum(gaps[:position]) for position in range(len(values))]
    readings = [
        Reading(wall_ns=time_ns, on_clock=True, memory_bytes=value)
        for time_ns, value in zip(times, values, strict=True)
    ]
    summary = summary_of(*readings)
    assert summary.mean_memory_bytes is not None
    assert min(values[1:]) - 1 <= summary.mean_memory_bytes <= max(values[1:]) + 1
    assert summary.peak_memory_bytes == max(values)


@given(cut=st.integers(1, 9))
def test_cutting_a_span_in_two_changes_no_energy(cut: int) -> None:
    readings = [on(t, gpu_power_w=100.0 + 10 * t) for t in range(11)]
    spans = SpanAccumulator(gpu_run=True)
    add_span(spans, *readings[: cut + 1])
    add_span(spans, *readings[cut:])
    assert spans.summary(None).gpu_energy_j == pytest.approx(summary_of(*readings).gpu_energy_j)


# --- memory ---


def test_high_water_mark_beats_samples() -> None:
    spans = SpanAccumulator(gpu_run=False)
    add_span(spans, on(0.0, memory_bytes=100), on(1.0, memory_bytes=200), high_water_bytes=900)
    add_span(spans, on(2.0, memory_bytes=100), on(3.0, memory_bytes=200), high_water_bytes=500)
    summary = spans.summary(idle_bytes=150)
    assert (summary.peak_memory_bytes, summary.peak_memory_source) == (900, "vmhwm")
    assert summary.peak_memory_above_idle_bytes == 750


def test_a_tree_larger_than_its_root_beats_the_high_water_mark() -> None:
    spans = SpanAccumulator(gpu_run=False)
    add_span(spans, on(0.0, memory_bytes=100), on(1.0, memory_bytes=2000), high_water_bytes=900)
    summary = spans.summary(None)
    assert (summary.peak_memory_bytes, summary.peak_memory_source) == (2000, "psutil")
    assert summary.peak_memory_above_idle_bytes is None


def test_memory_above_idle_is_never_negative() -> None:
    spans = SpanAccumulator(gpu_run=False)
    add_span(spans, on(0.0, memory_bytes=100), on(1.0, memory_bytes=90))
    assert spans.summary(idle_bytes=500).peak_memory_above_idle_bytes == 0


def test_gpu_memory_of_the_process() -> None:
    summary = summary_of(
        on(0.0, gpu_memory_bytes=9_000, gpu_memory_scope="device"),
        on(1.0, gpu_memory_bytes=100, gpu_memory_scope="process"),
        on(2.0, gpu_memory_bytes=300, gpu_memory_scope="process"),
    )
    # Before its context exists only the device's memory is known; the two don't mix.
    assert (summary.gpu_peak_memory_bytes, summary.gpu_peak_memory_source) == (300, "nvml")
    assert summary.gpu_mean_memory_bytes == 200


def test_gpu_memory_of_the_device_is_marked() -> None:
    summary = summary_of(
        on(0.0, gpu_memory_bytes=9_000, gpu_memory_scope="device"),
        on(1.0, gpu_memory_bytes=7_000, gpu_memory_scope="device"),
    )
    assert (summary.gpu_peak_memory_bytes, summary.gpu_peak_memory_source) == (9000, "nvml_device")
    assert summary.gpu_mean_memory_bytes == 7_000


# --- energy ---


def gpu_span(
    spans: SpanAccumulator,
    start: float,
    seconds: float,
    counter_j: tuple[float | None, float | None],
    power_w: float | None,
) -> None:
    add_span(
        spans,
        on(start, gpu_power_w=power_w),
        on(start + seconds, gpu_power_w=power_w),
        before=EnergyCounters(gpu_j=counter_j[0]),
        after=EnergyCounters(gpu_j=counter_j[1]),
    )


def test_energy_from_the_counter() -> None:
    spans = SpanAccumulator(gpu_run=True)
    gpu_span(spans, 0.0, 2.0, (1000.0, 1500.0), power_w=999.0)
    gpu_span(spans, 10.0, 1.0, (2500.0, 2800.0), power_w=999.0)  # the pause took 1000 J
    summary = spans.summary(None)
    assert (summary.gpu_energy_j, summary.gpu_energy_source) == (800.0, "nvml")
    assert (summary.energy_j, summary.energy_source) == (800.0, "nvml")


def test_energy_integrated_where_there_is_no_counter() -> None:
    summary = summary_of(
        on(0.0, gpu_power_w=50.0), on(1.0, gpu_power_w=200.0), on(3.0, gpu_power_w=300.0)
    )
    assert summary.gpu_energy_j == 800.0  # 200 W · 1 s + 300 W · 2 s
    assert summary.gpu_energy_source == "nvml_integrated_power"
    assert summary.gpu_mean_power_w == pytest.approx(800 / 3)


@pytest.mark.parametrize(
    "counter_j", [(5000.0, 100.0), (0.0, 50_000.0), (0.0, None)], ids=["back", "jump", "gone"]
)
def test_an_impossible_counter_is_replaced_for_its_span(
    counter_j: tuple[float | None, float | None],
) -> None:
    spans = SpanAccumulator(gpu_run=True)
    gpu_span(spans, 0.0, 2.0, (1000.0, 1500.0), power_w=100.0)
    gpu_span(spans, 5.0, 3.0, counter_j, power_w=100.0)
    summary = spans.summary(None)
    assert summary.gpu_energy_j == 800.0  # 500 J counted, then 100 W · 3 s
    assert summary.gpu_energy_source == "nvml_integrated_power"


def test_an_impossible_counter_without_power_leaves_nothing() -> None:
    spans = SpanAccumulator(gpu_run=True)
    gpu_span(spans, 0.0, 2.0, (1000.0, 1500.0), power_w=None)
    gpu_span(spans, 5.0, 3.0, (5000.0, 100.0), power_w=None)
    summary = spans.summary(None)
    assert (summary.gpu_energy_j, summary.gpu_energy_source) == (None, None)
    assert (summary.energy_j, summary.energy_source) == (None, None)


def test_a_counter_that_stands_still_in_many_short_spans() -> None:
    spans = SpanAccumulator(gpu_run=True)
    for start in range(4):
        gpu_span(spans, start, 0.5, (70.0, 70.0), power_w=100.0)
    summary = spans.summary(None)
    assert (summary.gpu_energy_j, summary.gpu_energy_source) == (200.0, "nvml_integrated_power")


def test_energy_of_a_run_without_a_gpu_is_the_packages() -> None:
    spans = SpanAccumulator(gpu_run=False)
    add_span(
        spans,
        on(0.0),
        on(1.0),
        before=EnergyCounters(cpu_j=10.0),
        after=EnergyCounters(cpu_j=52.5),
    )
    summary = spans.summary(None)
    assert (summary.cpu_energy_j, summary.cpu_energy_source) == (42.5, "rapl")
    assert (summary.energy_j, summary.energy_source) == (42.5, "rapl")
    assert (summary.gpu_energy_j, summary.gpu_energy_source) == (None, None)


def test_energy_of_a_run_with_a_gpu_is_the_gpus_alone() -> None:
    spans = SpanAccumulator(gpu_run=True)
    add_span(
        spans,
        on(0.0),
        on(1.0),
        before=EnergyCounters(cpu_j=10.0, gpu_j=0.0),
        after=EnergyCounters(cpu_j=52.5, gpu_j=300.0),
    )
    summary = spans.summary(None)
    assert (summary.energy_j, summary.energy_source) == (300.0, "nvml")
    assert summary.cpu_energy_j == 42.5


def test_one_span_of_unknown_energy_makes_the_sum_unknown() -> None:
    spans = SpanAccumulator(gpu_run=False)
    known = EnergyCounters(cpu_j=10.0), EnergyCounters(cpu_j=20.0)
    add_span(spans, on(0.0), on(1.0), before=known[0], after=known[1])
    add_span(spans, on(2.0), on(3.0), before=known[1], after=NO_COUNTERS)
    summary = spans.summary(None)
    assert (summary.cpu_energy_j, summary.cpu_energy_source) == (None, None)
    assert (summary.energy_j, summary.energy_source) == (None, None)


# --- taints ---


def test_throttling_taints() -> None:
    summary = summary_of(
        on(0.0, gpu_throttle_reasons=("gpu_idle",)),
        on(1.0, gpu_throttle_reasons=("sw_power_cap", "sw_thermal_slowdown")),
        on(2.0, gpu_throttle_reasons=("hw_slowdown", "sw_thermal_slowdown")),
    )
    assert summary.taints == ("the GPU was throttled: hw_slowdown, sw_thermal_slowdown",)


def test_a_capped_or_idle_gpu_is_not_throttled() -> None:
    harmless = ("gpu_idle", "applications_clocks_setting", "sw_power_cap", "sync_boost")
    summary = summary_of(on(0.0, gpu_throttle_reasons=harmless), on(1.0, gpu_throttle_reasons=None))
    assert summary.taints == ()


def test_throttling_in_a_pause_is_nobodys_loss() -> None:
    spans = SpanAccumulator(gpu_run=True)
    add_span(spans, on(0.0), on(1.0))
    spans.add(off(1.5, gpu_throttle_reasons=("hw_slowdown",)), foreign_pids=(5,))
    add_span(spans, on(2.0), on(3.0))
    assert spans.summary(None).taints == ()


def test_each_foreign_process_taints_once() -> None:
    spans = SpanAccumulator(gpu_run=True)
    spans.enter(0)
    spans.add(on(0.0), foreign_pids=(123,))
    spans.add(on(1.0), foreign_pids=(7, 123))
    spans.leave(SECOND, before=NO_COUNTERS, after=NO_COUNTERS)
    assert spans.summary(None).taints == (
        "a foreign process used the GPU: pid 7",
        "a foreign process used the GPU: pid 123",
    )


@pytest.mark.parametrize(
    ("paused_s", "utilisation", "busy"),
    [
        (0.1, 1.0, False),  # NVML still looks back at the span
        (0.2, 1.0, True),
        (0.9, 0.11, True),
        (0.9, 0.10, False),
        (0.9, None, False),
    ],
)
def test_gpu_busy_in_a_pause(paused_s: float, utilisation: float | None, busy: bool) -> None:
    spans = SpanAccumulator(gpu_run=True)
    spans.add(off(0.0, gpu_utilisation=1.0))  # before the first span: no pause
    add_span(spans, on(1.0), on(2.0))
    spans.add(off(2.0 + paused_s, gpu_utilisation=utilisation))
    add_span(spans, on(3.0), on(4.0))
    assert spans.summary(None).taints == ((BUSY,) if busy else ())


def test_after_the_last_span_the_gpu_may_be_busy() -> None:
    spans = SpanAccumulator(gpu_run=True)
    add_span(spans, on(1.0), on(2.0))
    spans.add(off(3.0, gpu_utilisation=1.0))
    assert spans.summary(None).taints == ()


def test_a_referee_that_evaluates_on_the_gpu_may_keep_it_busy() -> None:
    spans = SpanAccumulator(gpu_run=True, judges_pauses=False)
    add_span(spans, on(1.0), on(2.0))
    spans.add(off(3.0, gpu_utilisation=1.0))
    add_span(spans, on(4.0), on(5.0))
    assert spans.summary(None).taints == ()


# --- the sampler, its thread not started: the edges alone ---


class Clock:
    """A clock that tests set, in nanoseconds."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def test_the_edges_of_a_span_are_readings() -> None:
    device = Device(processes=[Process(pid=os.getpid(), usedGpuMemory=4_000)])
    readings: list[Reading] = []
    sampler = Sampler(os.getpid(), GpuMonitor(NvmlDouble(device), 0), None, readings.append)
    assert sampler.latest() is None
    sampler.set_idle_baseline()
    sampler.enter_clock(SECOND)
    device.energy_mj = 5_000_300  # 0.3 J more
    sampler.leave_clock(SECOND + SECOND // 1000)
    assert [(reading.wall_ns, reading.on_clock) for reading in readings] == [
        (SECOND, True),
        (SECOND + SECOND // 1000, True),
    ]
    assert sampler.latest() is readings[-1]
    assert readings[-1].gpu_memory_bytes == 4_000
    assert readings[-1].foreign_gpu_processes == 0
    summary = sampler.stop()
    assert summary.samples == 2
    assert summary.gpu_energy_j == pytest.approx(0.3)
    assert summary.gpu_energy_source == "nvml"
    assert summary.gpu_peak_memory_bytes == 4_000
    assert summary.gpu_mean_utilisation == 0.75
    assert summary.peak_memory_bytes is not None
    assert summary.peak_memory_above_idle_bytes is not None
    assert summary.peak_memory_bytes > summary.peak_memory_above_idle_bytes
    assert summary.taints == ()


def test_energy_of_pauses_is_left_out() -> None:
    device = Device(energy_mj=0)
    sampler = Sampler(os.getpid(), GpuMonitor(NvmlDouble(device), 0), None, lambda _: None)
    sampler.enter_clock(0)
    device.energy_mj = 100_000
    sampler.leave_clock(SECOND)
    device.energy_mj = 900_000
    sampler.enter_clock(9 * SECOND)
    device.energy_mj = 1_050_000
    sampler.leave_clock(10 * SECOND)
    assert sampler.stop().gpu_energy_j == 250.0


def test_mig_run_has_memory_and_no_energy() -> None:
    device = mig_instance(processes=[Process(pid=os.getpid(), usedGpuMemory=4_000)])
    sampler = Sampler(os.getpid(), GpuMonitor(NvmlDouble(device), "77aa"), None, lambda _: None)
    sampler.enter_clock(0)
    sampler.leave_clock(SECOND)
    summary = sampler.stop()
    assert summary.gpu_peak_memory_bytes == 4_000
    assert (summary.energy_j, summary.energy_source) == (None, None)
    assert summary.gpu_mean_power_w is None
    assert summary.taints == ()


def test_rapl_joins_the_summary(tmp_path: Path) -> None:
    domain = tmp_path / "intel-rapl:0"
    domain.mkdir()
    (domain / "name").write_text("package-0\n")
    (domain / "max_energy_range_uj").write_text("262143328850\n")
    (domain / "energy_uj").write_text("1000000\n")
    clock = Clock()
    sampler = Sampler(os.getpid(), None, RaplCounter(tmp_path, clock), lambda _: None, clock=clock)
    sampler.enter_clock(0)
    clock.now_ns = SECOND
    (domain / "energy_uj").write_text("31000000\n")
    sampler.leave_clock(SECOND)
    summary = sampler.stop()
    assert (summary.energy_j, summary.energy_source) == (30.0, "rapl")


def test_without_gpu_and_rapl_there_is_no_energy() -> None:
    sampler = Sampler(os.getpid(), None, None, lambda _: None)
    sampler.enter_clock(0)
    sampler.leave_clock(SECOND)
    summary = sampler.stop()
    assert (summary.energy_j, summary.energy_source) == (None, None)
    assert summary.mean_memory_bytes is not None


def test_an_open_span_is_closed_at_the_end() -> None:
    clock = Clock()
    sampler = Sampler(os.getpid(), None, None, lambda _: None, clock=clock)
    sampler.enter_clock(0)
    clock.now_ns = SECOND
    first, second = sampler.stop(), sampler.stop()
    assert first.samples == 2
    assert first.sampling_hz == 1.0
    assert second == first


def test_cpu_utilisation_needs_a_window() -> None:
    clock = Clock()
    readings: list[Reading] = []
    sampler = Sampler(os.getpid(), None, None, readings.append, clock=clock)
    sampler.enter_clock(0)
    clock.now_ns = SECOND // 1000
    sampler.leave_clock(clock.now_ns)
    sampler.enter_clock(SECOND)
    clock.now_ns = 3600 * SECOND
    sampler.leave_clock(clock.now_ns)
    utilisations = [reading.cpu_utilisation for reading in readings]
    assert utilisations[:3] == [None, None, None]
    assert utilisations[3] is not None
    assert 0.0 <= utilisations[3] < 1.0


@pytest.mark.parametrize("before_the_span", [True, False])
def test_an_old_high_water_mark_that_cannot_be_reset_is_not_the_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_the_span: bool
) -> None:
    status = tmp_path / "status"

    def set_high_water(gibibytes: int) -> None:
        status.write_text(f"VmHWM:\t{gibibytes * 2**20} kB\n")

    sampler = Sampler(os.getpid(), None, None, lambda _: None)
    monkeypatch.setattr(sampler._memory, "_status_file", status)
    monkeypatch.setattr(sampler._memory, "_clear_refs_file", tmp_path / "missing" / "clear_refs")
    set_high_water(500)
    sampler.enter_clock(0)
    if not before_the_span:
        set_high_water(900)
    sampler.leave_clock(SECOND)
    summary = sampler.stop()
    assert summary.peak_memory_source == ("psutil" if before_the_span else "vmhwm")
    if not before_the_span:
        assert summary.peak_memory_bytes == 900 * 2**30


def test_a_dead_trainee_leaves_gaps() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    sampler = Sampler(child.pid, None, None, lambda _: None)
    sampler.enter_clock(0)
    child.kill()
    child.communicate()
    sampler.leave_clock(SECOND)
    summary = sampler.stop()
    assert summary.samples == 2
    assert summary.peak_memory_bytes is not None
    assert summary.taints == ()


def test_a_high_water_mark_that_was_reset_counts_without_rising(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "status").write_text(f"VmHWM:\t{700 * 2**20} kB\n")
    sampler = Sampler(os.getpid(), None, None, lambda _: None)
    monkeypatch.setattr(sampler._memory, "_status_file", tmp_path / "status")
    monkeypatch.setattr(sampler._memory, "_clear_refs_file", tmp_path / "clear_refs")
    sampler.enter_clock(0)
    sampler.leave_clock(SECOND)
    summary = sampler.stop()
    assert (summary.peak_memory_bytes, summary.peak_memory_source) == (700 * 2**30, "vmhwm")
    assert (tmp_path / "clear_refs").read_text() == "5"


def test_the_referee_is_no_stranger_on_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    trainee_pid = os.getppid()
    device = Device(
        processes=[
            Process(pid=trainee_pid, usedGpuMemory=4_000),
            Process(pid=os.getpid(), usedGpuMemory=1_000_000),
        ]
    )
    sampler = Sampler(trainee_pid, GpuMonitor(NvmlDouble(device), 0), None, lambda _: None)
    # This process descends from the stand-in for the trainee; a referee does not.
    monkeypatch.setattr(sampler._memory, "pids", lambda: frozenset({trainee_pid}))
    sampler.enter_clock(0)
    sampler.leave_clock(SECOND)
    summary = sampler.stop()
    assert summary.gpu_peak_memory_bytes == 4_000
    assert summary.taints == ()


def test_cpu_utilisation_of_a_span_does_not_reach_back_into_the_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    cpu_seconds = 0.0
    sampler = Sampler(os.getpid(), None, None, lambda _: None, clock=clock)
    monkeypatch.setattr(sampler._memory, "cpu_seconds", lambda: cpu_seconds)
    sampler.enter_clock(0)
    clock.now_ns, cpu_seconds = 2 * SECOND, 6.0
    sampler.leave_clock(clock.now_ns)
    clock.now_ns += SECOND // 100
    sampler.enter_clock(clock.now_ns)
    clock.now_ns, cpu_seconds = clock.now_ns + 2 * SECOND, 8.0
    sampler.leave_clock(clock.now_ns)
    # 3 cores busy for 2 s, then 1 core for 2 s; the pause of 10 ms is in neither.
    assert sampler.stop().mean_cpu_utilisation == pytest.approx(2.0)


# --- failures ---


def test_a_failing_reading_taints_and_ends_nothing() -> None:
    device = Device(power_mw=ZeroDivisionError("no such thing"))
    sampler = Sampler(os.getpid(), GpuMonitor(NvmlDouble(device), 0), None, lambda _: None)
    sampler.enter_clock(0)
    device.power_mw = 100_000
    device.energy_mj = 5_100_000
    sampler.leave_clock(SECOND)
    summary = sampler.stop()
    assert summary.taints == ("telemetry failed: ZeroDivisionError: no such thing",)
    assert summary.samples == 1
    assert summary.gpu_energy_j == 100.0


def test_a_failing_sink_taints_and_ends_nothing() -> None:
    def sink(reading: Reading) -> None:
        raise OSError("disk full")

    sampler = Sampler(os.getpid(), None, None, sink)
    sampler.enter_clock(0)
    sampler.leave_clock(SECOND)
    summary = sampler.stop()
    assert summary.samples == 2
    assert summary.taints == ("telemetry failed: OSError: disk full",)


def test_a_misused_clock_is_told_and_ends_nothing() -> None:
    sampler = Sampler(os.getpid(), None, None, lambda _: None)
    sampler.leave_clock(0)
    (taint,) = sampler.stop().taints
    assert taint == "telemetry failed: AssertionError: the clock is not running"


def test_a_nonsensical_period_is_refused() -> None:
    with pytest.raises(ValueError, match="period_s must be above 0 seconds, not 0"):
        Sampler(os.getpid(), None, None, lambda _: None, 0)


# --- the thread ---


def test_samples_at_ten_hertz_or_more() -> None:
    readings: list[Reading] = []
    sampler = Sampler(os.getpid(), None, None, readings.append)
    sampler.start()
    sampler.enter_clock(time.perf_counter_ns())
    cpu_before_s = time.process_time()
    time.sleep(1.0)
    # Of all threads: one that waited busily would use the whole second.
    assert time.process_time() - cpu_before_s < 0.5
    sampler.leave_clock(time.perf_counter_ns())
    summary = sampler.stop()
    assert summary.taints == ()
    assert summary.samples >= 10
    assert summary.sampling_hz is not None
    assert summary.sampling_hz < 25
    assert sum(reading.on_clock for reading in readings) == summary.samples


def test_the_thread_goes_on_after_a_failure_and_ends_with_stop() -> None:
    third = threading.Event()
    calls = 0

    def sink(reading: Reading) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            third.set()
        raise RuntimeError(f"call {calls}")

    sampler = Sampler(os.getpid(), None, None, sink, period_s=0.001)
    sampler.start()
    assert third.wait(30)
    summary = sampler.stop()
    assert summary.taints == ("telemetry failed: RuntimeError: call 1",)
    assert "telemetry" not in {thread.name for thread in threading.enumerate()}


def test_the_thread_survives_a_failing_reading() -> None:
    sampled = threading.Event()
    device = Device(power_mw=ZeroDivisionError())
    nvml = NvmlDouble(device)
    sampler = Sampler(
        os.getpid(), GpuMonitor(nvml, 0), None, lambda _: sampled.set(), period_s=0.001
    )
    sampler.start()
    until = time.monotonic() + 30
    while nvml.calls["power"] < 2 and time.monotonic() < until:
        time.sleep(0.001)
    assert not sampled.is_set()
    device.power_mw = 100_000
    assert sampled.wait(30)
    (taint,) = sampler.stop().taints
    assert taint.startswith("telemetry failed: ZeroDivisionError")


def test_readings_of_pauses_are_marked() -> None:
    sampled = threading.Event()
    readings: list[Reading] = []

    def sink(reading: Reading) -> None:
        readings.append(reading)
        sampled.set()

    sampler = Sampler(os.getpid(), None, None, sink, period_s=0.001)
    sampler.start()
    assert sampled.wait(30)
    summary = sampler.stop()
    assert not readings[0].on_clock
    assert summary.samples == 0
    assert summary.peak_memory_bytes is None


def test_a_sink_may_ask_for_the_latest_reading() -> None:
    seen: list[Reading | None] = []
    sampler = Sampler(os.getpid(), None, None, lambda _: seen.append(sampler.latest()))
    sampler.enter_clock(0)
    sampler.leave_clock(SECOND)
    assert [reading.wall_ns for reading in seen if reading is not None] == [0, SECOND]


def test_a_passing_nvml_error_is_no_failure() -> None:
    device = Device(energy_mj=error(pynvml.NVML_ERROR_UNKNOWN), power_mw=200_000)
    sampler = Sampler(os.getpid(), GpuMonitor(NvmlDouble(device), 0), None, lambda _: None)
    sampler.enter_clock(0)
    sampler.leave_clock(2 * SECOND)
    summary = sampler.stop()
    assert (summary.energy_j, summary.energy_source) == (400.0, "nvml_integrated_power")
    assert summary.taints == ()


# --- the package ---


def test_records_do_not_load_the_measuring_packages() -> None:
    code = (
        "import harness.telemetry.reading, sys;"
        "print([name for name in ('psutil', 'pynvml', 'torch') if name in sys.modules])"
    )
    root = Path(harness.telemetry.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
