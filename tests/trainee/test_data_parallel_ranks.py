import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.cards import Place
from harness.counters import SIZE_BYTES, Counters, create_shared_file
from harness.errors import UsageError
from harness.messages import TraineeEnd
from harness.rank_support import refuse_undivided
from harness.session.ranks import Ranks
from harness.spec import Part, Recipe
from harness.trainee import data_parallel
from harness.trainee.data_parallel import is_lost_connection
from harness.trainee.rank_processes import RankProcess

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_three_ranks_agree() -> None:
    found = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("three_ranks.py"))],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=200,
        check=False,
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("examples", [1, 2, 63, 64, 65, 1000])
def test_parts_cover_a_batch_evenly(count: int, examples: int) -> None:
    class Numbered(Ranks):
        def __init__(self, rank: int) -> None:
            self.rank, self.count = rank, count

    Numbered.__abstractmethods__ = frozenset()
    parts = [Numbered(rank).own_part(examples) for rank in range(count)]  # type: ignore[abstract]
    if examples < count:
        assert parts == [None] * count
        return
    covered = [i for part in parts if part is not None for i in range(examples)[part]]
    assert covered == list(range(examples))
    sizes = {part.stop - part.start for part in parts if part is not None}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda:1", "cpu:gloo,cuda:nccl")])
def test_gpus_speak_nccl_and_the_processor_gloo(
    monkeypatch: pytest.MonkeyPatch, device: str, backend: str
) -> None:
    stores: list[dict[str, object]] = []
    groups: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(
        data_parallel.dist, "TCPStore", lambda host, port, world, **more: stores.append(more)
    )
    monkeypatch.setattr(
        data_parallel.dist, "init_process_group", lambda name, **more: groups.append((name, more))
    )
    monkeypatch.setattr(data_parallel.TorchRanks, "_warm_up", lambda ranks: None)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    pipe, other = socket.socketpair()
    pipe.close()
    other.close()
    process = RankProcess(
        rank=1, count=2, port=1, listener=None, pipe=TraineeEnd(pipe), others=None
    )
    descriptor = create_shared_file("test", SIZE_BYTES)
    data_parallel.TorchRanks(process, torch.device(device), Counters(descriptor))
    os.close(descriptor)
    ((name, more),) = groups
    assert (name, more["rank"], more["world_size"]) == (backend, 1, 2)
    assert more["device_id"] == (torch.device(device) if "cuda" in device else None)
    assert stores[0]["is_master"] is False


def test_a_lost_connection_is_told_from_other_errors() -> None:
    assert is_lost_connection(RuntimeError("[pair.cc:553] Connection closed by peer [::1]:80"))
    assert not is_lost_connection(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_lost_connection(KeyError("Connection closed by peer"))


def recipe(place: Place, *needs: str) -> Recipe:
    part = Part(name="mine", place=place, class_name="C", hyperparameters={}, needs=needs)  # type: ignore[arg-type]
    return Recipe(
        parts=[part],
        batch_size=8,
        horizon_examples=100,
        warmup_fraction=0.1,
        final_lr_fraction=0.1,
        decay_exempt_roles=(),
        clip_norm=None,
        label_smoothing=0.0,
    )


@pytest.mark.parametrize(
    ("place", "needs"),
    [
        ("optimizer", ()),
        ("schedule", ("session",)),
        ("schedule", ("optimizer",)),
        ("data", ("session", "model")),
        ("averaging", ("session", "model", "optimizer")),
        ("objective", ()),
        ("parameterization", ()),
    ],
)
def test_recipes_that_divide(place: Place, needs: tuple[str, ...]) -> None:
    refuse_undivided(recipe(place, *needs), 8)
    with pytest.raises(UsageError, match="batch_size is 8"):
        refuse_undivided(recipe(place, *needs), 9)


@pytest.mark.parametrize(
    ("place", "needs"),
    [("optimizer", ("model",)), ("schedule", ("session", "model")), ("procedure", ())],
)
def test_recipes_that_do_not(place: Place, needs: tuple[str, ...]) -> None:
    with pytest.raises(
        UsageError, match=r"^'mine' does not train in several processes: .*\. Leave"
    ):
        refuse_undivided(recipe(place, *needs), 2)
