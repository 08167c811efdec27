"""The doctor's probes on made-up machines, and the whole examination on this one."""

import contextlib
import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st
from telemetry import nvml_double
from telemetry.nvml_double import NvmlDouble, Process, error, mig_instance

from harness.cores import CorePlan
from harness.device import Gpu
from harness.doctor import activity, gpus, instruments, processor, rehearsal
from harness.doctor.activity import Activity
from harness.doctor.examination import examine
from harness.doctor.finding import Effect, Finding, Status, verdict
from harness.doctor.rehearsal import Rehearsal, rehearse
from harness.doctor.stored_paces import stored_paces
from harness.doctor.system_files import SystemFiles
from harness.errors import UsageError
from harness.lease import leased
from harness.paces import Pace
from harness.telemetry.process_memory import ProcessTreeMemory

GIB = 2**30
PLAN = CorePlan(trainee=[1, 2, 3], referee=[0], threads=3, single_core=False)


@pytest.fixture
def files(tmp_path: Path) -> SystemFiles:
    return SystemFiles(proc=tmp_path / "proc", sys=tmp_path / "sys")


def put(root: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def statuses(findings: Iterable[Finding]) -> dict[str, Status]:
    return {finding.check: finding.status for finding in findings}


# -- what can be measured ----------------------------------------------------------------------


def ticking(step_ns: int) -> Callable[[], int]:
    return itertools.count(0, step_ns).__next__


@pytest.mark.parametrize(
    ("step_ns", "source", "status"),
    [
        (40, "tsc", "ok"),
        (100, "kvm-clock", "ok"),
        (40, None, "ok"),  # macOS
        (1000, "hpet", "warning"),
        (500, "acpi_pm", "warning"),
        (15_000_000, "tsc", "warning"),
        (0, "tsc", "warning"),
    ],
)
def test_the_clock(files: SystemFiles, step_ns: int, source: str | None, status: Status) -> None:
    if source:
        folder = files.sys / "devices/system/clocksource/clocksource0"
        put(folder, {"current_clocksource": f"{source}\n"})
    found = instruments.clock(files, ticking(step_ns), reads=50)
    assert found.status == status
    if step_ns:
        assert f"steps of {step_ns} ns" in found.found
    assert (found.advice is not None) == (status == "warning")


@pytest.mark.parametrize(
    ("plan", "status", "effect", "found"),
    [
        (PLAN, "ok", None, "trainee CPUs 1-3 (3 threads), referee CPU 0"),
        (
            CorePlan(trainee=[1, 4, 5, 7], referee=[0, 3], threads=1, single_core=False),
            "ok",
            None,
            "trainee CPUs 1,4-5,7 (1 thread), referee CPUs 0,3",
        ),
        (
            CorePlan(trainee=[2], referee=[2], threads=1, single_core=True),
            "warning",
            "taint",
            "trainee and referee share CPU 2: there is one core",
        ),
        (
            CorePlan(trainee=[], referee=[], threads=7, single_core=False),
            "missing",
            "spread",
            "this platform pins no process to a core",
        ),
    ],
)
def test_core_pinning(plan: CorePlan, status: Status, effect: Effect | None, found: str) -> None:
    finding = instruments.core_pinning(plan)
    assert (finding.status, finding.effect, finding.found) == (status, effect, found)


def test_a_tree_is_stopped_and_dies_with_its_parent_here() -> None:
    assert rehearse() == Rehearsal(tree_stopped=True, died_with_parent=True)
    assert set(statuses(instruments.process_tree(rehearse())).values()) == {"ok"}


def test_a_child_that_outlives_its_parent_is_noticed_and_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    tied = "    die_with_parent(parent)\n"
    assert tied in rehearsal._ACT
    untied = f"    open({str(note)!r}, 'w').write(str(os.getpid()))\n"
    monkeypatch.setattr(rehearsal, "_ACT", rehearsal._ACT.replace(tied, untied))
    monkeypatch.setattr(rehearsal, "OBEY_WITHIN_S", 0.1)
    assert rehearse() == Rehearsal(tree_stopped=True, died_with_parent=False)
    monkeypatch.undo()
    assert rehearsal._comes_to(Path("/proc"), [int(note.read_text())], "ZX")


@pytest.mark.parametrize("act", ["raise SystemExit", "print('words', flush=True)"])
def test_a_rehearsal_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    monkeypatch.setattr(rehearsal, "_ACT", act)
    failed = rehearse()
    assert failed.failure == "a child process that asks to die with its parent does not start"
    assert set(statuses(instruments.process_tree(failed)).values()) == {"missing"}


def test_macos_has_no_process_tree_stop() -> None:
    stop, death = instruments.process_tree(rehearse(platform="darwin"))
    assert (stop.status, stop.found) == ("missing", "Linux only; this is darwin")
    assert (death.status, death.found) == ("missing", "Linux only; this is darwin")
    assert stop.advice
    assert death.advice


def test_the_memory_peak_rises_and_falls_here() -> None:
    assert instruments.memory_peak(ProcessTreeMemory(os.getpid())).status == "ok"


class MemoryDouble(ProcessTreeMemory):
    """Gives the peaks of a list, one after the other."""

    def __init__(self, peaks: list[int | None], resettable: bool) -> None:
        self._peaks = iter(peaks)
        self._resettable = resettable

    def reset_peak(self) -> bool:
        return self._resettable

    def peak(self) -> int | None:
        return next(self._peaks)


@pytest.mark.parametrize(
    ("peaks", "resettable", "status", "words"),
    [
        ([10, 4106, 12], True, "ok", "falls at a reset"),
        ([None], False, "missing", "no VmHWM"),
        ([10, 10, 10], True, "missing", "does not follow"),
        ([10, 4106], False, "warning", "reset does not work"),
        ([9000, 9000], False, "warning", "reset does not work"),  # an older peak hides the rise
        ([10, 4106, 4106], True, "warning", "reset does not work"),
    ],
)
def test_the_memory_peak(
    peaks: list[int | None], resettable: bool, status: Status, words: str
) -> None:
    finding = instruments.memory_peak(MemoryDouble(peaks, resettable), fill_bytes=4096)
    assert finding.status == status
    assert words in finding.found


def test_the_run_queue_delay(files: SystemFiles) -> None:
    assert instruments.run_queue_delay(files).status == "missing"
    put(files.proc, {"self/schedstat": "1435190 329956 2\n"})
    assert instruments.run_queue_delay(files).status == "ok"


def test_the_processors_energy(files: SystemFiles) -> None:
    finding = instruments.processor_energy(files)
    assert finding.status == "missing"
    assert "no RAPL package" in finding.found
    folder = files.sys / "class/powercap/intel-rapl:0"
    put(folder, {"name": "package-0", "energy_uj": "1000", "max_energy_range_uj": "999999"})
    assert instruments.processor_energy(files).status == "ok"


@pytest.mark.parametrize(
    ("version", "requirements", "driver_cuda", "status", "words"),
    [
        ("2.13.0+cpu", [], None, "ok", "for the CPU"),
        ("2.13.0", ["filelock", "sympy"], None, "ok", "for the CPU"),  # macOS
        ("2.13.0+cpu", [], 13000, "warning", "no CUDA in it, though there is a GPU"),
        ("2.13.0+cu130", [], 13000, "ok", "for CUDA 13.0"),
        ("2.13.0+cu126", [], 13010, "ok", "for CUDA 12.6"),
        ("2.13.0+cu130", [], 12040, "warning", "the driver goes up to CUDA 12.4"),
        ("2.11.0", ["nvidia-cudnn-cu12==9; linux"], 12080, "ok", "for CUDA 12"),
        ("2.11.0", ["cuda-toolkit[nvrtc]==13.0.2; linux"], 12080, "warning", "up to CUDA 12.8"),
        ("2.13.0+cu130", [], None, "ok", "for CUDA 13.0"),
        ("2.13.0+rocm6.4", [], None, "warning", "AMD"),
    ],
)
def test_the_build_of_torch(
    version: str, requirements: list[str], driver_cuda: int | None, status: Status, words: str
) -> None:
    finding = instruments.torch_build(version, requirements, driver_cuda)
    assert finding.status == status
    assert words in finding.found


def test_a_folder_that_can_be_written_to(tmp_path: Path) -> None:
    there = instruments.writable_folder("results", tmp_path, "Name another.")
    assert there.status == "ok"
    assert f"{tmp_path}, " in there.found
    coming = instruments.writable_folder("results", tmp_path / "a/b", "Name another.")
    assert coming.status == "ok"
    assert "made at the first run" in coming.found
    assert list(tmp_path.iterdir()) == []  # nothing was left


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = instruments.writable_folder("results", tmp_path / "file" / "below", "Name another.")
    assert (finding.status, finding.advice) == ("missing", "Name another.")


def test_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=GIB // 2))
    finding = instruments.writable_folder("results", tmp_path, "Name another.")
    assert (finding.status, finding.advice) == ("warning", "Make room. Name another.")
    assert "0.5 GiB free" in finding.found


def test_a_lease_that_is_free_and_one_that_is_held(tmp_path: Path) -> None:
    assert instruments.lease("cpu", "cpu", tmp_path).status == "ok"
    with leased(
        "cpu", share=False, waiting=lambda text: None, interrupted=lambda: False, folder=tmp_path
    ):
        held = instruments.lease("cpu", "cpu", tmp_path)
        assert (held.status, held.found) == ("warning", "a run holds cpu now")
        assert instruments.lease("cuda:0", "GPU-1", tmp_path).status == "warning"
    assert instruments.lease("cpu", "cpu", tmp_path).status == "ok"


def test_a_folder_without_leases(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = instruments.lease("cpu", "cpu", tmp_path / "file")
    assert finding.status == "missing"
    assert "TMPDIR" in str(finding.advice)


# -- the processor -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("governors", "status", "found"),
    [
        (["performance", "performance"], "ok", "performance"),
        (["powersave", "performance"], "warning", "powersave"),
        (["schedutil", "ondemand"], "warning", "ondemand, schedutil"),
        ([], "missing", "not visible: firmware or a hypervisor decides"),
    ],
)
def test_the_governor(files: SystemFiles, governors: list[str], status: Status, found: str) -> None:
    for cpu, governor in enumerate(governors):
        put(files.cpus, {f"cpu{cpu}/cpufreq/scaling_governor": governor + "\n"})
    finding = processor.frequency_governor(files)
    assert (finding.status, finding.found) == (status, found)


@pytest.mark.parametrize(
    ("contents", "status", "on"),
    [
        ({}, "missing", None),
        ({"intel_pstate/no_turbo": "1"}, "ok", False),
        ({"intel_pstate/no_turbo": "0"}, "ok", True),
        ({"cpufreq/boost": "1"}, "ok", True),
        ({"cpufreq/boost": "0"}, "ok", False),
    ],
)
def test_turbo(
    files: SystemFiles, contents: dict[str, str], status: Status, on: bool | None
) -> None:
    put(files.cpus, contents)
    finding = processor.turbo(files)
    assert finding.status == status
    assert (finding.advice is not None) == (on is True)
    if on:
        assert next(iter(contents)) in str(finding.advice)


@pytest.mark.parametrize(
    ("contents", "status", "words"),
    [
        ({}, "ok", "none"),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000"}, "ok", "none"),
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/cpu.max": "150000 100000",
                "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_periods 90\nnr_throttled 1234\n",
            },
            "warning",
            "1.5 of 8 CPUs' time; stopped 1,234 times so far",
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu/cpu.stat": "nr_periods 3\nnr_throttled 0\n",
            },
            "warning",
            "4 of 8 CPUs' time",
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "800000 100000"}, "ok", "8 of 8"),
    ],
)
def test_a_containers_quota(
    files: SystemFiles, contents: dict[str, str], status: Status, words: str
) -> None:
    put(files.proc.parent, contents)
    finding = processor.cpu_time_quota(files, available=8)
    assert finding.status == status
    assert words in finding.found


