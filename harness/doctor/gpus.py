"""NVIDIA GPUs: what NVML says of each, and what on it disturbs timing."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from harness.device import Gpu
from harness.doctor.finding import Effect, Finding
from harness.doctor.system_files import SystemFiles, text
from harness.telemetry.nvml import THROTTLING, GpuMonitor, GpuUnavailableError, clock_reasons

T = TypeVar("T")

BUSY_UTILISATION = 5  # percent
# The driver itself keeps up to about this much; more belongs to somebody.
UNCLAIMED_BYTES = 1 << 30
UNCLAIMED_SHARE = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """The driver's side of NVML; `failure` says why there is none."""

    version: str | None = None
    cuda: int | None = None  # 12040 is 12.4
    failure: str | None = None


def driver(nvml: ModuleType) -> Driver:
    """Ask NVML for the driver."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Driver(failure=f"no NVIDIA driver: {error}")
    try:
        version = _answer(nvml, nvml.nvmlSystemGetDriverVersion)
        cuda = _answer(nvml, nvml.nvmlSystemGetCudaDriverVersion)
    finally:
        nvml.nvmlShutdown()
    return Driver(version=None if version is None else str(version), cuda=cuda)


def telemetry(nvml: ModuleType, gpu: Gpu) -> Finding:
    """Report which figures NVML gives of a GPU."""
    name = _name(gpu)
    try:
        monitor = GpuMonitor(nvml, gpu.uuid)
    except GpuUnavailableError as error:
        return Finding(
            check=name,
            status="missing",
            found=f"{gpu.name}: {error}",
            advice="Check the driver by nvidia-smi.",
            device=name,
        )
    with contextlib.closing(monitor):
        sample = monitor.sample(())
        handle = _handle(nvml, gpu)
        total = _answer(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total)
        processes = _answer(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
        figures = {
            "memory": sample.memory_bytes,
            "power": sample.power_w,
            "energy counter": monitor.energy_counter_j(),
            "process ids": processes,
            "throttle reasons": sample.throttle_reasons,
            "utilisation": sample.utilisation,
        }
    size = "" if total is None else f", {total / 2**30:.0f} GiB"
    there = ", ".join(name for name, value in figures.items() if value is not None)
    found = f"{gpu.name}{size}, driver {gpu.driver}: {there or 'no figures'}"
    lacking = [name for name, value in figures.items() if value is None]
    if not lacking:
        return Finding(check=name, status="ok", found=found, device=name)
    advice = "These columns stay empty."
    if lacking == ["energy counter"]:
        advice = "Energy is the power, summed up over time; marked so."
    return Finding(
        check=name,
        status="missing",
        found=f"{found}; not {', '.join(lacking)}",
        advice=advice,
        device=name,
    )


def disturbances(nvml: ModuleType, gpu: Gpu, files: SystemFiles) -> list[Finding]:
    """Report what on a GPU makes timing untrustworthy; one good line if nothing does."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []  # `telemetry` has said so
    try:
        handle = _handle(nvml, gpu)
        if handle is None:
            return []
        examined = [
            _company(nvml, gpu, handle, files),
            *(
                examine(nvml, gpu, handle)
                for examine in (
                    _throttling,
                    _power_limit,
                    _instances,
                    _virtual,
                    _persistence,
                    _memory_errors,
                    _link,
                )
            ),
        ]
    finally:
        nvml.nvmlShutdown()
    found = [finding for finding in examined if finding is not None]
    if found:
        return found
    return [
        Finding(
            check=_name(gpu),
            status="ok",
            found="no other process, no throttling, the whole GPU, full power and link",
            device=_name(gpu),
        )
    ]


