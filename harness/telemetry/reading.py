"""The records of telemetry: one sample, and the summary of a run."""

from dataclasses import dataclass
from typing import Literal

MemoryScope = Literal["process", "device"]
PeakMemorySource = Literal["vmhwm", "psutil"]
GpuMemorySource = Literal["nvml", "nvml_device"]
GpuEnergySource = Literal["nvml", "nvml_integrated_power"]
CpuEnergySource = Literal["rapl"]
EnergySource = Literal["nvml", "nvml_integrated_power", "rapl"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One sample. What was not measured is None, never 0.

    `wall_ns` is on the clock that the `Sampler` was given. `memory_bytes` is the resident
    memory of the trainee's process tree; pages shared between its processes count once for
    each. `cpu_utilisation` is in cores and describes the time since the reading before, as
    `gpu_utilisation` (0 to 1, of the whole device) describes NVML's last sampling period.
    `gpu_memory_scope` says whether `gpu_memory_bytes` is that of the trainee's processes or,
    where NVML does not tell them apart, all that is in use on the device.
    """

    wall_ns: int
    on_clock: bool
    memory_bytes: int | None = None
    cpu_utilisation: float | None = None
    gpu_memory_bytes: int | None = None
    gpu_memory_scope: MemoryScope | None = None
    gpu_utilisation: float | None = None
    gpu_power_w: float | None = None
    gpu_sm_clock_mhz: int | None = None
    gpu_temperature_c: int | None = None
    gpu_throttle_reasons: tuple[str, ...] | None = None
    foreign_gpu_processes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TelemetrySummary:
    """A run's telemetry over its on-clock spans. What was not measured is None, never 0.

    Means are weighted by time: a reading stands for the on-clock time since the one before.

    - `peak_memory_bytes`: the larger of the trainee's own high-water mark (`vmhwm`) and the
      largest sample of its process tree (`psutil`).
    - `gpu_*` of a run on several GPUs: sums of memory, power and energy, the mean utilisation, the
      lowest clock, the highest temperature.
    - `gpu_memory_*`: of the trainee's processes (`nvml`) or the whole device (`nvml_device`).
    - `gpu_energy_j`: differences of NVML's energy counter (`nvml`); if even one span needed
      power × time instead, the source is `nvml_integrated_power`.
    - `energy_j`: the GPU's in a run with a GPU, the processor packages' otherwise.
    - `samples`: readings on the clock, those at the edges of spans included. `sampling_hz`:
      the intervals between them, a second.
    - `taints`: reasons, in words, to keep the run out of rankings.
    """

    peak_memory_bytes: int | None = None
    peak_memory_source: PeakMemorySource | None = None
    mean_memory_bytes: int | None = None
    peak_memory_above_idle_bytes: int | None = None
    mean_cpu_utilisation: float | None = None
    gpu_peak_memory_bytes: int | None = None
    gpu_peak_memory_source: GpuMemorySource | None = None
    gpu_mean_memory_bytes: int | None = None
    gpu_mean_utilisation: float | None = None
    gpu_mean_power_w: float | None = None
    gpu_energy_j: float | None = None
    gpu_energy_source: GpuEnergySource | None = None
    cpu_energy_j: float | None = None
    cpu_energy_source: CpuEnergySource | None = None
    energy_j: float | None = None
    energy_source: EnergySource | None = None
    gpu_mean_sm_clock_mhz: float | None = None
    gpu_max_temperature_c: int | None = None
    samples: int
    sampling_hz: float | None = None
    taints: tuple[str, ...] = ()