@pytest.mark.parametrize(
    ("contents", "status", "found"),
    [
        ({"proc/cpuinfo": "flags\t\t: fpu vme sse\n"}, "ok", "none seen"),
        ({}, "ok", "none seen"),
        ({"proc/cpuinfo": "flags\t\t: fpu hypervisor sse\n"}, "warning", "this is one"),
        (
            {
                "proc/cpuinfo": "model name\t: x\nflags\t\t: hypervisor\n",
                "sys/class/dmi/id/sys_vendor": "QEMU\n",
                "sys/class/dmi/id/product_name": "Standard PC\n",
            },
            "warning",
            "this is one: QEMU Standard PC",
        ),
        ({"sys/hypervisor/type": "xen\n"}, "warning", "this is one: xen"),
        ({"proc/cpuinfo": "flags\t\t: nohypervisor\n"}, "ok", "none seen"),
    ],
)
def test_a_virtual_machine(
    files: SystemFiles, contents: dict[str, str], status: Status, found: str
) -> None:
    put(files.proc.parent, contents)
    finding = processor.virtual_machine(files)
    assert (finding.status, finding.found) == (status, found)


@pytest.mark.parametrize(
    ("supplies", "status"),
    [
        ({}, "ok"),
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging", "AC/type": "Mains"}, "warning"),
        (
            {
                "BAT0/type": "Battery",
                "BAT0/status": "Discharging",
                "AC/type": "Mains",
                "AC/online": "0",
            },
            "warning",
        ),
        (
            {
                "BAT0/type": "Battery",
                "BAT0/status": "Charging",
                "AC/type": "Mains",
                "AC/online": "1",
            },
            "ok",
        ),
        # A weak charger: plugged in, and yet the battery empties.
        (
            {
                "BAT0/type": "Battery",
                "BAT0/status": "Discharging",
                "usb/type": "USB",
                "usb/online": "1",
            },
            "ok",
        ),
        (
            {"mouse/type": "Battery", "mouse/status": "Discharging", "mouse/scope": "Device"},
            "ok",
        ),
    ],
)
def test_a_laptop_on_its_battery(
    files: SystemFiles, supplies: dict[str, str], status: Status
) -> None:
    put(files.sys / "class/power_supply", supplies)
    assert processor.battery(files).status == status


