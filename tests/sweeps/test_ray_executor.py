"""The Ray executor on a real cluster: slots, deaths, and what makes a node unfit."""

import itertools
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli.test_bad_input import bench
from sweeps.ray_clusters import ray_cluster
from sweeps.test_local import FAKE, job

from harness.errors import UsageError
from harness.sweeps import ray_executor
from harness.sweeps.execution import Lost
from harness.sweeps.jobs import Job
from harness.sweeps.ray_cluster import Node, device_kind
from harness.sweeps.ray_executor import RayExecutor
from harness.sweeps.ray_node import variables_of_runs, variables_to_tell
from harness.sweeps.worker import Began, Finished, Refused, Report

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(2, 2) as made:
        yield made


class Notes:
    def __init__(self) -> None:
        self.heard: list[tuple[int, str, Report | Lost]] = []
        self.on_begin: Callable[[], None] = lambda: None
        self.on_loss: Callable[[], None] = lambda: None

    def reported(self, slot: int, job: Job, report: Report | Lost) -> None:
        self.heard.append((slot, job.identity, report))
        if isinstance(report, Began):
            self.on_begin()
        if isinstance(report, Lost):
            self.on_loss()

    def ends(self) -> dict[str, Report | Lost]:
        return {name: r for _, name, r in self.heard if isinstance(r, Finished | Refused)}

    def lost(self) -> list[tuple[str, str]]:
        return [(name, r.reason) for _, name, r in self.heard if isinstance(r, Lost)]


def executor(cluster: Any, folder: Path, **options: Any) -> RayExecutor:
    command = [sys.executable, str(FAKE), str(folder)]
    return RayExecutor(address=cluster.address, device="cpu", command=command, **options)


def at(home: Path, *names: str) -> list[Job]:
    """Return jobs whose results go there."""
    made = [job(name, number) for number, name in enumerate(names)]
    return [replace(one, request=replace(one.request, home=home)) for one in made]


def run(
    cluster: Any, folder: Path, jobs: Sequence[Job], interrupted: Callable[[Notes], bool]
) -> Notes:
    notes = Notes()
    with closing(executor(cluster, folder)) as slots:
        slots.run(jobs, notes, lambda: interrupted(notes))
    return notes


def never(_: Notes) -> bool:
    return False


def logs(folder: Path) -> list[list[str]]:
    return [path.read_text().splitlines() for path in folder.glob("*.log")]


