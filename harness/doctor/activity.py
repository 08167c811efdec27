"""What else runs: two looks at the kernel's counters, and a core's steadiness in between."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from harness.doctor.finding import Finding
from harness.doctor.system_files import SystemFiles, field, number, text

SAMPLE_S = 0.5
# A tick of the kernel's counters is 10 ms: 2 % of the sample.
BUSY_CORES = 0.10  # of one process, or of all that cannot be seen
BUSY_LOAD = 0.5
BUSY_LOAD_A_CORE = 0.02
STOLEN = 0.02  # in the sample
STOLEN_SINCE_BOOT = 0.005
UNSTEADY = 0.05
_PIECE_BYTES = 1 << 20  # hashed in about a millisecond
_FEWEST_PIECES = 20
_NAMED = 3  # busiest processes


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessorTicks:
    """The line `cpu` of /proc/stat (proc_stat(5)), in ticks since boot."""

    busy: int
    stolen: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A process, its start and the ticks that it ran for (proc_pid_stat(5))."""

    name: str  # a kernel worker's changes with its work
    started: int
    ticks: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Activity:
    """The kernel's counters at one moment."""

    moment_ns: int
    processor: ProcessorTicks | None
    processes: dict[int, "Process"]  # by id
    heat_events: int | None  # times that a core or package slowed down by heat
    swapped_pages: int | None


def look(files: SystemFiles, clock_ns: Callable[[], int] = time.perf_counter_ns) -> Activity:
    """Read the counters."""
    vmstat = files.proc / "vmstat"
    moved = [field(vmstat, name) for name in ("pswpin", "pswpout")]
    return Activity(
        moment_ns=clock_ns(),
        processor=_processor(text(files.proc / "stat") or ""),
        processes=dict(_processes(files)),
        heat_events=_heat_events(files),
        swapped_pages=None if None in moved else sum(count or 0 for count in moved),
    )


def _processor(stat: str) -> ProcessorTicks | None:
    first, *_ = stat.splitlines() or [""]
    name, *words = first.split() or [""]
    if name != "cpu" or len(words) < 8:
        return None
    # user nice system idle iowait irq softirq steal; guests' time is within user and nice.
    user, nice, system, idle, waiting, irq, softirq, stolen = map(int, words[:8])
    busy = user + nice + system + irq + softirq
    return ProcessorTicks(busy=busy, stolen=stolen, total=busy + idle + waiting + stolen)


def _processes(files: SystemFiles) -> Iterator[tuple[int, Process]]:
    for path in files.proc.glob("[0-9]*/stat"):
        before, _, after = (text(path) or "").rpartition(")")
        words = after.split()
        if len(words) > 19:  # it may have ended since
            yield (
                int(path.parent.name),
                Process(
                    name=before.partition("(")[2],
                    started=int(words[19]),
                    ticks=int(words[11]) + int(words[12]),
                ),
            )


def _heat_events(files: SystemFiles) -> int | None:
    # https://docs.kernel.org/admin-guide/thermal/intel_thermal_throttle.html
    found = [
        number(path) for path in files.cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
    ]
    counts = [count for count in found if count is not None]
    return sum(counts) if counts else None


@contextmanager
def on_core(cpu: int | None) -> Iterator[None]:
    """Keep the calling thread on one CPU; None, or a platform that cannot: where it likes."""
    if cpu is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def work_pieces(seconds: float, clock_ns: Callable[[], int] = time.perf_counter_ns) -> list[int]:
    """Return the nanoseconds that equal pieces of work took, one after the other."""
    content = bytes(_PIECE_BYTES)
    took_ns: list[int] = []
    begun_ns = clock_ns()
    while clock_ns() - begun_ns < seconds * 1e9 or len(took_ns) < _FEWEST_PIECES:
        piece_ns = clock_ns()
        hashlib.sha256(content).digest()
        took_ns.append(clock_ns() - piece_ns)
    return took_ns