@pytest.mark.parametrize(
    ("siblings", "available", "status", "words"),
    [
        ({}, [0, 1, 2, 3], "ok", "one thread a core"),
        ({1: "1", 2: "2", 3: "3"}, [0, 1, 2, 3], "ok", "one thread a core"),
        ({1: "1,5", 2: "2,6", 3: "3,7"}, list(range(8)), "ok", "two or more a core"),
        ({1: "1,5", 2: "2,6", 3: "3"}, [0, 1, 2, 3], "warning", "(CPU 5, 6)"),
    ],
)
def test_hyperthreads(
    files: SystemFiles,
    siblings: dict[int, str],
    available: list[int],
    status: Status,
    words: str,
) -> None:
    for cpu, text in siblings.items():
        put(files.cpus, {f"cpu{cpu}/topology/thread_siblings_list": text + "\n"})
    finding = processor.hyperthreads(files, available, PLAN)
    assert finding.status == status
    assert words in finding.found


@pytest.mark.parametrize(
    ("nodes", "status", "found"),
    [
        ({}, "ok", "none seen"),
        ({0: "0-3"}, "ok", "one"),
        ({0: "0-1", 1: "2-3"}, "warning", "the trainee's cores lie on nodes 0, 1"),
        ({0: "0", 1: "1-3", 2: ""}, "ok", "one"),  # node 2 is memory alone
    ],
)
def test_memory_nodes(
    files: SystemFiles, nodes: dict[int, str], status: Status, found: str
) -> None:
    for node, cpus in nodes.items():
        put(files.sys / "devices/system/node", {f"node{node}/cpulist": cpus + "\n"})
    finding = processor.memory_nodes(files, PLAN)
    assert (finding.status, finding.found) == (status, found)