def test_every_node_takes_its_part_and_what_dies_is_made_again(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["looks around", "looks around", "dies once", "orphan once", "dies", *["a"] * 20]
    jobs = at(tmp_path, *names)
    notes = run(cluster, tmp_path, jobs, never)
    ends = notes.ends()
    assert set(ends) == {one.identity for one in jobs}
    given_up = ends.pop("dies-4")
    assert isinstance(given_up, Refused)
    assert given_up.reason == "its worker died (signal SIGKILL), and it was tried 3 times"
    assert all(isinstance(report, Finished) for report in ends.values())
    # The two nodes share a host, so a node's name has a part of its id.
    host = socket.gethostname()
    assert {slot for slot, _, _ in notes.heard} == {0, 1}
    lost = dict(notes.lost())
    assert lost["dies once-2"] == "its worker died (signal SIGKILL)"
    assert lost["orphan once-3"].startswith(f"the process of Ray on {host}-")
    # What died, and nothing else, began again.
    assert sum(len(lines) for lines in logs(tmp_path)) == len(jobs) + 4
    assert capsys.readouterr().out == ""
    for seen in map(json.loads, (path.read_text() for path in tmp_path.glob("*.json"))):
        assert seen["cwd"] == str(Path.cwd())
        assert seen["niceness"] == os.nice(0)
        assert set(seen["cores"]) == os.sched_getaffinity(0)
        assert seen["blocked signals"] == []
        assert not [name for name in seen["environment"] if name.startswith("RAY_")]
        for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
            assert seen["environment"].get(name) == os.environ.get(name)


@pytest.mark.slow
def test_an_interrupt_ends_what_runs_and_begins_nothing(cluster: Any, tmp_path: Path) -> None:
    notes = run(cluster, tmp_path, at(tmp_path, *["slow"] * 6), lambda notes: len(notes.heard) >= 2)
    ends = notes.ends()
    assert len(ends) == 2
    assert all(isinstance(r, Refused) and r.interrupted for r in ends.values())


@pytest.mark.slow
def test_a_home_that_a_node_does_not_see_is_refused(cluster: Any, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        home = Path(f"/proc/self/fd/{folder}/results")  # another place in every process
        with pytest.raises(UsageError, match=r"is not shared with every node.*(No such|Not a dir)"):
            run(cluster, tmp_path, at(home, "a"), never)
    finally:
        os.close(folder)
    assert logs(tmp_path) == []
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.slow
def test_the_command_plans_on_the_nodes(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "results"))
    address = ("--executor", "ray", "--ray-address", cluster.address, "--device", "cpu")
    pair = ("-s", "lion,sgd", "-w", "mlp", "--seeds", "2")
    code, out, err = bench("sweep", *pair, *address, "--dry-run")
    assert (code, err) == (0, "")
    assert "4 of 4 runs to make, about" in out and "with 2 at a time" in out
    tune = ("tune", "-s", "lion", "-w", "mlp", "--trials", "3", *address, "--dry-run")
    code, out, err = bench(*tune)
    assert (code, err) == (0, "") and "3 of 3 runs to make" in out
    for arguments, said in (
        (("--ray-nodes", "nowhere"), "no node 'nowhere' is alive. Nodes: "),
        (("--jobs", "2"), "No node of the Ray cluster gives 4 CPUs"),
        (("--device", "cuda:1"), "'cuda:1' does not go with --executor ray"),
        (("--device", "cuda"), "No node of the Ray cluster gives a GPU"),
    ):
        code, out, err = bench("sweep", *pair, *address, *arguments)
        assert (code, out) == (2, "") and said in err
    code, out, err = bench("sweep", "-s", "lino", "-w", "mlp", *address)
    assert code == 2 and "On the node" in err and "Did you mean 'lion'" in err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "No Ray cluster answers at 127.0.0.1:1"),
        ("ray://127.0.0.1:10001", "leads to a proxy"),
        ("somewhere", "is no address. Legal: auto, HOST:PORT"),
        ("host:99999999", "No Ray cluster answers at host:99999999"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_told(address: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        RayExecutor(address=address)


@pytest.mark.slow
def test_who_listens_there_and_is_no_cluster_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UsageError, match="No Ray cluster could be joined"):
            RayExecutor(address=address)


@pytest.mark.slow
def test_each_run_sees_a_gpu_of_its_own(tmp_path: Path) -> None:
    with ray_cluster(0) as cluster:
        cluster.add_node(num_cpus=2, num_gpus=2)  # Ray takes our word for it
        notes = Notes()
        jobs = at(tmp_path, *["looks around"] * 6)
        command = [sys.executable, str(FAKE), str(tmp_path)]
        with closing(RayExecutor(address=cluster.address, command=command)) as slots:
            assert len(slots.places) == 2
            slots.run(jobs, notes, lambda: False)
    assert len(notes.ends()) == 6
    seen = [json.loads(path.read_text())["environment"] for path in tmp_path.glob("*.json")]
    assert sorted(variables["CUDA_VISIBLE_DEVICES"] for variables in seen) == ["0", "1"]
    assert {line.split()[-2] for lines in logs(tmp_path) for line in lines} == {"cuda"}


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r'pip install "timetrial\[ray\]"'):
        RayExecutor()


def test_options_of_another_executor_are_refused() -> None:
    code, _, err = bench("sweep", "-s", "lion", "-w", "mlp", "--ray-address", "a:1")
    assert code == 2 and "--ray-address belongs to --executor ray" in err


def node(cpus: int, gpus: int = 0) -> Node:
    return Node(id="0", name="n", known_as=("n",), cpus=cpus, gpus=gpus)


def test_a_slot_is_a_gpu_or_a_set_of_cores() -> None:
    assert device_kind("auto", [node(4), node(4, 1)]) == "cuda"
    assert device_kind("auto", [node(4)]) == "cpu"
    assert node(1).shares("cpu", None) == [] and node(0).shares("cuda", None) == []
    [whole] = node(4, 8).shares("cpu", None)
    assert node(4, 8).needs(whole) == {"num_gpus": 0, "num_cpus": 4}
    halves = node(5).shares("cpu", 2)
    assert [(half.number, half.count) for half in halves] == [(0, 2), (1, 2)]
    assert node(5).needs(halves[0])["num_cpus"] == 2
    gpus = node(16, 4).shares("cuda", None)
    assert len(gpus) == 4 and len(node(16, 4).shares("cuda", 2)) == 2
    assert node(16, 4).needs(gpus[0]) == {"num_gpus": 1, "num_cpus": 4}


def test_a_node_that_gives_ray_a_part_of_its_cores_keeps_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from harness.sweeps import local

    monkeypatch.setattr(local, "physical_cores", lambda: [[n, n + 10] for n in range(4)])
    monkeypatch.setattr(local, "cpu_quota", lambda: None)
    assert local.core_slots(1, 8)[0].cores is None
    assert local.core_slots(1, 5)[0].cores == (0, 10, 1, 11)
    assert [slot.cores for slot in local.core_slots(2, 99)] == [(0, 10, 1, 11), (2, 12, 3, 13)]
    with pytest.raises(UsageError, match="2 can be used here"):
        local.core_slots(2, 4)


