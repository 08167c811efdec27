import inspect

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.telemetry.nvml import (
    CLOCK_REASONS,
    THROTTLING,
    GpuMonitor,
    GpuUnavailableError,
    clock_reasons,
    plausible_energy_j,
)
from tests.telemetry.nvml_double import Device, NvmlDouble, Process, error, mig_instance

TRAINEE, WORKER, REFEREE, STRANGER = 100, 101, 50, 777


def monitor_of(device: Device) -> GpuMonitor:
    return GpuMonitor(NvmlDouble(device), device.uuid)


def test_double_has_the_signatures_of_pynvml() -> None:
    functions = [name for name in vars(NvmlDouble) if name.startswith("nvml")]
    assert len(functions) >= 10
    for name in functions:
        double = list(inspect.signature(vars(NvmlDouble)[name]).parameters)[1:]
        real = list(inspect.signature(vars(pynvml)[name]).parameters)
        assert double == real[: len(double)], name


def test_clock_reasons_are_pynvmls() -> None:
    for bit, word in CLOCK_REASONS.items():
        camel = "".join(part.capitalize() for part in word.split("_"))
        assert vars(pynvml)[f"nvmlClocksThrottleReason{camel}"] == bit
    assert set(CLOCK_REASONS.values()) > THROTTLING


@pytest.mark.parametrize("name", ["GPU-0b1c", "0b1c"])
def test_finds_a_gpu_by_uuid(name: str) -> None:
    other = Device(uuid="GPU-ffff", power_mw=1)
    monitor = GpuMonitor(NvmlDouble(other, Device()), name)
    assert monitor.sample([]).power_w == 300.0


@pytest.mark.parametrize("name", ["MIG-77aa", "77aa"])
def test_finds_a_mig_instance_by_uuid(name: str) -> None:
    monitor = GpuMonitor(NvmlDouble(Device(), mig_instance(memory_used=4_000)), name)
    assert monitor.sample([]).memory_bytes == 4_000


def test_finds_a_gpu_by_index() -> None:
    monitor = GpuMonitor(NvmlDouble(Device(uuid="GPU-a"), Device(uuid="GPU-b", power_mw=70_000)), 1)
    assert monitor.sample([]).power_w == 70.0


@pytest.mark.parametrize("device", ["GPU-nowhere", "nowhere", 3])
def test_unknown_device_is_named_and_nvml_is_handed_back(device: str | int) -> None:
    nvml = NvmlDouble(Device())
    with pytest.raises(GpuUnavailableError, match=str(device)):
        GpuMonitor(nvml, device)
    assert nvml.initialised == 0


