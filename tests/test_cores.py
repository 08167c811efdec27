import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import cores
from harness.cores import CorePlan, cpu_quota, parse_cpu_list, pin, plan_cores, split_cores


def alone(*cpus: int) -> dict[int, list[int]]:
    return {cpu: [cpu] for cpu in cpus}


@pytest.mark.parametrize(
    ("available", "siblings", "trainee", "referee", "threads"),
    [
        ([0, 1], alone(0, 1), [1], [0], 1),
        ([0, 1, 2, 3], alone(0, 1, 2, 3), [1, 2, 3], [0], 3),
        # Two physical cores, numbered as Intel does and as AMD's firmware may.
        ([0, 1, 2, 3], {0: [0, 2], 2: [0, 2], 1: [1, 3], 3: [1, 3]}, [1, 3], [0, 2], 1),
        ([0, 1, 2, 3], {0: [0, 1], 1: [0, 1], 2: [2, 3], 3: [2, 3]}, [2, 3], [0, 1], 1),
        # A container that got hyperthreads of three cores, of one both.
        ([1, 2, 5], {1: [1, 5], 5: [1, 5], 2: [2, 6]}, [2], [1, 5], 1),
        ([4, 7, 9], {4: [0, 4], 7: [3, 7], 9: [9, 13]}, [7, 9], [4], 2),
    ],
)
def test_the_referee_gets_the_first_physical_core_and_the_trainee_the_rest(
    available: Sequence[int],
    siblings: Mapping[int, Sequence[int]],
    trainee: list[int],
    referee: list[int],
    threads: int,
) -> None:
    assert split_cores(available, siblings) == CorePlan(
        trainee=trainee, referee=referee, threads=threads, single_core=False
    )


@pytest.mark.parametrize(
    ("available", "siblings", "core"),
    [([3], {3: [3]}, [3]), ([0, 4], {0: [0, 4], 4: [0, 4]}, [0, 4]), ([5], {5: [1, 5]}, [5])],
)
def test_hyperthreads_of_one_core_are_one_core(
    available: Sequence[int], siblings: Mapping[int, Sequence[int]], core: list[int]
) -> None:
    assert split_cores(available, siblings) == CorePlan(
        trainee=core, referee=core, threads=1, single_core=True
    )


@pytest.mark.parametrize(
    ("quota", "trainee", "single"),
    [(None, [1, 2, 3], 0), (8.0, [1, 2, 3], 0), (3.0, [1, 2], 0), (1.5, [1], 0), (0.2, [0], 1)],
)
def test_a_quota_of_cpu_time_counts_as_cores(
    quota: float | None, trainee: list[int], single: bool
) -> None:
    plan = split_cores([0, 1, 2, 3], alone(0, 1, 2, 3), quota)
    assert (plan.trainee, plan.threads, plan.single_core) == (trainee, len(trainee), single)


@st.composite
def topologies(draw: st.DrawFn) -> tuple[list[int], dict[int, list[int]]]:
    cpus = draw(st.lists(st.integers(0, 63), unique=True, min_size=1, max_size=16))
    core_of = {cpu: draw(st.integers(0, 7)) for cpu in cpus}
    siblings = {cpu: [other for other in cpus if core_of[other] == core_of[cpu]] for cpu in cpus}
    allowed = draw(st.lists(st.sampled_from(cpus), unique=True, min_size=1))
    return sorted(allowed), siblings


@given(topologies())
def test_no_core_is_split_lost_or_invented(
    topology: tuple[list[int], dict[int, list[int]]],
) -> None:
    available, siblings = topology
    plan = split_cores(available, siblings)
    assert sorted({*plan.trainee, *plan.referee}) == available
    if not plan.single_core:
        assert not set(plan.trainee) & set(plan.referee)
        for cpu in plan.referee:
            assert not set(siblings[cpu]) & set(plan.trainee)
    assert 1 <= plan.threads <= len(plan.trainee)


@given(topologies())
def test_a_wrong_account_of_siblings_still_uses_every_cpu_once(
    topology: tuple[list[int], dict[int, list[int]]],
) -> None:
    available, siblings = topology
    one_sided = {cpu: siblings[cpu][:1] for cpu in available}
    plan = split_cores(available, one_sided)
    assert sorted({*plan.trainee, *plan.referee}) == available
    assert plan.single_core or not set(plan.trainee) & set(plan.referee)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", [0]), ("0,4", [0, 4]), ("0-1", [0, 1]), ("0-2,8,10-11", [0, 1, 2, 8, 10, 11])],
)
def test_the_kernels_lists(text: str, numbers: list[int]) -> None:
    assert parse_cpu_list(text) == numbers


@pytest.mark.parametrize("text", [None, "", "words"])
def test_a_cpu_of_unknown_topology_is_a_core_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.setattr(cores, "_TOPOLOGY", tmp_path)
    if text is not None:
        folder = tmp_path / "cpu7" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(text)
    assert cores._siblings(7) == [7]


def test_this_machines_plan_keeps_to_the_affinity() -> None:
    plan = plan_cores()
    assert {*plan.trainee, *plan.referee} <= os.sched_getaffinity(0)


def test_a_process_confined_to_one_cpu_has_a_single_core() -> None:
    before = os.sched_getaffinity(0)
    cpu = min(before)
    try:
        pin([cpu])
        assert plan_cores() == CorePlan(trainee=[cpu], referee=[cpu], threads=1, single_core=True)
    finally:
        os.sched_setaffinity(0, before)


def test_where_nothing_can_be_pinned_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert plan_cores() == CorePlan(trainee=[], referee=[], threads=7, single_core=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert plan_cores().single_core
    pin([0])


def quota_of(folder: Path, membership: str, files: dict[str, str]) -> float | None:
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "membership").write_text(membership)
    return cpu_quota(folder / "cgroup", folder / "membership")


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a\n", {"a/cpu.max": "400000 100000", "cpu.max": "100000 100000"}, 1.0),
        ("0::/the/hosts/path\n", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        (
            "4:memory:/x\n3:cpu,cpuacct:/docker/1\n",
            {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("1:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "1"}, None),
    ],
)
def test_the_quota_is_the_smallest_of_the_groups(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float | None
) -> None:
    assert quota_of(tmp_path, membership, files) == quota


def test_a_system_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path, tmp_path / "none") is None


def test_ranks_divide_the_trainees_cores_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_siblings", lambda cpu: [cpu % 4, cpu % 4 + 4])
    plan = split_cores(range(8), {cpu: [cpu % 4, cpu % 4 + 4] for cpu in range(8)})
    assert plan.trainee == [1, 2, 3, 5, 6, 7] and plan.threads == 3
    each = plan.for_ranks(3)
    assert each.cores == [[1, 5], [2, 6], [3, 7]]
    assert (each.threads, each.used, each.shared) == (1, 3, False)
    assert plan.for_ranks(2).cores == [[1, 5], [2, 6]]  # the third core stays idle
    assert plan.for_ranks(2).used == 2
    crowded = plan.for_ranks(4)
    assert crowded.cores == [plan.trainee] * 4
    assert (crowded.threads, crowded.used, crowded.shared) == (1, 3, True)


def test_ranks_of_a_plan_that_cannot_pin() -> None:
    unpinned = CorePlan(trainee=[], referee=[], threads=7, single_core=False)
    assert unpinned.for_ranks(3).cores == [[], [], []] and unpinned.for_ranks(3).threads == 2
    assert unpinned.for_ranks(8).shared
