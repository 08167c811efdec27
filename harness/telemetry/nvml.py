"""One NVIDIA GPU, read through NVML (the `pynvml` module of the package `nvidia-ml-py`)."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from harness.telemetry.reading import MemoryScope

T = TypeVar("T")

# The bits of nvmlClocksEventReasons (formerly nvmlClocksThrottleReasons).
CLOCK_REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}

# Those that make a run slower than the same run on a healthy machine. A power cap is how a
# loaded GPU regulates itself, and set clocks are the operator's choice.
THROTTLING = frozenset(
    {"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
)

# No single GPU draws more on average.
MAX_PLAUSIBLE_POWER_W = 2000.0
# The counter advances in steps (20 to 100 ms apart), so a short span may catch one too many.
COUNTER_STEP_S = 0.1
# Over so long a span every working counter has advanced: an idle GPU draws power too.
STUCK_COUNTER_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuSample:
    """What NVML said at one moment; None where it said nothing. Units as in `Reading`."""

    memory_bytes: int | None
    memory_scope: MemoryScope | None
    utilisation: float | None
    power_w: float | None
    sm_clock_mhz: int | None
    temperature_c: int | None
    throttle_reasons: tuple[str, ...] | None
    foreign_pids: tuple[int, ...] | None


class GpuUnavailableError(RuntimeError):
    """NVML does not work here, or does not know the device; the message says which."""


class GpuMonitor:
    """Reads one GPU or MIG instance. Not thread-safe; `Sampler` serialises its calls.

    `device` is a CUDA UUID, with or without its `GPU-` or `MIG-` prefix (torch gives it
    without), or NVML's index, which counts in PCI order and ignores CUDA_VISIBLE_DEVICES.

    A figure whose call fails is None. One that the device does not support (a MIG instance
    has no utilisation, power or energy of its own) is not asked for again.

    Raises:
        GpuUnavailableError: the driver is not loaded, or there is no such device.
    """

    count = 1  # of GPUs

    def __init__(self, pynvml: ModuleType, device: str | int) -> None:
        self._nvml = pynvml
        self._permanent_errors: tuple[type[Exception], ...] = (
            pynvml.NVMLError_NotSupported,
            pynvml.NVMLError_FunctionNotFound,
            pynvml.NVMLError_InvalidArgument,
            pynvml.NVMLError_NoPermission,
        )
        self._unsupported: set[str] = set()
        self._pids_are_ours = False
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise GpuUnavailableError(f"NVML does not work on this machine: {error}") from error
        try:
            self._handle = self._find(device)
        except GpuUnavailableError:
            pynvml.nvmlShutdown()
            raise

    def _find(self, device: str | int) -> Any:
        nvml = self._nvml
        if isinstance(device, int):
            try:
                return nvml.nvmlDeviceGetHandleByIndex(device)
            except nvml.NVMLError as error:
                raise GpuUnavailableError(
                    f"NVML has no GPU with index {device}: {error}"
                ) from error
        prefixed = device.startswith(("GPU-", "MIG-"))
        candidates = [device] if prefixed else [f"GPU-{device}", f"MIG-{device}"]
        reasons = []
        for uuid in candidates:
            try:
                return nvml.nvmlDeviceGetHandleByUUID(uuid)
            except nvml.NVMLError as error:
                reasons.append(f"{uuid}: {error}")
        raise GpuUnavailableError(f"NVML has no such GPU ({'; '.join(reasons)})")

    def close(self) -> None:
        """Hand NVML back. The monitor must not be used afterwards."""
        self._nvml.nvmlShutdown()

    def energy_counter_j(self) -> float | None:
        """Return joules since the driver was loaded (Volta and later).

        Judge differences of it with `plausible_energy_j`.
        """
        handle = self._handle
        millijoules = self._ask(
            "energy", lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        )
        return None if millijoules is None else millijoules / 1e3

    def sample(
        self, trainee_pids: Collection[int], referee_pids: Collection[int] = ()
    ) -> GpuSample:
        """Read everything once; only the trainee's processes count towards its memory.

        The referee's processes evaluate on the same device and are no strangers there.
        Power is NVML's own average, over up to a second on Ampere and later.
        """
        nvml, handle = self._nvml, self._handle
        memory_bytes, memory_scope, foreign_pids = self._memory(trainee_pids, referee_pids)
        utilisation = self._ask(
            "utilisation", lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu
        )
        milliwatts = self._ask("power", lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        return GpuSample(
            memory_bytes=memory_bytes,
            memory_scope=memory_scope,
            utilisation=None if utilisation is None else utilisation / 100,
            power_w=None if milliwatts is None else milliwatts / 1e3,
            sm_clock_mhz=self._ask(
                "sm_clock", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
            ),
            temperature_c=self._ask(
                "temperature",
                lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            ),
            throttle_reasons=self._throttle_reasons(),
            foreign_pids=foreign_pids,
        )

    def _memory(
        self, trainee_pids: Collection[int], referee_pids: Collection[int]
    ) -> tuple[int | None, MemoryScope | None, tuple[int, ...] | None]:
        nvml, handle = self._nvml, self._handle
        processes = self._ask(
            "processes", lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        )
        foreign_pids: tuple[int, ...] | None = None
        if processes is not None:
            trainee = frozenset(trainee_pids)
            known = trainee.union(referee_pids)
            # A container sees the host's process ids, or none at all: then the trainee looks
            # like a stranger. The ids mean something once one of ours was among them.
            if any(process.pid in known for process in processes):
                self._pids_are_ours = True
            if self._pids_are_ours:
                foreign_pids = tuple(
                    sorted({process.pid for process in processes if process.pid not in known})
                )
                own = [p.usedGpuMemory for p in processes if p.pid in trainee]
                if not own:
                    # It holds no CUDA context; the device's memory is somebody else's.
                    return None, None, foreign_pids
                if None not in own:
                    return sum(own), "process", foreign_pids
        used = self._ask("memory", lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used)
        return used, None if used is None else "device", foreign_pids

    def _throttle_reasons(self) -> tuple[str, ...] | None:
        nvml, handle = self._nvml, self._handle
        # Drivers before 535 know the mask under its former name only.
        mask = self._ask(
            "event_reasons", lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
        )
        if mask is None:
            mask = self._ask(
                "throttle_reasons", lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
            )
        return None if mask is None else clock_reasons(mask)

    def _ask(self, figure: str, call: Callable[[], T]) -> T | None:
        if figure in self._unsupported:
            return None
        try:
            return call()
        except self._permanent_errors:
            self._unsupported.add(figure)
        except self._nvml.NVMLError:
            pass
        return None


def clock_reasons(mask: int) -> tuple[str, ...]:
    """The words for NVML's mask of what holds the clocks down, lowest bit first."""
    bits = (1 << position for position in range(mask.bit_length()))
    return tuple(CLOCK_REASONS.get(bit, f"unknown_{bit:#x}") for bit in bits if mask & bit)


def plausible_energy_j(
    before_j: float | None, after_j: float | None, seconds: float, gpus: int = 1
) -> float | None:
    """The energy between two reads of the counters' sum, or None where it cannot be true.

    Counters have been seen to run backwards, to jump, and to stand still for good.
    """
    if before_j is None or after_j is None:
        return None
    energy_j = after_j - before_j
    if energy_j < 0 or energy_j > gpus * MAX_PLAUSIBLE_POWER_W * (seconds + COUNTER_STEP_S):
        return None
    if energy_j == 0 and seconds >= STUCK_COUNTER_S:
        return None
    return energy_j
