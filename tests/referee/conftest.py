"""The quick workload in sight, and a results folder that all the runs here share."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from referee.quick_runs import PLUGINS, Track
from safetensors.torch import save_file

from harness import catalogue
from harness.cards import WorkloadCard, read_card
from harness.workload import canonical_weights


@pytest.fixture(scope="session")
def quick_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quick")


@pytest.fixture(scope="module", autouse=True)
def quick_plugin(quick_folder: Path) -> Iterator[None]:
    """Install the test package for the tests of one file; its leases and caches are its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLUGINS))
        paths = [str(PLUGINS), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.setenv("XDG_CACHE_HOME", str(quick_folder / "cache"))
        # Two sets of tests on one machine must not wait for each other's leases.
        patch.setattr(tempfile, "tempdir", str(quick_folder))
        patch.setenv("TMPDIR", str(quick_folder))
        patch.setenv("OMP_WAIT_POLICY", "passive")
        for cached in (catalogue.workloads, catalogue.submissions):
            cached.cache_clear()
        threads = torch.get_num_threads()
        yield
        torch.set_num_threads(threads)
    for cached in (catalogue.workloads, catalogue.submissions):
        cached.cache_clear()


@pytest.fixture(scope="session")
def quick_weights(quick_folder: Path) -> Path:
    """A folder of weights for the model of quick/blobs, by what is the matter with them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLUGINS))
        from timetrial_quick.workloads.blobs import Blobs
    card = PLUGINS / "timetrial_quick" / "workloads" / "blobs.yaml"
    blobs = Blobs(read_card(card, WorkloadCard))
    data = blobs.prepare()["training"]
    torch.manual_seed(0)
    model = blobs.build_model()
    bad = {name: torch.zeros_like(tensor) for name, tensor in canonical_weights(model).items()}
    for _ in range(200):
        blobs.per_example_loss(model(data["points"]), data["labels"], 0.0).mean().backward()
        for p in model.parameters():
            assert p.grad is not None
            p.data.sub_(p.grad, alpha=0.5)
            p.grad = None
    good = {name: tensor.detach().clone() for name, tensor in canonical_weights(model).items()}
    first = next(iter(good))
    folder = quick_folder / "weights"
    folder.mkdir()
    for name, weights in {
        "good": good,
        "bad": bad,
        "not_finite": good | {first: torch.full_like(good[first], float("nan"))},
        "double": good | {first: good[first].double()},
        "another_shape": good | {first: good[first][:1].clone()},
        "one_missing": {name: tensor for name, tensor in good.items() if name != first},
        "one_more": good | {"surprise": torch.zeros(1)},
    }.items():
        save_file(weights, folder / name)
    (folder / "garbage").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all, sorry")
    return folder


@pytest.fixture
def track(
    quick_folder: Path, quick_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Track]:
    from timetrial_quick.puppet import WEIGHTS

    monkeypatch.setenv(WEIGHTS, str(quick_weights))
    return Track(home=quick_folder / "results", monkeypatch=monkeypatch)
