"""Lion against Algorithm 2 of Chen et al. 2023, written out element by element."""

import copy
import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.cards import SubmissionCard, read_card
from submissions.optimizers import lion
from submissions.optimizers.lion import Lion

# Differing ranks; the two largest fill more than one CPU block together.
SHAPES = [(), (1,), (7,), (5, 3), (2, 3, 3, 3), (0, 4), (130, 140), (129, 150), (3,)]
PATHS = pytest.mark.parametrize("foreach", [True, False], ids=["fast", "reference"])


def parameters(
    shapes: list[tuple[int, ...]] = SHAPES, dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in shapes]


def set_gradients(
    params: list[torch.nn.Parameter], step: int, without: frozenset[int] = frozenset()
) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for i, p in enumerate(params):
        g = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        p.grad = None if i in without else g


def sign(x: float) -> float:
    return float((x > 0) - (x < 0))


@PATHS
def test_follows_the_published_rule(foreach: bool) -> None:
    lr, beta1, beta2, wd = 0.03, 0.85, 0.95, 0.4
    params = parameters([(3,), (2, 2)])
    theta = [p.detach().flatten().tolist() for p in params]
    m = [[0.0] * len(row) for row in theta]
    optimizer = Lion(params, lr=lr, beta1=beta1, beta2=beta2, weight_decay=wd, foreach=foreach)
    signs = set()
    for step in range(12):
        set_gradients(params, step)
        for i, p in enumerate(params):
            assert p.grad is not None
            for j, g in enumerate(p.grad.flatten().tolist()):
                u = sign(beta1 * m[i][j] + (1 - beta1) * g)
                theta[i][j] = theta[i][j] - lr * (u + wd * theta[i][j])
                m[i][j] = beta2 * m[i][j] + (1 - beta2) * g
                signs.add(u == sign(g))
        optimizer.step()
        for p, row in zip(params, theta, strict=True):
            assert p.detach().flatten().tolist() == pytest.approx(row, rel=1e-13, abs=1e-14)
    assert signs == {True, False}  # momentum overruled the gradient at least once


@PATHS
def test_first_step_is_the_sign_of_the_gradient(foreach: bool) -> None:
    p = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64))
    p.grad = torch.tensor([1e-30, -5.0, 0.0], dtype=torch.float64)
    Lion([p], lr=0.25, weight_decay=0.0, foreach=foreach).step()
    assert p.tolist() == [0.75, 1.25, 1.0]


@PATHS
def test_a_zero_gradient_decays_the_weight_alone(foreach: bool) -> None:
    p = torch.nn.Parameter(torch.tensor([2.0, -4.0], dtype=torch.float64))
    optimizer = Lion([p], lr=0.1, weight_decay=0.5, foreach=foreach)
    for _ in range(3):
        p.grad = torch.zeros_like(p)
        optimizer.step()
    assert p.tolist() == pytest.approx([2.0 * 0.95**3, -4.0 * 0.95**3], rel=1e-14)


@pytest.mark.parametrize("block", [1, 40, lion.CPU_BLOCK_ELEMENTS])
def test_fast_and_reference_paths_agree(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lion, "CPU_BLOCK_ELEMENTS", block)
    both = {}
    for foreach in (True, False):
        params = parameters()
        groups: list[dict[str, Any]] = [
            {"params": params[:3], "role": "norm", "weight_decay": 0.0},
            {"params": params[3:5], "role": "matrix", "lr": 0.02},
            {"params": params[5:8], "role": "conv", "beta1": 0.5, "beta2": 0.7},
            {"params": params[8:], "role": "bias", "weight_decay": 0.0},
        ]
        optimizer = Lion(groups, lr=0.01, weight_decay=0.3, foreach=foreach)
        for step in range(6):
            set_gradients(params, step, without=frozenset({step % 9, (step + 4) % 9, 6}))
            optimizer.step()
        both[foreach] = params
        assert params[6] not in optimizer.state
    untouched = parameters()
    for i, (fast, reference, before) in enumerate(
        zip(both[True], both[False], untouched, strict=True)
    ):
        torch.testing.assert_close(fast, reference, rtol=1e-15, atol=1e-15)
        assert torch.equal(fast, before) == (i in {5, 6})  # the empty one and that without gradient


def test_paths_agree_for_unusual_layouts() -> None:
    """Gaps between elements, swapped axes, a loaded momentum in another memory format."""
    results = {}
    for foreach in (True, False):
        base = parameters([(6, 8)])[0].detach()
        guard = base[:, 1::2].clone()
        gaps = torch.nn.Parameter(base[:, ::2])
        swapped = torch.nn.Parameter(parameters([(5, 4)], seed=1)[0].detach().t())
        image = torch.nn.Parameter(parameters([(2, 3, 4, 5)], seed=2)[0].detach())
        params = [gaps, swapped, image]
        optimizer = Lion(params, lr=0.1, foreach=foreach)
        for step in range(4):
            set_gradients(params, step)  # the gradients are contiguous throughout
            if step == 2:
                image.data = image.data.contiguous(memory_format=torch.channels_last)
            optimizer.step()
        assert torch.equal(base[:, 1::2], guard)  # the memory between the elements is not ours
        results[foreach] = params
    for fast, reference in zip(results[True], results[False], strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-15, atol=1e-15)


