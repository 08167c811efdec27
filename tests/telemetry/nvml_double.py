"""A double of the `pynvml` module: its calls, with its own errors, on devices made up by tests."""

from collections import Counter
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import TypeVar

import pynvml

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class Process:
    pid: int
    usedGpuMemory: int | None


@dataclass(kw_only=True, slots=True)
class Device:
    """One GPU or MIG instance in NVML's units. An exception in a field is raised when asked."""

    uuid: str = "GPU-0b1c"
    energy_mj: int | Exception = 5_000_000
    power_mw: int | Exception = 300_000
    utilisation_percent: int | Exception = 75
    sm_clock_mhz: int | Exception = 1980
    temperature_c: int | Exception = 61
    event_reasons: int | Exception = 0
    throttle_reasons: int | Exception = 0
    memory_used: int | Exception = 9_000
    processes: list[Process] | Exception = field(default_factory=list)


def mig_instance(**fields: object) -> Device:
    """A MIG instance: memory and processes, and nothing that belongs to the whole GPU."""
    unsupported = dict.fromkeys(
        ("energy_mj", "power_mw", "utilisation_percent", "sm_clock_mhz", "temperature_c"),
        error(pynvml.NVML_ERROR_NOT_SUPPORTED),
    )
    unsupported |= dict.fromkeys(
        ("event_reasons", "throttle_reasons"), error(pynvml.NVML_ERROR_NOT_SUPPORTED)
    )
    return Device(**{"uuid": "MIG-77aa", **unsupported, **fields})  # type: ignore[arg-type]


def error(code: int) -> Exception:
    """pynvml's own exception for an NVML return code."""
    exception: Exception = pynvml.NVMLError(code)
    return exception


def _given(value: T | Exception) -> T:
    if isinstance(value, Exception):
        raise value
    return value


class NvmlDouble(ModuleType):
    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_FunctionNotFound = pynvml.NVMLError_FunctionNotFound
    NVMLError_InvalidArgument = pynvml.NVMLError_InvalidArgument
    NVMLError_NoPermission = pynvml.NVMLError_NoPermission
    NVML_CLOCK_SM = pynvml.NVML_CLOCK_SM
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self, *devices: Device, init_error: Exception | None = None) -> None:
        super().__init__("pynvml")
        self.devices = devices
        self.init_error = init_error
        self.initialised = 0
        self.calls: Counter[str] = Counter()

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise self.init_error
        self.initialised += 1

    def nvmlShutdown(self) -> None:
        self.initialised -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        if not 0 <= index < len(self.devices):
            raise error(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self.devices[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Device:
        for device in self.devices:
            if device.uuid == uuid:
                return device
        raise error(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Device) -> int:
        self.calls["energy"] += 1
        return _given(handle.energy_mj)

    def nvmlDeviceGetPowerUsage(self, handle: Device) -> int:
        self.calls["power"] += 1
        return _given(handle.power_mw)

    def nvmlDeviceGetUtilizationRates(self, handle: Device) -> SimpleNamespace:
        self.calls["utilisation"] += 1
        return SimpleNamespace(gpu=_given(handle.utilisation_percent), memory=0)

    def nvmlDeviceGetClockInfo(self, handle: Device, type: int) -> int:
        assert type == pynvml.NVML_CLOCK_SM
        return _given(handle.sm_clock_mhz)

    def nvmlDeviceGetTemperature(self, handle: Device, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return _given(handle.temperature_c)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Device) -> int:
        self.calls["event_reasons"] += 1
        return _given(handle.event_reasons)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Device) -> int:
        return _given(handle.throttle_reasons)

    def nvmlDeviceGetMemoryInfo(self, handle: Device) -> SimpleNamespace:
        return SimpleNamespace(used=_given(handle.memory_used))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Device) -> list[Process]:
        self.calls["processes"] += 1
        return _given(handle.processes)
