"""What every workload promises the harness, whatever it is about."""

import pkgutil
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from real_data import needs_files
from torch import Tensor

import workloads
from harness import catalogue
from harness.prepared_data import tensors_sha256
from harness.workload import FileWorkload, Workload, load_workload

EMBEDDED = [
    name
    for name, entry in catalogue.workloads().items()
    if entry.card.tier != "real" and entry.card.variant_of is None
]
FAMILIES = [module.name for module in pkgutil.iter_modules(workloads.__path__) if module.ispkg]


def workload_named(name: str) -> Workload:
    entry = catalogue.workload(name)
    return load_workload(entry.module, entry.card)


@cache
def prepared(name: str) -> dict[str, dict[str, Tensor]]:
    return workload_named(name).prepare()


@pytest.mark.parametrize("family", FAMILIES)
def test_importing_a_family_loads_neither_torch_nor_numpy(family: str) -> None:
    code = (
        f"import sys, workloads.{family};"
        "sys.exit(any(name in sys.modules for name in ('torch', 'sklearn', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", EMBEDDED)
def test_prepare_gives_the_cards_bytes_and_draws_from_no_global_generator(name: str) -> None:
    card = catalogue.workload(name).card
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    splits = prepared(name)
    assert torch.equal(torch_state, torch.get_rng_state())
    now = np.random.get_state()
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, now, strict=True))
    assert list(splits) == ["training", "evaluation", "test"]
    for split, tensors in splits.items():
        assert tensors_sha256(tensors) == card.data.sha256[split]
        for tensor in tensors.values():
            assert tensor.is_contiguous() and tensor.device.type == "cpu"
    sizes = (
        card.data.training_examples,
        card.data.evaluation_examples,
        card.data.test_examples,
    )
    for tensors, size in zip(splits.values(), sizes, strict=True):
        assert size in {len(tensor) for tensor in tensors.values()}
    assert {len(tensor) for tensor in splits["training"].values()} == {sizes[0]}


@pytest.mark.parametrize("name", EMBEDDED)
def test_prepare_is_identical_to_the_byte(name: str) -> None:
    again = workload_named(name).prepare()
    for split, tensors in prepared(name).items():
        assert list(tensors) == list(again[split])
        for key, tensor in tensors.items():
            assert tensor.numpy().tobytes() == again[split][key].numpy().tobytes()


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_real_and_a_synthetic_batch_go_the_same_way(name: str) -> None:
    workload = workload_named(name)
    torch.manual_seed(0)
    model = workload.build_model()
    generator = torch.Generator().manual_seed(0)
    real = workload.training_batch(prepared(name)["training"], torch.arange(8), generator)
    synthetic = workload.synthetic_batch(8, generator)
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    dtype = torch.float64 if workload.card.precision == "float64" else torch.float32
    for inputs, targets in (real, synthetic):
        losses = workload.per_example_loss(model(inputs), targets, 0.0)
        assert losses.shape == (8,) and losses.dtype == dtype
        assert torch.isfinite(losses).all()


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_metric_that_decides_is_measured(name: str) -> None:
    workload = workload_named(name)
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, prepared(name)["evaluation"])
    assert not workload.card.metric.meets(metrics[workload.card.metric.name])
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_model_is_the_cards_and_follows_the_global_seed(name: str) -> None:
    workload = workload_named(name)
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = dict(workload.build_model().named_parameters())
    parameters = dict(model.named_parameters())
    assert model.training
    assert sum(p.numel() for p in parameters.values()) == workload.card.parameters
    assert workload.head_parameters <= parameters.keys()
    assert all(torch.equal(tensor, twin[key]) for key, tensor in parameters.items())


REAL = [name for name, entry in catalogue.workloads().items() if entry.card.tier == "real"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_files(name)) for name in REAL])
def test_official_files_give_the_cards_bytes(name: str) -> None:
    workload = workload_named(name)
    assert isinstance(workload, FileWorkload)
    found = {split: tensors_sha256(tensors) for split, tensors in workload.prepare().items()}
    assert found == workload.card.data.sha256