def steadiness(took_ns: Sequence[int]) -> Finding:
    """Report how much longer equal pieces of work took than the quickest tenth of them."""
    quick_ns = sorted(took_ns)[len(took_ns) // 10]
    lost = 1 - quick_ns * len(took_ns) / sum(took_ns)
    found = f"{max(lost, 0):.1%} of a core's time lost over {len(took_ns)} equal pieces of work"
    if lost > UNSTEADY:
        return Finding(
            check="steadiness",
            status="warning",
            found=found,
            advice="Look for the cause among the other lines here, then ask again.",
            effect="spread",
        )
    return Finding(check="steadiness", status="ok", found=found)


def load(average: tuple[float, float, float], cores: int) -> Finding:
    """Report the load average over 1, 5 and 15 minutes."""
    found = f"{average[0]:.2f} over a minute, {average[2]:.2f} over 15, {cores} CPUs"
    if average[0] >= max(BUSY_LOAD, BUSY_LOAD_A_CORE * cores):
        return Finding(
            check="load average",
            status="warning",
            found=found,
            advice="Wait a minute if something has just ended, else end it.",
            effect="spread",
        )
    return Finding(check="load average", status="ok", found=found)


def other_processes(
    before: Activity, after: Activity, own_pid: int, ticks_a_second: int
) -> Finding:
    """Report the processes that worked between two looks, ours left out."""
    if before.processor is None or after.processor is None:
        return Finding(check="other processes", status="missing", found="no /proc/stat")
    ticks = ticks_a_second * (after.moment_ns - before.moment_ns) / 1e9
    cores = {
        pid: _worked(before.processes.get(pid), process) / ticks
        for pid, process in after.processes.items()
    }
    own = cores.pop(own_pid, 0.0)
    all_busy = (after.processor.busy - before.processor.busy) / ticks
    unseen = max(0.0, all_busy - own - sum(cores.values()))
    busiest = sorted(cores.items(), key=lambda item: -item[1])[:_NAMED]
    notable = [
        f"{after.processes[pid].name} ({pid}) {share:.2f} cores"
        for pid, share in busiest
        if share >= BUSY_CORES
    ]
    # Two looks are not quite simultaneous, and short-lived children are counted nowhere.
    if unseen >= 3 * BUSY_CORES:
        notable.append(f"processes that are not visible here {unseen:.2f} cores")
    if notable:
        return Finding(
            check="other processes",
            status="warning",
            found=", ".join(notable),
            advice="End them, or wait; trainee and referee take every core.",
            effect="spread",
        )
    share = sum(cores.values()) + unseen
    return Finding(check="other processes", status="ok", found=f"{share:.2f} cores busy in all")


def _worked(before: Process | None, after: Process) -> int:
    """Return the ticks between two looks; a process that is new has done all its work since."""
    if before is None or before.started != after.started:
        return after.ticks
    return after.ticks - before.ticks


def stolen_time(before: Activity, after: Activity) -> Finding:
    """Report the time that a hypervisor gave to others while we were ready to run."""
    if before.processor is None or after.processor is None:
        return Finding(check="steal time", status="missing", found="no /proc/stat")
    elapsed = after.processor.total - before.processor.total
    stolen = max(0, after.processor.stolen - before.processor.stolen)
    now = stolen / elapsed if elapsed > 0 else 0.0
    ever = after.processor.stolen / after.processor.total if after.processor.total else 0.0
    found = f"{now:.1%} now, {ever:.2%} since boot"
    if now >= STOLEN or ever >= STOLEN_SINCE_BOOT:
        return Finding(
            check="steal time",
            status="warning",
            found=found,
            advice="The host is overbooked: choose dedicated cores or another host.",
            effect="spread",
        )
    return Finding(check="steal time", status="ok", found=found)


def heat(before: Activity, after: Activity) -> Finding:
    """Report slow-downs by heat, now and since boot."""
    if before.heat_events is None or after.heat_events is None:
        return Finding(check="heat", status="missing", found="no thermal_throttle counters")
    now = after.heat_events - before.heat_events
    if now:
        return Finding(
            check="heat",
            status="warning",
            found=f"{now} slow-downs just now, {after.heat_events:,} since boot",
            advice="Clear the vents, and leave pauses between runs; drift taints those it hits.",
            effect="spread",
        )
    if after.heat_events:
        return Finding(
            check="heat",
            status="ok",
            found=f"none just now, {after.heat_events:,} slow-downs since boot",
            advice="Watch the drift of long runs.",
        )
    return Finding(check="heat", status="ok", found="no slow-down since boot")
