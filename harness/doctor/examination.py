"""The whole examination of a machine, in under a second of measuring."""

import importlib.metadata
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from harness.cores import plan_cores
from harness.device import Gpu, machine_class, resolve_device, visible_gpus
from harness.doctor import activity, gpus, instruments, processor
from harness.doctor.finding import Finding, verdict
from harness.doctor.rehearsal import rehearse
from harness.doctor.stored_paces import stored_paces
from harness.doctor.system_files import SystemFiles
from harness.home import cache_folder, paces_folder
from harness.telemetry.process_memory import ProcessTreeMemory


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """What the doctor found, and the sentence that sums it up for `device`."""

    device: str
    machine_class: str
    measurable: list[Finding]
    disturbances: list[Finding]
    verdict: str


def examine(
    device: str,
    home: Path,
    files: SystemFiles | None = None,
    platform: str = sys.platform,
    sample_s: float = activity.SAMPLE_S,
) -> Examination:
    """Examine the machine, and the GPUs that `device` means: `auto` all, `cpu` none.

    The verdict is for the device that a run would take.

    Raises:
        UsageError: there is no such device here.
    """
    import pynvml

    files = files or SystemFiles()
    chosen = resolve_device(device)
    plan = plan_cores()
    found: list[Gpu] = []
    if device != "cpu":
        found = visible_gpus() if device == "auto" or chosen.gpu is None else [chosen.gpu]
    available = instruments.affinity()

    before = activity.look(files)
    with activity.on_core(plan.trainee[-1] if plan.trainee else None):
        took_ns = activity.work_pieces(sample_s)
    after = activity.look(files)
    swapped = None
    if before.swapped_pages is not None and after.swapped_pages is not None:
        swapped = after.swapped_pages - before.swapped_pages

    measurable = [
        instruments.clock(files),
        instruments.core_pinning(plan),
        *instruments.process_tree(rehearse(files.proc, platform)),
        instruments.memory_peak(ProcessTreeMemory(os.getpid(), proc=files.proc)),
        instruments.run_queue_delay(files),
        instruments.processor_energy(files),
        *_gpu_instruments(pynvml, device, found),
        instruments.writable_folder(
            "results", home, "Name another folder: --results or BENCH_RESULTS."
        ),
        instruments.writable_folder(
            "prepared data", cache_folder(), "Name another folder: XDG_CACHE_HOME."
        ),
        instruments.lease(chosen.name, chosen.lease_name),
    ]
    kind = machine_class(chosen, plan.threads)
    disturbances = [
        activity.load(os.getloadavg(), len(available)),
        activity.other_processes(before, after, os.getpid(), os.sysconf("SC_CLK_TCK")),
        activity.steadiness(took_ns),
        processor.frequency_governor(files),
        processor.turbo(files),
        activity.heat(before, after),
        processor.cpu_time_quota(files, len(available)),
        processor.virtual_machine(files),
        activity.stolen_time(before, after),
        processor.memory_room(files, swapped),
        processor.battery(files),
        processor.hyperthreads(files, available, plan),
        processor.memory_nodes(files, plan),
        *(finding for gpu in found for finding in gpus.disturbances(pynvml, gpu, files)),
        *stored_paces(paces_folder(home), socket.gethostname(), kind),
    ]
    return Examination(
        device=chosen.name,
        machine_class=kind,
        measurable=measurable,
        disturbances=disturbances,
        verdict=verdict(chosen.name, [*measurable, *disturbances]),
    )


def _gpu_instruments(nvml: ModuleType, device: str, found: list[Gpu]) -> list[Finding]:
    driver = gpus.driver(nvml) if device != "cpu" else gpus.Driver()
    torch = instruments.torch_build(
        importlib.metadata.version("torch"),
        importlib.metadata.requires("torch") or (),
        driver.cuda if found else None,
    )
    if device == "cpu":
        return [torch]
    if found:
        return [torch, *(gpus.telemetry(nvml, gpu) for gpu in found)]
    why = driver.failure or "the driver works, but shows no GPU"
    advice = None if driver.failure else "See CUDA_VISIBLE_DEVICES, and the container's --gpus."
    return [torch, Finding(check="GPU", status="missing", found=why, advice=advice)]