def meminfo(*, available_gib: int = 8, swap_gib: float = 0, swap_used_mib: int = 0) -> str:
    swap_kib = int(swap_gib * 2**20)
    return (
        f"MemTotal:       {16 * 2**20} kB\nMemFree:        1 kB\n"
        f"MemAvailable:   {available_gib * 2**20} kB\n"
        f"SwapTotal:      {swap_kib} kB\nSwapFree:       {swap_kib - swap_used_mib * 1024} kB\n"
    )


@pytest.mark.parametrize(
    ("text", "moved", "status", "words"),
    [
        (meminfo(), 0, "ok", "8.0 of 16.0 GiB available, swap none"),
        (meminfo(swap_gib=4, swap_used_mib=3), 0, "ok", "swap 3 MiB used"),
        (meminfo(swap_gib=4, swap_used_mib=900), 0, "warning", "swap 900 MiB used"),
        (meminfo(swap_gib=4, swap_used_mib=3), 17, "warning", "17 pages moved just now"),
        (meminfo(available_gib=1), None, "warning", "1.0 of 16.0 GiB"),
        ("", None, "missing", "no /proc/meminfo"),
    ],
)
def test_swap(files: SystemFiles, text: str, moved: int | None, status: Status, words: str) -> None:
    put(files.proc, {"meminfo": text})
    finding = processor.memory_room(files, moved)
    assert finding.status == status
    assert words in finding.found


# -- what else runs ----------------------------------------------------------------------------


def stat_of(pid: int, name: str, ticks: int, started: int = 7) -> dict[str, str]:
    words = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 6, str(started), "0", "0"]
    return {f"{pid}/stat": f"{pid} ({name}) {' '.join(words)}\n"}


def looks(
    files: SystemFiles, before: dict[str, str], after: dict[str, str], seconds: float = 0.5
) -> tuple[Activity, Activity]:
    put(files.proc, before)
    first = activity.look(files, lambda: 0)
    put(files.proc, after)
    return first, activity.look(files, lambda: int(seconds * 1e9))


def cpu_line(busy: int, idle: int, stolen: int = 0) -> dict[str, str]:
    return {"stat": f"cpu  {busy} 0 0 {idle} 0 0 0 {stolen} 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n"}


def test_a_busy_process_is_named(files: SystemFiles) -> None:
    before = cpu_line(100, 1000) | stat_of(5, "a (b) c", 10) | stat_of(9, "ours", 0)
    after = cpu_line(180, 1020) | stat_of(5, "a (b) c", 40) | stat_of(9, "ours", 50)
    finding = activity.other_processes(*looks(files, before, after), 9, 100)
    assert finding.status == "warning"
    assert finding.found == "a (b) c (5) 0.60 cores"


def test_our_own_work_is_no_disturbance(files: SystemFiles) -> None:
    before = cpu_line(100, 1000) | stat_of(9, "ours", 0)
    after = cpu_line(150, 1050) | stat_of(9, "ours", 50)
    finding = activity.other_processes(*looks(files, before, after), 9, 100)
    assert (finding.status, finding.found) == ("ok", "0.00 cores busy in all")


def test_what_a_container_hides_is_noticed(files: SystemFiles) -> None:
    finding = activity.other_processes(
        *looks(files, cpu_line(100, 1000), cpu_line(200, 1000)), 9, 100
    )
    assert finding.status == "warning"
    assert finding.found == "processes that are not visible here 2.00 cores"


def test_a_process_id_that_is_used_again_is_another_process(files: SystemFiles) -> None:
    before = cpu_line(100, 1000) | stat_of(5, "old", 900)
    after = cpu_line(120, 1030) | stat_of(5, "new", 20, started=8)
    finding = activity.other_processes(*looks(files, before, after), 9, 100)
    assert finding.found == "new (5) 0.40 cores"


def test_a_kernel_worker_that_changes_its_name_is_the_same(files: SystemFiles) -> None:
    before = cpu_line(100, 1000) | stat_of(5, "kworker-a", 900)
    after = cpu_line(101, 1049) | stat_of(5, "kworker-b", 901)
    assert activity.other_processes(*looks(files, before, after), 9, 100).status == "ok"


def test_where_there_is_no_proc_nothing_is_known(files: SystemFiles) -> None:
    before, after = activity.look(files), activity.look(files)
    assert before.processor is None
    assert activity.other_processes(before, after, 9, 100).status == "missing"
    assert activity.stolen_time(before, after).status == "missing"
    assert activity.heat(before, after).status == "missing"


