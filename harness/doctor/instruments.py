"""What can be measured here."""

import itertools
import mmap
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.cores import CorePlan
from harness.doctor.finding import Finding
from harness.doctor.rehearsal import Rehearsal
from harness.doctor.system_files import SystemFiles, text
from harness.errors import UsageError
from harness.lease import leased
from harness.telemetry.process_memory import ProcessTreeMemory
from harness.telemetry.rapl import RaplCounter

COARSE_CLOCK_NS = 10_000  # the shortest steps take some hundred thousand
# Reading one of these costs microseconds and a trip to a chip that all cores share.
SLOW_CLOCK_SOURCES = frozenset({"hpet", "acpi_pm", "jiffies", "refined-jiffies"})
_CLOCK_READS = 2000
_FILL_BYTES = 32 << 20
_LITTLE_ROOM_BYTES = 1 << 30


def clock(
    files: SystemFiles, read_ns: Callable[[], int] = time.perf_counter_ns, reads: int = _CLOCK_READS
) -> Finding:
    """Report the smallest step that the referee's clock was seen to make, and its source."""
    moments = [read_ns() for _ in range(reads)]
    steps = [b - a for a, b in itertools.pairwise(moments) if b > a]
    source = text(files.sys / "devices/system/clocksource/clocksource0/current_clocksource")
    named = f", source {source}" if source else ""
    if not steps:
        return Finding(
            check="clock",
            status="warning",
            found=f"the monotonic clock stood still over {reads} reads{named}",
            advice="Do not time anything here.",
            effect="spread",
        )
    found = f"monotonic, steps of {min(steps)} ns{named}"
    if min(steps) > COARSE_CLOCK_NS or source in SLOW_CLOCK_SOURCES:
        return Finding(
            check="clock",
            status="warning",
            found=found,
            advice="The kernel gave up the processor's own counter (see dmesg, `clocksource`); "
            "boot with tsc, or kvm-clock in a virtual machine.",
            effect="spread",
        )
    return Finding(check="clock", status="ok", found=found)


def core_pinning(plan: CorePlan) -> Finding:
    """Report which cores the trainee and the referee get."""
    if not plan.trainee:
        return Finding(
            check="core pinning",
            status="missing",
            found="this platform pins no process to a core",
            advice="Time on Linux; here, leave the machine alone during a run.",
            effect="spread",
        )
    if plan.single_core:
        return Finding(
            check="core pinning",
            status="warning",
            found=f"trainee and referee share {_cpus(plan.trainee)}: there is one core",
            advice="Give the machine or container a second core; runs are tainted until then.",
            effect="taint",
        )
    threads = f"{plan.threads} thread{'s' if plan.threads > 1 else ''}"
    return Finding(
        check="core pinning",
        status="ok",
        found=f"trainee {_cpus(plan.trainee)} ({threads}), referee {_cpus(plan.referee)}",
    )


def process_tree(rehearsal: Rehearsal) -> list[Finding]:
    """Report whether a trainee can be stopped for an evaluation, and dies with its referee."""
    failure = rehearsal.failure
    return [
        Finding(
            check="process-tree stop",
            status="ok" if rehearsal.tree_stopped else "missing",
            found=failure or _tried(rehearsal.tree_stopped, "a process and its child stood still"),
            advice=None
            if rehearsal.tree_stopped
            else "What a submission computes while it is evaluated goes unnoticed; review it.",
        ),
        Finding(
            check="kill with parent",
            status="ok" if rehearsal.died_with_parent else "missing",
            found=failure or _tried(rehearsal.died_with_parent, "a stopped child died too"),
            advice=None
            if rehearsal.died_with_parent
            else "After a killed `bench run`, end its trainee by hand.",
        ),
    ]


def _tried(worked: bool, what: str) -> str:
    return f"tried: {what}" if worked else f"tried in vain: it was not seen that {what}"


def memory_peak(memory: ProcessTreeMemory, fill_bytes: int = _FILL_BYTES) -> Finding:
    """Report whether the kernel's high-water mark of memory rises, and falls at a reset."""
    check = "memory high-water mark"
    advice = "Peaks come from samples, twenty a second, which miss short ones."
    resettable = memory.reset_peak()
    low = memory.peak()
    if low is None:
        return Finding(check=check, status="missing", found="no VmHWM in /proc", advice=advice)
    with mmap.mmap(-1, fill_bytes) as filled:
        for page in range(0, fill_bytes, mmap.PAGESIZE):
            filled[page] = 1
        high = memory.peak() or low
    if resettable and high - low < fill_bytes // 2:
        return Finding(
            check=check, status="missing", found="VmHWM does not follow the memory", advice=advice
        )
    resettable = resettable and memory.reset_peak()
    if not resettable or high - (memory.peak() or high) < fill_bytes // 2:
        return Finding(
            check=check,
            status="warning",
            found="VmHWM is there, its reset does not work",
            advice="A peak counts only where training goes above the start-up's. Containers: "
            "allow writing to /proc/PID/clear_refs.",
        )
    return Finding(check=check, status="ok", found="tried: VmHWM rises, and falls at a reset")