def test_missing_driver_is_said() -> None:
    nvml = NvmlDouble(init_error=error(pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
    with pytest.raises(GpuUnavailableError, match="Driver Not Loaded"):
        GpuMonitor(nvml, 0)


def test_close_hands_nvml_back() -> None:
    nvml = NvmlDouble(Device())
    monitor = GpuMonitor(nvml, 0)
    assert nvml.initialised == 1
    monitor.close()
    assert nvml.initialised == 0


def test_units() -> None:
    monitor = monitor_of(Device())
    sample = monitor.sample([TRAINEE])
    assert sample.power_w == 300.0  # 300 000 mW
    assert sample.utilisation == 0.75
    assert sample.sm_clock_mhz == 1980
    assert sample.temperature_c == 61
    assert sample.throttle_reasons == ()
    assert monitor.energy_counter_j() == 5000.0  # 5 000 000 mJ


def test_zero_is_a_figure_not_a_gap() -> None:
    sample = monitor_of(Device(utilisation_percent=0, power_mw=0)).sample([])
    assert sample.utilisation == 0.0
    assert sample.power_w == 0.0


def test_memory_is_that_of_the_trainees_tree() -> None:
    device = Device(
        processes=[
            Process(pid=TRAINEE, usedGpuMemory=1_000),
            Process(pid=WORKER, usedGpuMemory=200),
            Process(pid=REFEREE, usedGpuMemory=5_000),
        ]
    )
    sample = monitor_of(device).sample([TRAINEE, WORKER], [REFEREE])
    assert (sample.memory_bytes, sample.memory_scope) == (1_200, "process")
    assert sample.foreign_pids == ()


def test_foreign_processes_are_listed() -> None:
    device = Device(
        processes=[
            Process(pid=STRANGER, usedGpuMemory=5),
            Process(pid=TRAINEE, usedGpuMemory=1_000),
            Process(pid=9, usedGpuMemory=None),
        ]
    )
    sample = monitor_of(device).sample([TRAINEE])
    assert sample.foreign_pids == (9, STRANGER)
    assert sample.memory_bytes == 1_000


@pytest.mark.parametrize(
    "processes",
    [[], [Process(pid=40_123, usedGpuMemory=1_000)], error(pynvml.NVML_ERROR_NO_PERMISSION)],
    ids=["empty list", "pids of the host", "refused"],
)
def test_hidden_pids_fall_back_to_the_device(processes: list[Process] | Exception) -> None:
    sample = monitor_of(Device(processes=processes)).sample([TRAINEE], [REFEREE])
    assert (sample.memory_bytes, sample.memory_scope) == (9_000, "device")
    # The one on the list may be the trainee itself.
    assert sample.foreign_pids is None


def test_memory_unknown_per_process_falls_back_to_the_device() -> None:
    device = Device(
        processes=[
            Process(pid=TRAINEE, usedGpuMemory=None),
            Process(pid=STRANGER, usedGpuMemory=None),
        ]
    )
    sample = monitor_of(device).sample([TRAINEE])
    assert (sample.memory_bytes, sample.memory_scope) == (9_000, "device")
    assert sample.foreign_pids == (STRANGER,)


def test_trainee_without_a_context_is_not_given_anothers_memory() -> None:
    device = Device(processes=[Process(pid=REFEREE, usedGpuMemory=10)])
    sample = monitor_of(device).sample([TRAINEE], [REFEREE])
    assert (sample.memory_bytes, sample.memory_scope) == (None, None)
    assert sample.foreign_pids == ()


def test_a_stranger_shows_once_pids_have_proved_to_be_ours() -> None:
    device = Device(processes=[Process(pid=STRANGER, usedGpuMemory=10)])
    monitor = monitor_of(device)
    assert monitor.sample([TRAINEE]).foreign_pids is None
    device.processes = [
        Process(pid=STRANGER, usedGpuMemory=10),
        Process(pid=TRAINEE, usedGpuMemory=1),
    ]
    assert monitor.sample([TRAINEE]).foreign_pids == (STRANGER,)
    device.processes = [Process(pid=STRANGER, usedGpuMemory=10)]
    sample = monitor.sample([TRAINEE])
    assert sample.foreign_pids == (STRANGER,)
    assert sample.memory_bytes is None


def test_mig_instance_has_memory_only() -> None:
    nvml = NvmlDouble(
        mig_instance(memory_used=4_000, processes=[Process(pid=TRAINEE, usedGpuMemory=1_500)])
    )
    monitor = GpuMonitor(nvml, "MIG-77aa")
    for _ in range(3):
        sample = monitor.sample([TRAINEE])
        assert (sample.memory_bytes, sample.memory_scope) == (1_500, "process")
        assert sample.utilisation is None
        assert sample.power_w is None
        assert sample.sm_clock_mhz is None
        assert sample.temperature_c is None
        assert sample.throttle_reasons is None
        assert monitor.energy_counter_j() is None
    # Asked once, remembered; what is supported is asked every time.
    assert nvml.calls["power"] == nvml.calls["utilisation"] == nvml.calls["energy"] == 1
    assert nvml.calls["processes"] == 3


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        (pynvml.NVML_ERROR_NOT_SUPPORTED, 1),
        (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, 1),
        (pynvml.NVML_ERROR_NO_PERMISSION, 1),
        (pynvml.NVML_ERROR_TIMEOUT, 2),
        (pynvml.NVML_ERROR_UNKNOWN, 2),
        (pynvml.NVML_ERROR_GPU_IS_LOST, 2),
    ],
)
def test_a_passing_error_is_asked_again(code: int, asked: int) -> None:
    nvml = NvmlDouble(Device(power_mw=error(code)))
    monitor = GpuMonitor(nvml, 0)
    assert monitor.sample([]).power_w is None
    sample = monitor.sample([])
    assert sample.power_w is None
    assert sample.utilisation == 0.75
    assert nvml.calls["power"] == asked