@pytest.mark.parametrize(
    ("before", "after", "status", "found"),
    [
        (cpu_line(100, 900, 0), cpu_line(150, 950, 0), "ok", "0.0% now, 0.00% since boot"),
        (cpu_line(1000, 99000, 0), cpu_line(1040, 99050, 10), "warning", "10.0% now, 0.01%"),
        (cpu_line(800, 9000, 200), cpu_line(850, 9050, 200), "warning", "0.0% now, 1.98%"),
        (cpu_line(800, 9000, 0), cpu_line(800, 9000, 0), "ok", "0.0% now"),
    ],
)
def test_steal(
    files: SystemFiles,
    before: dict[str, str],
    after: dict[str, str],
    status: Status,
    found: str,
) -> None:
    finding = activity.stolen_time(*looks(files, before, after))
    assert finding.status == status
    assert found in finding.found


def test_a_counter_that_runs_backwards_gives_no_negative_share(files: SystemFiles) -> None:
    # As steal does after a live migration.
    readings = looks(files, cpu_line(900, 9000, 30), cpu_line(890, 9100, 10), seconds=1)
    assert activity.stolen_time(*readings).found == "0.0% now, 0.10% since boot"
    assert activity.other_processes(*readings, 9, 100).found == "0.00 cores busy in all"


@pytest.mark.parametrize(
    ("before", "after", "status", "words"),
    [
        ((0, 0), (0, 0), "ok", "no slow-down since boot"),
        ((2, 1), (2, 1), "ok", "none just now, 3 slow-downs since boot"),
        ((2, 1), (4, 2), "warning", "3 slow-downs just now, 6 since boot"),
    ],
)
def test_heat(
    files: SystemFiles,
    before: tuple[int, int],
    after: tuple[int, int],
    status: Status,
    words: str,
) -> None:
    readings = []
    for core, package in (before, after):
        put(
            files.cpus / "cpu0/thermal_throttle",
            {"core_throttle_count": f"{core}\n", "package_throttle_count": f"{package}\n"},
        )
        readings.append(activity.look(files))
    finding = activity.heat(*readings)
    assert (finding.status, finding.found) == (status, words)


def test_swapped_pages_are_counted(files: SystemFiles) -> None:
    before, after = looks(
        files, {"vmstat": "pswpin 3\npswpout 4\n"}, {"vmstat": "pswpin 5\npswpout 14\n"}
    )
    assert (before.swapped_pages, after.swapped_pages) == (7, 19)


@pytest.mark.parametrize(
    ("minute", "cores", "status"),
    [(0.2, 2, "ok"), (0.6, 2, "warning"), (0.6, 128, "ok"), (4.0, 128, "warning")],
)
def test_the_load_average(minute: float, cores: int, status: Status) -> None:
    assert activity.load((minute, 0.0, 0.0), cores).status == status


@pytest.mark.parametrize(
    ("took_ns", "status", "words"),
    [
        ([1000] * 50, "ok", "0.0% of a core's time lost over 50"),
        ([1000] * 45 + [1020] * 5, "ok", "0.2%"),
        # Somebody else's time slice now and then.
        ([1000] * 48 + [5000] * 2, "warning", "13.8%"),
        # The clock rate fell.
        ([1000] * 25 + [1300] * 25, "warning", "13.0%"),
        # One quick piece makes no unsteady core.
        ([10] + [1000] * 49, "ok", ""),
    ],
)
def test_steadiness(took_ns: list[int], status: Status, words: str) -> None:
    finding = activity.steadiness(took_ns)
    assert finding.status == status
    assert words in finding.found


@given(st.lists(st.integers(1, 10**9), min_size=20, max_size=200), st.integers(1, 1000))
def test_steadiness_does_not_depend_on_the_speed_of_the_machine(
    took_ns: list[int], factor: int
) -> None:
    slower = [piece * factor for piece in took_ns]
    assert activity.steadiness(slower).found == activity.steadiness(took_ns).found


def test_pieces_of_work_are_timed_one_by_one_for_so_long() -> None:
    begun = time.perf_counter()
    took_ns = activity.work_pieces(seconds=0.05)
    assert len(took_ns) >= 20
    assert min(took_ns) > 0
    assert sum(took_ns) / 1e9 <= time.perf_counter() - begun


def test_the_affinity_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    cpu = max(before)
    with contextlib.suppress(ZeroDivisionError), activity.on_core(cpu):
        assert os.sched_getaffinity(0) == {cpu}
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before
    with activity.on_core(None):
        assert os.sched_getaffinity(0) == before


# -- GPUs --------------------------------------------------------------------------------------


@dataclass(kw_only=True, slots=True)
class Card(nvml_double.Device):
    """A healthy H100, on which nobody works."""

    memory_used: int | Exception = GIB // 2
    utilisation_percent: int | Exception = 0
    memory_total: int = 80 * GIB
    drawing: list[Process] | Exception = field(default_factory=list)
    power_limit_mw: int | Exception = 700_000
    mig_mode: list[int] | Exception = field(default_factory=lambda: [0, 0])
    persistence: int | Exception = 1
    virtualisation: int | Exception = 0
    ecc_mode: list[int] | Exception = field(default_factory=lambda: [1, 1])
    ecc_errors: int | Exception = 0
    link_width: int | Exception = 16