def run_queue_delay(files: SystemFiles) -> Finding:
    """Report whether the kernel says how long a thread was ready and not let run."""
    words = (text(files.proc / "self/schedstat") or "").split()
    if len(words) < 2 or not words[1].isdigit():
        return Finding(
            check="run-queue delay",
            status="missing",
            found="no /proc/PID/schedstat",
            advice="Other processes on the trainee's cores go unnoticed; leave the machine alone.",
        )
    return Finding(check="run-queue delay", status="ok", found="schedstat, in nanoseconds")


def processor_energy(files: SystemFiles) -> Finding:
    """Report whether the processor's energy can be read, and if not, why."""
    rapl = RaplCounter(files.sys / "class/powercap")
    if rapl.unavailable_reason is not None:
        return Finding(
            check="processor energy",
            status="missing",
            found=rapl.unavailable_reason,
            advice="Joules of the processor stay empty; virtual machines and macOS have none.",
        )
    return Finding(check="processor energy", status="ok", found="RAPL")


def torch_build(version: str, requirements: Sequence[str], driver_cuda: int | None) -> Finding:
    """Report for which devices torch was built.

    Args:
        version: torch's, as in `2.13.0+cu130`.
        requirements: what the distribution depends on.
        driver_cuda: the newest CUDA of the driver as NVML says it (12040 is 12.4), None without
            a GPU.
    """
    local = version.partition("+")[2]
    if local.startswith("rocm"):
        return Finding(
            check="torch",
            status="warning",
            found=f"torch {version}: built for AMD, which is not measured",
            advice="Time on the CPU, or install a CUDA build.",
        )
    cuda = _cuda_of(local, requirements)
    if cuda is None and driver_cuda is not None:
        return Finding(
            check="torch",
            status="warning",
            found=f"torch {version}: no CUDA in it, though there is a GPU",
            advice="Install a CUDA build: https://pytorch.org/get-started/locally",
        )
    if cuda is None:
        return Finding(check="torch", status="ok", found=f"torch {version}, for the CPU")
    found = f"torch {version}, for CUDA {cuda}"
    if driver_cuda is not None and int(cuda.partition(".")[0]) > driver_cuda // 1000:
        newest = f"{driver_cuda // 1000}.{driver_cuda % 1000 // 10}"
        return Finding(
            check="torch",
            status="warning",
            found=f"{found}; the driver goes up to CUDA {newest}",
            advice="Update the driver, or install a torch for the driver's CUDA.",
        )
    return Finding(check="torch", status="ok", found=found)


def _cuda_of(local: str, requirements: Sequence[str]) -> str | None:
    if match := re.fullmatch(r"cu(\d+)(\d)", local):
        return f"{match[1]}.{match[2]}"
    if local:
        return None
    # PyPI's wheels have no suffix. Those with CUDA depend on its libraries.
    for requirement in requirements:
        if match := re.match(r"nvidia-[a-z-]+-cu(\d+)\b|cuda-toolkit\D*==(\d+)", requirement):
            return match[1] or match[2]
    return None


def writable_folder(check: str, folder: Path, advice: str) -> Finding:
    """Report whether files can be made in a folder, which need not exist yet."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(check=check, status="missing", found=f"not writable: {error}", advice=advice)
    room_bytes = shutil.disk_usage(existing).free
    made = "" if existing == folder else " (made at the first run)"
    found = f"{folder}{made}, {room_bytes / 2**30:.1f} GiB free"
    if room_bytes < _LITTLE_ROOM_BYTES:
        return Finding(check=check, status="warning", found=found, advice=f"Make room. {advice}")
    return Finding(check=check, status="ok", found=found)


def lease(device: str, lease_name: str, folder: Path | None = None) -> Finding:
    """Report whether a run could hold its device alone now."""
    told: list[str] = []
    try:
        with leased(
            lease_name,
            share=False,
            waiting=told.append,
            interrupted=lambda: True,  # at once, where it would have to wait
            folder=folder,
        ):
            pass
    except KeyboardInterrupt:
        if not told:  # it was the user's own
            raise
        return Finding(
            check="lease",
            status="warning",
            found=f"a run holds {device} now",
            advice="Another run waits for it; --share goes on beside it, tainted.",
        )
    except UsageError as error:
        return Finding(
            check="lease",
            status="missing",
            found="no lock can be taken in the folder of the leases",
            advice=str(error),
        )
    return Finding(check="lease", status="ok", found=f"{device} is free")


def affinity() -> list[int]:
    """Return the logical CPUs that we may use."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    return sorted(os.sched_getaffinity(0))


def _cpus(numbers: Sequence[int]) -> str:
    """Return logical CPUs in the kernel's notation, `0-2,5`."""
    spans: list[list[int]] = []
    for cpu in numbers:
        if spans and cpu == spans[-1][1] + 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    words = ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
    return f"CPU {words}" if len(numbers) == 1 else f"CPUs {words}"