def test_other_errors_are_bugs_and_pass_through() -> None:
    with pytest.raises(ZeroDivisionError):
        monitor_of(Device(power_mw=ZeroDivisionError())).sample([])


def test_a_figure_comes_back_after_a_passing_error() -> None:
    device = Device(power_mw=error(pynvml.NVML_ERROR_UNKNOWN))
    monitor = monitor_of(device)
    assert monitor.sample([]).power_w is None
    device.power_mw = 1_500
    assert monitor.sample([]).power_w == 1.5


def test_reasons_from_the_newer_call() -> None:
    nvml = NvmlDouble(Device(event_reasons=0x4 | 0x20, throttle_reasons=0x80))
    assert GpuMonitor(nvml, 0).sample([]).throttle_reasons == (
        "sw_power_cap",
        "sw_thermal_slowdown",
    )


def test_reasons_from_the_older_call_on_an_older_driver() -> None:
    nvml = NvmlDouble(
        Device(
            event_reasons=error(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND), throttle_reasons=0x8 | 0x80
        )
    )
    monitor = GpuMonitor(nvml, 0)
    for _ in range(2):
        assert monitor.sample([]).throttle_reasons == ("hw_slowdown", "hw_power_brake_slowdown")
    assert nvml.calls["event_reasons"] == 1


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (0, ()),
        (0x1, ("gpu_idle",)),
        (0x2, ("applications_clocks_setting",)),
        (0x40, ("hw_thermal_slowdown",)),
        (0x9, ("gpu_idle", "hw_slowdown")),
        (0x1000, ("unknown_0x1000",)),
    ],
)
def test_mask_in_words(mask: int, words: tuple[str, ...]) -> None:
    assert clock_reasons(mask) == words


@pytest.mark.parametrize("harmless", ["gpu_idle", "sw_power_cap", "applications_clocks_setting"])
def test_idle_caps_and_set_clocks_are_no_throttling(harmless: str) -> None:
    assert harmless not in THROTTLING


@pytest.mark.parametrize(
    ("before_j", "after_j", "seconds", "energy_j"),
    [
        (100.0, 400.0, 1.0, 300.0),
        (400.0, 100.0, 1.0, None),  # backwards
        (0.0, 3000.0, 1.0, None),  # 3 kW
        (0.0, 250.0, 0.05, 250.0),  # one step of the counter too many, in a short span
        (0.0, 1e9, 0.0, None),
        (7.0, 7.0, 0.05, 0.0),  # between two steps
        (7.0, 7.0, 30.0, None),  # stands still
        (None, 7.0, 1.0, None),
        (7.0, None, 1.0, None),
    ],
)
def test_plausible_energy(
    before_j: float | None, after_j: float | None, seconds: float, energy_j: float | None
) -> None:
    assert plausible_energy_j(before_j, after_j, seconds) == energy_j


@given(
    before_j=st.floats(0, 1e9),
    power_w=st.floats(1, 1500),
    seconds=st.floats(0.01, 1e5),
)
def test_what_a_gpu_can_draw_is_plausible(before_j: float, power_w: float, seconds: float) -> None:
    after_j = before_j + power_w * seconds
    assert plausible_energy_j(before_j, after_j, seconds) == after_j - before_j


@given(before_j=st.floats(0, 1e6), lost_j=st.floats(1e-3, 1e6), seconds=st.floats(0, 1e5))
def test_no_energy_is_ever_negative(before_j: float, lost_j: float, seconds: float) -> None:
    assert plausible_energy_j(before_j, before_j - lost_j, seconds) is None