def test_mixed_dtypes_in_one_group() -> None:
    results = {}
    for foreach in (True, False):
        params = parameters([(4,)], torch.float32) + parameters([(4,)], torch.float64)
        optimizer = Lion(params, lr=0.1, foreach=foreach)
        for step in range(3):
            set_gradients(params, step)
            optimizer.step()
        results[foreach] = params
    for fast, reference in zip(results[True], results[False], strict=True):
        torch.testing.assert_close(fast, reference)


@PATHS
def test_a_schedule_is_honoured(foreach: bool) -> None:
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = Lion([p], lr=1.0, weight_decay=0.0, foreach=foreach)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1.0, 0.5, 0.0)[step])
    positions = []
    for _ in range(3):
        p.grad = torch.ones_like(p)
        optimizer.step()
        positions.append(p.item())
        if len(positions) < 3:
            schedule.step()
    assert positions == [-1.0, -1.5, -1.5]


@PATHS
def test_state_dict_round_trip(foreach: bool) -> None:
    params = parameters()
    optimizer = Lion(params, lr=0.05, foreach=foreach)
    for step in range(3):
        set_gradients(params, step)
        optimizer.step()
    twins = copy.deepcopy(params)
    twin = Lion(twins, lr=9.0, foreach=not foreach)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(3, 6):
        for group, owner in ((params, optimizer), (twins, twin)):
            set_gradients(group, step)
            owner.step()
    for p, q in zip(params, twins, strict=True):
        assert torch.equal(p, q)


def test_a_copied_optimizer_keeps_its_path() -> None:
    optimizer = Lion(parameters(), foreach=False)
    assert copy.deepcopy(optimizer).param_groups[0]["foreach"] is False


@pytest.mark.parametrize("name", ["lr", "weight_decay", "beta1", "beta2"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, torch.tensor(0.5)])
def test_illegal_hyperparameters_are_refused(name: str, value: Any) -> None:
    for arguments, group in (({name: value}, {}), ({}, {name: value})):
        with pytest.raises(ValueError, match=rf"Lion: {name} must be a number in \[0, .*not "):
            Lion([{"params": parameters(), **group}], **arguments)


@pytest.mark.parametrize("name", ["beta1", "beta2"])
def test_beta_stays_below_one(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be a number in \[0, 1\), not 1\.0"):
        Lion(parameters(), **{name: 1.0})


def test_sparse_gradients_are_refused() -> None:
    p = torch.nn.Parameter(torch.zeros(4, 2))
    p.grad = torch.sparse_coo_tensor([[1]], [[1.0, 1.0]], (4, 2), check_invariants=True)
    with pytest.raises(RuntimeError, match="sparse"):
        Lion([p]).step()


def test_closure_runs_with_gradients_enabled() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = Lion([p], lr=0.5, weight_decay=0.0)

    def closure() -> float:
        loss = (p**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 2.0
    assert p.tolist() == [0.5, 0.5]


def test_gradients_are_left_as_they_were() -> None:
    params = parameters()
    set_gradients(params, 0)
    before = [p.grad.clone() for p in params if p.grad is not None]
    Lion(params).step()
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))


class OperatorLog(TorchDispatchMode):
    """The names of the operators that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if "record_function" not in func.name():  # the profiler's mark around every torch step
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_fast_step_reads_nothing_back_and_launches_four_kernels() -> None:
    params = parameters([(3,), (4, 5), (2, 3, 3, 3), ()])
    groups = [{"params": [p], "role": role} for p, role in zip(params, "abcd", strict=True)]
    optimizer = Lion(groups)
    for step in range(2):
        set_gradients(params, step)
        with OperatorLog() as log:
            optimizer.step()
    assert log.names == ["_foreach_lerp", "_foreach_lerp_", "_foreach_sign_", "_fused_sgd_"]


def test_blocks_cover_everything_once_and_only_a_cpu_needs_them() -> None:
    sizes = [10, lion.CPU_BLOCK_ELEMENTS, 5, lion.CPU_BLOCK_ELEMENTS - 5, 1]
    tensors = [torch.empty(n, device="cpu") for n in sizes]
    assert [sizes[block] for block in lion._blocks(tensors)] == [sizes[:2], sizes[2:4], sizes[4:]]
    elsewhere = [torch.empty(n, device="meta") for n in sizes]
    assert [sizes[block] for block in lion._blocks(elsewhere)] == [sizes]


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(lion.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(Lion).parameters
    assert {name: float(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default
        for name, argument in arguments.items()
        if name not in ("params", "foreach")
    }
    assert card.implementation == "lion:Lion"
    assert card.claim is not None and card.claim.ratio == 0.2