class Nvml(NvmlDouble):
    """The double with all that the doctor asks."""

    NVML_DEVICE_MIG_ENABLE = pynvml.NVML_DEVICE_MIG_ENABLE
    NVML_FEATURE_ENABLED = pynvml.NVML_FEATURE_ENABLED
    NVML_GPU_VIRTUALIZATION_MODE_VGPU = pynvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    NVML_VOLATILE_ECC = pynvml.NVML_VOLATILE_ECC

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetUUID(self, handle: Card) -> str:
        return handle.uuid

    def nvmlDeviceGetName(self, handle: Card) -> str:
        return "NVIDIA H100"

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.1"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 12080

    def nvmlDeviceGetMemoryInfo(self, handle: nvml_double.Device) -> SimpleNamespace:
        assert isinstance(handle, Card)
        used = nvml_double._given(handle.memory_used)
        return SimpleNamespace(used=used, total=handle.memory_total)

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Card) -> list[Process]:
        return nvml_double._given(handle.drawing)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Card) -> int:
        return nvml_double._given(handle.power_limit_mw)

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: Card) -> int:
        return 700_000

    def nvmlDeviceGetMigMode(self, handle: Card) -> list[int]:
        return nvml_double._given(handle.mig_mode)

    def nvmlDeviceGetPersistenceMode(self, handle: Card) -> int:
        return nvml_double._given(handle.persistence)

    def nvmlDeviceGetVirtualizationMode(self, handle: Card) -> int:
        return nvml_double._given(handle.virtualisation)

    def nvmlDeviceGetEccMode(self, handle: Card) -> list[int]:
        return nvml_double._given(handle.ecc_mode)

    def nvmlDeviceGetTotalEccErrors(self, handle: Card, kind: int, counter: int) -> int:
        return nvml_double._given(handle.ecc_errors)

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: Card) -> int:
        return nvml_double._given(handle.link_width)

    def nvmlDeviceGetMaxPcieLinkWidth(self, handle: Card) -> int:
        return 16


GPU = Gpu(index=0, uuid="GPU-0b1c", name="NVIDIA H100", driver="570.1")
NOT_SUPPORTED = error(pynvml.NVML_ERROR_NOT_SUPPORTED)


def disturbances(card: Card, files: SystemFiles, gpu: Gpu = GPU) -> list[Finding]:
    nvml = Nvml(card)
    found = gpus.disturbances(nvml, gpu, files)
    assert nvml.initialised == 0  # shut down as often as initialised
    return found


def test_a_healthy_gpu_is_one_good_line(files: SystemFiles) -> None:
    (finding,) = disturbances(Card(), files)
    assert (finding.check, finding.status, finding.effect) == ("cuda:0", "ok", None)


def test_a_foreign_process_on_the_gpu_is_named(files: SystemFiles) -> None:
    put(files.proc, {"4321/comm": "python\n"})
    card = Card(
        processes=[Process(pid=4321, usedGpuMemory=GIB), Process(pid=99, usedGpuMemory=None)]
    )
    (finding,) = disturbances(card, files)
    assert (finding.check, finding.effect) == ("cuda:0 other processes", "taint")
    assert finding.found == "unseen (99), python (4321)"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"memory_used": 30 * GIB}, "30.0 GiB in use, by nobody who is visible here"),
        ({"utilisation_percent": 97}, "97 % busy, by nobody who is visible here"),
        (
            {"memory_used": 30 * GIB, "utilisation_percent": 97, "processes": NOT_SUPPORTED},
            "97 % busy, 30.0 GiB in use, by nobody",
        ),
    ],
)
def test_a_process_that_the_container_hides_shows_by_its_work(
    files: SystemFiles, fields: dict[str, Any], words: str
) -> None:
    (finding,) = disturbances(Card(**fields), files)
    assert (finding.check, finding.effect) == ("cuda:0 other processes", "taint")
    assert words in finding.found


@pytest.mark.parametrize(
    ("fields", "check", "effect", "words"),
    [
        (
            {"drawing": [Process(pid=7, usedGpuMemory=1)]},
            "cuda:0 screen",
            "spread",
            "unseen (7)",
        ),
        (
            {"event_reasons": 0x40 | 0x1},
            "cuda:0 throttling",
            "taint",
            "hw thermal slowdown",
        ),
        (
            {"event_reasons": NOT_SUPPORTED, "throttle_reasons": 0x80},
            "cuda:0 throttling",
            "taint",
            "hw power brake slowdown",
        ),
        ({"power_limit_mw": 500_000}, "cuda:0 power limit", "shift", "500 W, by default 700 W"),
        ({"mig_mode": [1, 1]}, "cuda:0 MIG", "shift", "instances only"),
        ({"virtualisation": 2}, "cuda:0 virtual GPU", "spread", "share of a GPU"),
        ({"persistence": 0}, "cuda:0 persistence mode", "spread", "off"),
        ({"ecc_errors": 3}, "cuda:0 memory errors", "taint", "3 since"),
        ({"ecc_mode": [1, 0]}, "cuda:0 ECC", "shift", "on now, off after"),
        ({"link_width": 8}, "cuda:0 PCIe link", "shift", "×8 of ×16"),
    ],
)
def test_what_disturbs_timing_on_a_gpu(
    files: SystemFiles, fields: dict[str, Any], check: str, effect: Effect, words: str
) -> None:
    (finding,) = disturbances(Card(**fields), files)
    assert (finding.check, finding.status, finding.effect) == (check, "warning", effect)
    assert words in finding.found
    assert finding.advice
    assert finding.device == "cuda:0"


