"""What stands about the processor, its power and its memory, and disturbs timing."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.cores import CorePlan, cpu_quota, parse_cpu_list
from harness.doctor.finding import Finding
from harness.doctor.system_files import SystemFiles, field, number, text

NOTABLE_SWAP_BYTES = 64 << 20  # less is what a desktop put aside days ago
LITTLE_MEMORY = 0.10  # of all


def frequency_governor(files: SystemFiles) -> Finding:
    """Report cores whose clock rate follows their load, and so lags behind a step.

    https://docs.kernel.org/admin-guide/pm/cpufreq.html
    """
    governors = {
        value
        for path in files.cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")
        if (value := text(path))
    }
    if not governors:
        return Finding(
            check="frequency governor",
            status="missing",
            found="not visible: firmware or a hypervisor decides",
        )
    slow = sorted(governors - {"performance"})
    if slow:
        return Finding(
            check="frequency governor",
            status="warning",
            found=", ".join(slow),
            advice="sudo cpupower frequency-set -g performance",
            effect="spread",
        )
    return Finding(check="frequency governor", status="ok", found="performance")


def turbo(files: SystemFiles) -> Finding:
    """Report whether the clock rate depends on heat and on how many cores work."""
    no_turbo = number(files.cpus / "intel_pstate/no_turbo")
    boost = number(files.cpus / "cpufreq/boost")
    if no_turbo is None and boost is None:
        return Finding(check="turbo", status="missing", found="not visible")
    if no_turbo == 1 or (no_turbo is None and boost == 0):
        return Finding(check="turbo", status="ok", found="off")
    switch = "1 > intel_pstate/no_turbo" if no_turbo is not None else "0 > cpufreq/boost"
    return Finding(
        check="turbo",
        status="ok",  # nearly everyone's machine; pairs side by side cancel it
        found="on: the clock rate depends on heat and neighbours",
        advice=f"For times compared over days, turn it off: echo {switch} in "
        "/sys/devices/system/cpu.",
    )


def cpu_time_quota(files: SystemFiles, available: int) -> Finding:
    """Report a container's limit on CPU time, by which the kernel stops threads within a step."""
    quota = cpu_quota(files.sys / "fs/cgroup", files.proc / "self/cgroup")
    if quota is None:
        return Finding(check="CPU time quota", status="ok", found="none")
    found = f"{quota:g} of {available} CPUs' time"
    if quota >= available:
        return Finding(check="CPU time quota", status="ok", found=found)
    stops = field(files.sys / "fs/cgroup/cpu.stat", "nr_throttled")
    if stops is None:
        stops = field(files.sys / "fs/cgroup/cpu/cpu.stat", "nr_throttled")
    if stops:
        found += f"; stopped {stops:,} times so far"
    return Finding(
        check="CPU time quota",
        status="warning",
        found=found,
        advice="Give the container whole cores instead: --cpuset-cpus for --cpus, or a "
        "guaranteed pod with the static CPU policy.",
        effect="spread",
    )


def virtual_machine(files: SystemFiles) -> Finding:
    """Report a hypervisor, beneath which neighbours share caches, memory and clock rate."""
    flags = re.search(r"^flags\s*:(.*)$", text(files.proc / "cpuinfo") or "", re.MULTILINE)
    kind = text(files.sys / "hypervisor/type")
    if kind is None and (flags is None or "hypervisor" not in flags[1].split()):
        return Finding(check="virtual machine", status="ok", found="none seen")
    dmi = files.sys / "class/dmi/id"
    maker = [word for name in ("sys_vendor", "product_name") if (word := text(dmi / name))]
    named = kind or " ".join(maker)
    return Finding(
        check="virtual machine",
        status="warning",
        found="this is one" + (f": {named}" if named else ""),
        advice="Neighbours are not visible from here: compare runs made side by side, or "
        "rent the whole host.",
        effect="shift",
    )


