import os

import torch
from safetensors.torch import load
from torch import nn

from harness.counters import create_shared_file
from harness.trainee.export import export_weights
from harness.workload import canonical_weights


class Tied(nn.Module):
    """Parameters that share memory, one that is not contiguous, and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.turned = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("view", self.norm.running_mean)
        self.register_buffer("empty", torch.zeros(0))


def exported(model: nn.Module, descriptor: int) -> dict[str, torch.Tensor]:
    size = export_weights(canonical_weights(model), descriptor)
    assert os.fstat(descriptor).st_size == size
    return load(os.pread(descriptor, size, 0))


def test_parameters_and_buffers_arrive_as_they_are() -> None:
    descriptor = create_shared_file("test", 0)
    model = Tied()
    weights = exported(model, descriptor)
    expected = dict(model.named_parameters()) | dict(model.named_buffers())
    assert weights.keys() == expected.keys()
    assert "b.weight" not in weights  # one weight, by its first name
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor) and weights[name].dtype == tensor.dtype
    os.close(descriptor)


def test_a_smaller_export_leaves_nothing_of_a_larger_one() -> None:
    descriptor = create_shared_file("test", 0)
    exported(nn.Linear(100, 100), descriptor)
    assert exported(nn.Linear(2, 2), descriptor).keys() == {"weight", "bias"}
    os.close(descriptor)