@pytest.mark.parametrize("reasons", [0x1, 0x2, 0x4, 0x10])
def test_idling_and_a_power_cap_are_no_throttling(files: SystemFiles, reasons: int) -> None:
    (finding,) = disturbances(Card(event_reasons=reasons), files)
    assert finding.status == "ok"


def test_a_gpu_that_answers_nothing_is_not_accused(files: SystemFiles) -> None:
    names = (
        "memory_used utilisation_percent processes drawing power_limit_mw mig_mode persistence "
        "virtualisation ecc_mode ecc_errors link_width event_reasons throttle_reasons "
        "energy_mj power_mw sm_clock_mhz temperature_c"
    )
    silence: dict[str, Any] = dict.fromkeys(names.split(), NOT_SUPPORTED)
    card = Card(**silence)
    assert {finding.status for finding in disturbances(card, files)} == {"ok"}
    finding = gpus.telemetry(Nvml(card), GPU)
    assert finding.status == "missing"
    assert "no figures" in finding.found


def test_a_mig_instance_shares_power_and_clocks(files: SystemFiles) -> None:
    card = Card(uuid="MIG-77aa", mig_mode=NOT_SUPPORTED, persistence=NOT_SUPPORTED)
    gpu = Gpu(index=0, uuid="MIG-77aa", name="MIG instance", driver="570.1")
    (finding,) = disturbances(card, files, gpu)
    assert (finding.check, finding.effect) == ("cuda:0 MIG", "spread")


def test_a_gpu_that_nvml_does_not_know(files: SystemFiles) -> None:
    gpu = Gpu(index=1, uuid="GPU-gone", name="NVIDIA H100", driver="570.1")
    nvml = Nvml(Card())
    assert gpus.disturbances(nvml, gpu, files) == []
    finding = gpus.telemetry(nvml, gpu)
    assert (finding.check, finding.status) == ("cuda:1", "missing")
    assert "no such GPU" in finding.found
    assert nvml.initialised == 0


def test_the_figures_of_a_gpu() -> None:
    nvml = Nvml(Card())
    finding = gpus.telemetry(nvml, GPU)
    assert nvml.initialised == 0
    assert finding == Finding(
        check="cuda:0",
        status="ok",
        found="NVIDIA H100, 80 GiB, driver 570.1: memory, power, energy counter, process ids, "
        "throttle reasons, utilisation",
        device="cuda:0",
    )


def test_without_an_energy_counter_the_power_is_summed_up() -> None:
    finding = gpus.telemetry(Nvml(Card(energy_mj=NOT_SUPPORTED)), GPU)
    assert finding.status == "missing"
    assert finding.found.endswith("not energy counter")
    assert "summed up" in str(finding.advice)


def test_a_mig_instances_figures() -> None:
    instance = mig_instance()
    card = Card(**{name: getattr(instance, name) for name in instance.__dataclass_fields__})
    gpu = Gpu(index=0, uuid=card.uuid, name="MIG instance", driver="570.1")
    finding = gpus.telemetry(Nvml(card), gpu)
    assert finding.status == "missing"
    assert "memory, process ids; not power, energy counter" in finding.found


def test_the_driver() -> None:
    nvml = Nvml(Card())
    assert gpus.driver(nvml) == gpus.Driver(version="570.1", cuda=12080)
    assert nvml.initialised == 0
    broken = Nvml(init_error=error(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    assert str(gpus.driver(broken).failure).startswith("no NVIDIA driver: ")
    assert gpus.disturbances(broken, GPU, SystemFiles()) == []


# -- stored paces ------------------------------------------------------------------------------

NOW_NS = 10**18
DAY_NS = 86_400 * 10**9


def a_pace(**fields: Any) -> Pace:
    pace = Pace(
        workload="resnet/digits",
        workload_version=1,
        machine_class="a class",
        host="a host",
        pace_ns=1_000_000,
        steps=30,
        quartile_low_ns=990_000,
        quartile_high_ns=1_010_000,
        measured_unix_ns=NOW_NS - DAY_NS,
    )
    return msgspec.structs.replace(pace, **fields)


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({}, "ok", "1 measured, all steadily"),
        ({"quartile_high_ns": 1_400_000}, "warning", "1 ms ± 20%, 1 days old"),  # (1.4-0.99)/2
        ({"measured_unix_ns": NOW_NS - 100 * DAY_NS}, "warning", "100 days old"),
        ({"host": "another", "quartile_high_ns": 9_000_000}, "ok", "none yet"),
        ({"machine_class": "another", "quartile_high_ns": 9_000_000}, "ok", "none yet"),
    ],
)
def test_stored_paces(tmp_path: Path, fields: dict[str, Any], status: Status, words: str) -> None:
    (tmp_path / "pace.json").write_bytes(msgspec.json.encode(a_pace(**fields)))
    (finding,) = stored_paces(tmp_path, "a host", "a class", NOW_NS)
    assert finding.status == status
    assert words in finding.found


