"""The GPUs of a run in several processes, read as one."""

import os

import pynvml
import pytest
from telemetry.nvml_double import Device, NvmlDouble, Process, error

from harness.telemetry.gpu_group import GpuGroup
from harness.telemetry.nvml import GpuMonitor, plausible_energy_j
from harness.telemetry.sampler import Sampler

OURS, THEIRS = 100, 900


def group(*devices: Device) -> GpuGroup:
    double = NvmlDouble(*devices)
    return GpuGroup([GpuMonitor(double, number) for number in range(len(devices))])


def test_sums_means_and_extremes() -> None:
    both = group(
        Device(
            energy_mj=5_000, power_mw=300_000, utilisation_percent=50, sm_clock_mhz=1980,
            temperature_c=61, event_reasons=0x8, processes=[Process(pid=OURS, usedGpuMemory=10)],
        ),
        Device(
            energy_mj=7_000, power_mw=200_000, utilisation_percent=100, sm_clock_mhz=1500,
            temperature_c=58, event_reasons=0x48,
            processes=[
                Process(pid=OURS + 1, usedGpuMemory=5), Process(pid=THEIRS, usedGpuMemory=70)
            ],
        ),
    )  # fmt: skip
    sample = both.sample({OURS, OURS + 1})
    assert both.energy_counter_j() == 12.0
    assert (sample.power_w, sample.utilisation) == (500.0, 0.75)
    assert (sample.sm_clock_mhz, sample.temperature_c) == (1500, 61)
    assert sample.throttle_reasons == ("hw_slowdown", "hw_thermal_slowdown")
    assert (sample.memory_bytes, sample.memory_scope) == (15, "process")
    assert sample.foreign_pids == (THEIRS,)


def test_what_one_lacks_is_unknown() -> None:
    unsupported = error(pynvml.NVML_ERROR_NOT_SUPPORTED)
    both = group(Device(), Device(energy_mj=unsupported, power_mw=unsupported))
    assert both.energy_counter_j() is None
    sample = both.sample({OURS})
    assert sample.power_w is None and sample.utilisation is not None


def test_memory_counts_where_there_is_some() -> None:
    ours = [Process(pid=OURS, usedGpuMemory=10)]
    idle = group(Device(processes=ours), Device(processes=ours[:0]))
    # The second tells of no process, so whose its memory is cannot be known.
    assert idle.sample({OURS}).memory_scope == "device"
    assert idle.sample({OURS}).memory_bytes == 10 + 9_000
    seen = group(Device(processes=ours), Device(processes=[Process(pid=1, usedGpuMemory=7)]))
    assert seen.sample({OURS}, {1}).memory_bytes == 10


def test_several_gpus_may_draw_as_much_each() -> None:
    assert plausible_energy_j(0.0, 5_000.0, 1.0) is None
    assert plausible_energy_j(0.0, 5_000.0, 1.0, gpus=4) == 5_000.0


def test_a_sampler_takes_a_group() -> None:
    first, second = Device(energy_mj=0), Device(energy_mj=0)
    now_ns = 0
    sampler = Sampler(
        os.getpid(), group(first, second), None, lambda reading: None, clock=lambda: now_ns
    )
    sampler.enter_clock(0)
    first.energy_mj = second.energy_mj = 1_800_000
    now_ns = 1_000_000_000
    sampler.leave_clock(now_ns)
    summary = sampler.stop()
    assert summary.energy_j == pytest.approx(3_600.0) and summary.energy_source == "nvml"
    assert summary.gpu_mean_power_w == pytest.approx(600.0)