def _company(nvml: ModuleType, gpu: Gpu, handle: Any, files: SystemFiles) -> Finding | None:
    """Processes on the GPU; we have none of our own there."""
    computing = _answer(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    if computing:
        who = _who(computing, files)
        return _warning(gpu, "other processes", who, "End them, or time on another GPU.", "taint")
    drawing = _answer(nvml, lambda: nvml.nvmlDeviceGetGraphicsRunningProcesses(handle))
    if drawing:
        advice = "Time on a GPU without a screen, or leave this one alone during a run."
        return _warning(gpu, "screen", _who(drawing, files), advice, "spread")
    utilisation = _answer(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    memory = _answer(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    signs = []
    if utilisation is not None and utilisation >= BUSY_UTILISATION:
        signs.append(f"{utilisation} % busy")
    unclaimed = 0 if memory is None else max(UNCLAIMED_BYTES, UNCLAIMED_SHARE * memory.total)
    if memory is not None and memory.used > unclaimed:
        signs.append(f"{memory.used / 2**30:.1f} GiB in use")
    if not signs:
        return None
    return _warning(
        gpu,
        "other processes",
        f"{', '.join(signs)}, by nobody who is visible here",
        "Look on the host, outside this container: nvidia-smi.",
        "taint",
    )


def _throttling(nvml: ModuleType, gpu: Gpu, handle: Any) -> Finding | None:
    mask = _answer(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    if mask is None:
        mask = _answer(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
    reasons = [reason for reason in clock_reasons(mask or 0) if reason in THROTTLING]
    if not reasons:
        return None
    words = ", ".join(reason.replace("_", " ") for reason in reasons)
    return _warning(
        gpu, "throttling", words, "Check its cooling and power supply; let it rest.", "taint"
    )


def _power_limit(nvml: ModuleType, gpu: Gpu, handle: Any) -> Finding | None:
    limit_mw = _answer(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    default_mw = _answer(nvml, lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle))
    if limit_mw is None or default_mw is None or limit_mw >= default_mw:
        return None
    return _warning(
        gpu,
        "power limit",
        f"{limit_mw / 1e3:.0f} W, by default {default_mw / 1e3:.0f} W",
        f"sudo nvidia-smi -i {gpu.uuid} -pl {default_mw / 1e3:.0f}",
        "shift",
    )


def _instances(nvml: ModuleType, gpu: Gpu, handle: Any) -> Finding | None:
    if gpu.uuid.startswith("MIG-"):
        return _warning(
            gpu,
            "MIG",
            "an instance: power and clocks are shared with the other instances",
            "Keep the others idle, or time on a whole GPU.",
            "spread",
        )
    mode = _answer(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle))
    if mode is None or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return None
    return _warning(
        gpu,
        "MIG",
        "on: CUDA sees instances only",
        "Name an instance in CUDA_VISIBLE_DEVICES, or turn MIG off.",
        "shift",
    )


def _virtual(nvml: ModuleType, gpu: Gpu, handle: Any) -> Finding | None:
    mode = _answer(nvml, lambda: nvml.nvmlDeviceGetVirtualizationMode(handle))
    if mode != nvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU:
        return None
    return _warning(
        gpu,
        "virtual GPU",
        "this is a share of a GPU; other machines use the rest",
        "Time on a GPU that is passed through whole.",
        "spread",
    )


def _persistence(nvml: ModuleType, gpu: Gpu, handle: Any) -> Finding | None:
    # https://docs.nvidia.com/deploy/driver-persistence/index.html
    mode = _answer(nvml, lambda: nvml.nvmlDeviceGetPersistenceMode(handle))
    if mode is None or mode == nvml.NVML_FEATURE_ENABLED:
        return None
    return _warning(
        gpu,
        "persistence mode",
        "off: the driver starts the GPU anew for each run",
        "Run nvidia-persistenced, or: sudo nvidia-smi -pm 1",
        "spread",
    )


def _memory_errors(nvml: ModuleType, gpu: Gpu, handle: Any) -> Finding | None:
    errors = _answer(
        nvml,
        lambda: nvml.nvmlDeviceGetTotalEccErrors(
            handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
    )
    if errors:
        return _warning(
            gpu,
            "memory errors",
            f"{errors} since the driver was loaded that ECC could not correct",
            "Reset or replace the GPU; trust no result of it.",
            "taint",
        )
    mode = _answer(nvml, lambda: nvml.nvmlDeviceGetEccMode(handle))
    if mode is None or mode[0] == mode[1]:
        return None
    return _warning(
        gpu,
        "ECC",
        f"{'on' if mode[0] else 'off'} now, {'on' if mode[1] else 'off'} after the next reset",
        "Measure after the reset: it changes the memory's bandwidth.",
        "shift",
    )


def _link(nvml: ModuleType, gpu: Gpu, handle: Any) -> Finding | None:
    # The link's generation falls while the GPU idles; its width does not.
    width = _answer(nvml, lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(handle))
    full = _answer(nvml, lambda: nvml.nvmlDeviceGetMaxPcieLinkWidth(handle))
    if not width or full is None or width >= full:
        return None
    return _warning(
        gpu,
        "PCIe link",
        f"×{width} of ×{full} lanes",
        "Seat the card anew, or use a wider slot.",
        "shift",
    )


def _warning(gpu: Gpu, check: str, found: str, advice: str, effect: Effect) -> Finding:
    name = _name(gpu)
    return Finding(
        check=f"{name} {check}",
        status="warning",
        found=found,
        advice=advice,
        effect=effect,
        device=name,
    )


def _name(gpu: Gpu) -> str:
    return f"cuda:{gpu.index}"


def _who(processes: Iterable[Any], files: SystemFiles) -> str:
    pids = sorted({process.pid for process in processes})
    return ", ".join(f"{text(files.proc / str(pid) / 'comm') or 'unseen'} ({pid})" for pid in pids)


def _handle(nvml: ModuleType, gpu: Gpu) -> Any:
    return _answer(nvml, lambda: nvml.nvmlDeviceGetHandleByUUID(gpu.uuid))


def _answer(nvml: ModuleType, call: Callable[[], T]) -> T | None:
    """Return what NVML says, None where it does not."""
    try:
        return call()
    except nvml.NVMLError:
        return None