def test_no_stored_pace_and_a_damaged_one(tmp_path: Path) -> None:
    assert stored_paces(tmp_path / "none", "h", "c")[0].status == "ok"
    (tmp_path / "bad.json").write_text("{")
    (finding,) = stored_paces(tmp_path, "h", "c")
    assert finding.status == "warning"
    assert "Delete it" in finding.found


# -- the verdict -------------------------------------------------------------------------------


def warning(check: str, effect: Effect | None, device: str | None = None) -> Finding:
    return Finding(check=check, status="warning", found="", effect=effect, device=device)


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        ([], "Timing on cuda:0 is trustworthy: nothing was found that disturbs it."),
        (
            [warning("virtual machine", "shift")],
            "Timing on cuda:0 is trustworthy for runs side by side: expect other times on another "
            "day or machine (virtual machine).",
        ),
        (
            [warning("load", "spread"), warning("battery", "spread"), warning("vm", "shift")],
            "Timing on cuda:0 is trustworthy for differences well above its noise, in interleaved "
            "pairs with enough seeds: expect spread from run to run (load, battery) and other "
            "times on another day or machine (vm).",
        ),
        (
            [warning("core pinning", "taint"), warning("load", "spread")],
            "Runs on cuda:0 would be tainted now (core pinning); expect spread from run to run "
            "(load).",
        ),
        ([warning("x", "taint")], "Runs on cuda:0 would be tainted now (x)."),
        (
            [warning("lease", None), warning("x", "taint", "cuda:1")],
            "Timing on cuda:0 is trustworthy: nothing was found that disturbs it.",
        ),
    ],
)
def test_the_verdict(findings: list[Finding], words: str) -> None:
    assert verdict("cuda:0", findings) == words


def test_what_is_good_never_counts_against_a_machine() -> None:
    good = Finding(check="x", status="ok", found="", effect="taint")
    assert "nothing was found" in verdict("cpu", [good])


# -- the whole examination ---------------------------------------------------------------------


@pytest.fixture
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # put back afterwards
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("own_folders")
def test_this_machine_is_examined_without_changing_it(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    examination = examine("cpu", tmp_path / "results", sample_s=0.02)
    assert os.sched_getaffinity(0) == before
    assert examination.device == "cpu"
    assert examination.verdict.endswith(".")
    for finding in [*examination.measurable, *examination.disturbances]:
        assert finding.found
        if finding.status == "warning":
            assert finding.advice
    assert not (tmp_path / "results").exists()
    assert "GPU" not in statuses(examination.measurable)


@pytest.mark.usefixtures("own_folders")
def test_a_gpu_box_with_a_foreign_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: SystemFiles
) -> None:
    put(files.proc, {"4321/comm": "python\n", "4321/stat": "4321 (python) S"})
    cards = (
        Card(uuid="GPU-a"),
        Card(uuid="GPU-b", processes=[Process(pid=4321, usedGpuMemory=GIB)]),
    )
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(*cards))
    monkeypatch.setattr("importlib.metadata.version", {"torch": "2.13.0+cu126"}.__getitem__)
    every = examine("auto", tmp_path, files, sample_s=0.02)
    assert every.device == "cuda:0"
    assert statuses(every.measurable)["cuda:1"] == "ok"
    assert statuses(every.disturbances)["cuda:1 other processes"] == "warning"
    assert "cuda:1" not in every.verdict
    one = examine("cuda:1", tmp_path, files, sample_s=0.02)
    assert "cuda:0" not in statuses(one.measurable)
    assert one.verdict.startswith("Runs on cuda:1 would be tainted now (cuda:1 other processes)")


@pytest.mark.usefixtures("own_folders")
def test_a_macintosh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: SystemFiles) -> None:
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name)
    examination = examine("cpu", tmp_path, files, sample_s=0.02, platform="darwin")
    found = statuses(examination.measurable)
    missing = {check for check, status in found.items() if status == "missing"}
    assert missing == {
        "core pinning",
        "process-tree stop",
        "kill with parent",
        "memory high-water mark",
        "run-queue delay",
        "processor energy",
    }
    assert "core pinning" in examination.verdict


@pytest.mark.usefixtures("own_folders")
def test_a_gpu_that_is_not_there_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not exist|needs a CUDA build"):
        examine("cuda:7", tmp_path, sample_s=0.02)


@pytest.mark.usefixtures("own_folders")
def test_a_stored_pace_of_this_machine_is_found(tmp_path: Path) -> None:
    kind = examine("cpu", tmp_path, sample_s=0.02).machine_class
    pace = a_pace(machine_class=kind, host=socket.gethostname(), quartile_high_ns=2_000_000)
    put(tmp_path / "paces", {"p.json": msgspec.json.encode(pace).decode()})
    found = statuses(examine("cpu", tmp_path, sample_s=0.02).disturbances)
    assert found["pace of resnet/digits"] == "warning"