def test_runs_see_the_nodes_variables_and_the_sweeps_own_but_not_rays() -> None:
    told = variables_to_tell(
        {"OMP_DYNAMIC": "1", "CUDA_VISIBLE_DEVICES": "7", "BENCH_DATA_DIR": "/d", "HOME": "/h",
         "PYTHONPATH": "/a:/b"}
    )  # fmt: skip
    assert told == {"OMP_DYNAMIC": "1", "BENCH_DATA_DIR": "/d", "PYTHONPATH": "/a:/b"}
    node = {"RAY_JOB_ID": "1", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "3", "HOME": "/n",
            "PYTHONPATH": "/b:/c"}  # fmt: skip
    on_gpu = variables_of_runs(node, told, gpu=True)
    assert on_gpu == {
        "CUDA_VISIBLE_DEVICES": "3", "HOME": "/n", "PYTHONPATH": "/a:/b:/c", "OMP_DYNAMIC": "1",
        "BENCH_DATA_DIR": "/d",
    }  # fmt: skip
    on_cpu = variables_of_runs(node, told, gpu=False)
    assert on_cpu == {name: v for name, v in on_gpu.items() if name != "CUDA_VISIBLE_DEVICES"}
    assert "PYTHONPATH" not in variables_of_runs({}, {}, gpu=False)


@pytest.mark.slow
def test_a_lost_node_costs_its_run_only(tmp_path: Path) -> None:
    with ray_cluster(0, 2, 2) as cluster:
        notes = Notes()
        lost = cluster.list_all_nodes()[-1]
        begun = itertools.count(1)

        def lose_it() -> None:
            if next(begun) == 2:
                cluster.remove_node(lost, allow_graceful=False)

        notes.on_begin = lose_it
        notes.on_loss = (tmp_path / "released").touch
        jobs = at(tmp_path, *["slow once"] * 2, *["a"] * 6)
        with closing(executor(cluster, tmp_path)) as slots:
            slots.run(jobs, notes, lambda: False)
    ends = notes.ends()
    assert set(ends) == {one.identity for one in jobs}
    assert all(isinstance(report, Finished) for report in ends.values())
    [(name, reason)] = notes.lost()
    assert name.startswith("slow once") and reason.endswith("or the node, died")
    assert sum(len(lines) for lines in logs(tmp_path)) == len(jobs) + 1


@pytest.mark.slow
def test_without_a_node_the_rest_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ray_cluster(0, 2) as cluster:
        notes = Notes()
        only = cluster.list_all_nodes()[-1]
        notes.on_begin = lambda: cluster.remove_node(only, allow_graceful=False)
        with closing(executor(cluster, tmp_path)) as slots:
            slots.run(at(tmp_path, "slow", "a"), notes, lambda: False)
    assert {
        name: report.reason for name, report in notes.ends().items() if isinstance(report, Refused)
    } == {"slow-0": "no node was left to run it", "a-1": "no node was left to run it"}


@pytest.mark.slow
def test_nodes_of_two_kinds_are_refused_and_may_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "torch-99.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 99.0\n")
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "results"))
    with ray_cluster(2) as cluster:
        paths = f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{other.parent}"
        odd = cluster.add_node(num_cpus=2, env_vars={"PYTHONPATH": paths})
        asked = ("sweep", "-s", "sgd", "-w", "mlp", "--executor", "ray", "--ray-address",
                 cluster.address, "--dry-run")  # fmt: skip
        code, out, err = bench(*asked)
        name = f"{socket.gethostname()}-{odd.node_id[:6]}"
        assert (code, out) == (2, "") and "The nodes differ" in err
        assert "torch 99.0" in next(line for line in err.splitlines() if f"  {name}:" in line)
        code, out, err = bench(*asked, "--ray-nodes", name)
        assert (code, err) == (0, "") and "1 of 1 runs to make" in out


@pytest.mark.slow
def test_a_slot_that_other_work_holds_is_left_out(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "START_S", 20.0)
    said: list[str] = []
    with closing(executor(cluster, tmp_path, say=said.append)) as slots:
        import ray

        class Holder:  # here, so that it goes to the node whole
            def ready(self) -> None:
                pass

        [first, second] = slots._slots
        ray.get([first.actor.ready.remote(), second.actor.ready.remote()])
        second.stop()
        holder = ray.remote(num_cpus=2)(Holder).remote()
        ray.get(holder.ready.remote())
        second.start()  # waits behind it
        assert slots.planned(lambda slot: []) == []
        assert slots.places == [first.name]
        assert said == [f"Left out, not free within 20 s: {second.name}, whose CPUs or GPUs other "
                        "work of Ray's holds (`ray status`)."]  # fmt: skip
        del holder