def battery(files: SystemFiles) -> Finding:
    """Report a machine that runs on its battery, and so saves power.

    https://docs.kernel.org/power/power_supply_class.html
    """
    discharging = plugged_in = False
    for supply in (files.sys / "class/power_supply").glob("*"):
        kind = text(supply / "type")
        if kind == "Battery" and text(supply / "scope") != "Device":  # not a mouse's
            discharging = discharging or text(supply / "status") == "Discharging"
        elif kind in ("Mains", "USB"):
            plugged_in = plugged_in or number(supply / "online") == 1
    if discharging and not plugged_in:
        return Finding(
            check="battery",
            status="warning",
            found="the machine runs on it",
            advice="Plug it in, and choose the power profile `performance`.",
            effect="spread",
        )
    found = "there, but not in use" if discharging or plugged_in else "none in use"
    return Finding(check="battery", status="ok", found=found)


def hyperthreads(files: SystemFiles, available: Sequence[int], plan: CorePlan) -> Finding:
    """Report cores of the trainee whose other hyperthread may run somebody else's work."""
    siblings = {cpu: _siblings(files, cpu) for cpu in plan.trainee or available}
    foreign = sorted({s for group in siblings.values() for s in group} - set(available))
    if foreign:
        return Finding(
            check="hyperthreads",
            status="warning",
            found=f"the trainee's cores have a second thread (CPU {_listed(foreign)}) that is "
            "not ours",
            advice="Give the container or taskset both threads of each core.",
            effect="spread",
        )
    if any(len(group) > 1 for group in siblings.values()):
        found = "two or more a core; one is used, the others stay idle"
        return Finding(check="hyperthreads", status="ok", found=found)
    return Finding(check="hyperthreads", status="ok", found="one thread a core")


def memory_nodes(files: SystemFiles, plan: CorePlan) -> Finding:
    """Report a trainee whose cores lie on several memory nodes (NUMA)."""
    nodes = []
    for path in sorted((files.sys / "devices/system/node").glob("node[0-9]*/cpulist")):
        try:
            cpus = parse_cpu_list(text(path) or "")
        except ValueError:  # a node of memory alone has an empty list
            continue
        if set(cpus) & set(plan.trainee):
            nodes.append(path.parent.name.removeprefix("node"))
    if len(nodes) > 1:
        return Finding(
            check="memory nodes",
            status="warning",
            found=f"the trainee's cores lie on nodes {', '.join(nodes)}",
            advice=f"numactl --cpunodebind={nodes[0]} --membind={nodes[0]} bench run …",
            effect="spread",
        )
    return Finding(check="memory nodes", status="ok", found="one" if nodes else "none seen")


def memory_room(files: SystemFiles, swapped_pages: int | None) -> Finding:
    """Report memory that was moved to disk, or soon will be.

    Args:
        files: of the machine.
        swapped_pages: pages that went out or came in while we looked.
    """
    meminfo = files.proc / "meminfo"
    sizes_kib = [
        field(meminfo, name) for name in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
    ]
    total, available, swap_total, swap_free = sizes_kib
    if total is None or available is None:
        return Finding(check="memory and swap", status="missing", found="no /proc/meminfo")
    swapped_bytes = ((swap_total or 0) - (swap_free or 0)) * 1024
    found = f"{available / 2**20:.1f} of {total / 2**20:.1f} GiB available, swap "
    found += f"{swapped_bytes / 2**20:.0f} MiB used" if swap_total else "none"
    if swapped_pages:
        found += f", {swapped_pages} pages moved just now"
    if swapped_pages or swapped_bytes >= NOTABLE_SWAP_BYTES or available < LITTLE_MEMORY * total:
        return Finding(
            check="memory and swap",
            status="warning",
            found=found,
            advice="End what fills the memory, then: sudo swapoff -a && sudo swapon -a",
            effect="spread",
        )
    return Finding(check="memory and swap", status="ok", found=found)


def _siblings(files: SystemFiles, cpu: int) -> list[int]:
    path: Path = files.cpus / f"cpu{cpu}/topology/thread_siblings_list"
    try:
        return parse_cpu_list(text(path) or "")
    except ValueError:
        return [cpu]


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
