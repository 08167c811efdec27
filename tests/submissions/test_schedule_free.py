"""Schedule-Free AdamW against Algorithm 1 of Defazio et al. 2024, written out by element."""

import copy
import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from card_defaults import card_defaults
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.cards import SubmissionCard, read_card
from harness.session import Factors
from submissions.optimizers import schedule_free
from submissions.optimizers.schedule_free import (
    EvaluatedAverage,
    ScheduleFreeAdamW,
    WarmupConstant,
)

SHAPES = [(), (1,), (7,), (5, 3), (2, 3, 3, 3), (0, 4)]
PATHS = pytest.mark.parametrize("foreach", [True, False], ids=["fast", "reference"])


def parameters(
    shapes: list[tuple[int, ...]] = SHAPES, dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in shapes]


def set_gradients(
    params: list[nn.Parameter], step: int, without: frozenset[int] = frozenset()
) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for i, p in enumerate(params):
        g = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        p.grad = None if i in without else g


class ByHand:
    """One weight: x, y and z as the paper defines them."""

    def __init__(self, start: float, *, beta: float, beta2: float, eps: float, wd: float) -> None:
        self.x = self.y = self.z = start
        self.v = self.weights = 0.0
        self.t = 0
        self.beta, self.beta2, self.eps, self.wd = beta, beta2, eps, wd

    def step(self, g: float, lr: float) -> None:
        self.t += 1
        gamma = lr * math.sqrt(1 - self.beta2**self.t)
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        decay = gamma * self.wd * self.y
        self.z = self.z - gamma * g / (math.sqrt(self.v) + self.eps) - decay
        self.weights += gamma**2
        c = gamma**2 / self.weights
        self.x = (1 - c) * self.x + c * self.z
        self.y = (1 - self.beta) * self.z + self.beta * self.x


@PATHS
def test_follows_algorithm_1(foreach: bool) -> None:
    rule = {"beta": 0.8, "beta2": 0.95, "eps": 1e-3}
    params = parameters([(3,), (2, 2)])
    optimizer = ScheduleFreeAdamW(params, weight_decay=0.3, foreach=foreach, **rule)
    by_hand = [[ByHand(w, wd=0.3, **rule) for w in p.flatten().tolist()] for p in params]
    for step in range(12):
        lr = 0.05 * min(1.0, (step + 1) / 4)  # warm-up, then constant
        optimizer.param_groups[0]["lr"] = lr
        set_gradients(params, step)
        for p, row in zip(params, by_hand, strict=True):
            assert p.grad is not None
            for weight, g in zip(row, p.grad.flatten().tolist(), strict=True):
                weight.step(g, lr)
        optimizer.step()
        for p, row in zip(params, by_hand, strict=True):
            assert p.flatten().tolist() == pytest.approx([w.y for w in row], rel=1e-12)
            z = optimizer.state[p]["z"]
            assert z.flatten().tolist() == pytest.approx([w.z for w in row], rel=1e-12)
        optimizer.eval()
        for p, row in zip(params, by_hand, strict=True):
            assert p.flatten().tolist() == pytest.approx([w.x for w in row], rel=1e-12)
        optimizer.train()


@PATHS
def test_two_steps_in_numbers(foreach: bool) -> None:
    """β2 = 0, ε = 0: a step of ±γ. x is z at first, then the mean of both z."""
    p = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = ScheduleFreeAdamW([p], lr=0.5, beta=0.75, beta2=0.0, eps=0.0, foreach=foreach)
    p.grad = torch.tensor([3.0], dtype=torch.float64)
    optimizer.step()
    assert p.item() == 0.5  # z = x = y = 0.5
    p.grad = torch.tensor([-7.0], dtype=torch.float64)
    optimizer.step()  # z = 1, x = 0.75, y = 0.25 · 1 + 0.75 · 0.75
    assert p.item() == pytest.approx(0.8125, rel=1e-15)
    optimizer.eval()
    assert p.item() == pytest.approx(0.75, rel=1e-15)


@PATHS
def test_warmup_steps_weigh_the_square_of_their_rate(foreach: bool) -> None:
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = ScheduleFreeAdamW([p], beta=0.5, beta2=0.0, eps=0.0, foreach=foreach)
    z, positions, weights = 0.0, [], []
    for lr in (0.0, 0.1, 0.2, 0.4, 0.4):
        optimizer.param_groups[0]["lr"] = lr
        p.grad = torch.ones_like(p)
        optimizer.step()
        z -= lr
        positions.append(z)
        weights.append(lr**2)
    optimizer.eval()
    mean = sum(w * z for w, z in zip(weights, positions, strict=True)) / sum(weights)
    assert p.item() == pytest.approx(mean, rel=1e-14)


@PATHS
def test_a_rate_of_zero_at_first_changes_nothing(foreach: bool) -> None:
    p = nn.Parameter(torch.tensor([2.0]))
    optimizer = ScheduleFreeAdamW([p], lr=0.0, foreach=foreach)
    p.grad = torch.ones(1)
    optimizer.step()
    assert p.item() == 2.0
    optimizer.eval()
    assert p.item() == pytest.approx(2.0, rel=1e-6)


def test_fast_and_reference_paths_agree() -> None:
    both = {}
    for foreach in (True, False):
        params = parameters()
        groups: list[dict[str, Any]] = [
            {"params": params[:2], "role": "norm", "weight_decay": 0.0},
            {"params": params[2:4], "role": "matrix", "lr": 0.02},
            {"params": params[4:], "role": "conv", "beta": 0.5, "beta2": 0.7},
        ]
        optimizer = ScheduleFreeAdamW(groups, lr=0.01, weight_decay=0.3, foreach=foreach)
        for step in range(8):
            set_gradients(params, step, without=frozenset({step % 6, (step + 3) % 6}))
            optimizer.step()
            if step % 3 == 1:
                optimizer.eval()
                optimizer.train()
        both[foreach] = params
    for fast, reference in zip(both[True], both[False], strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-12, atol=1e-13)


@PATHS
def test_mixed_dtypes_and_layouts(foreach: bool) -> None:
    base = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    guard = base[:, 1::2].clone()
    params = [nn.Parameter(base[:, ::2]), nn.Parameter(torch.randn(4)), *parameters([(5, 4)])]
    params[2] = nn.Parameter(params[2].detach().t())
    twins = [nn.Parameter(p.detach().clone(memory_format=torch.contiguous_format)) for p in params]
    results = []
    for tensors in (params, twins):
        optimizer = ScheduleFreeAdamW(tensors, lr=0.1, foreach=foreach)
        for step in range(4):
            set_gradients(tensors, step)
            optimizer.step()
        optimizer.eval()
        results.append(tensors)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(base[:, 1::2], guard)


@PATHS
def test_evaluation_restores_the_weights_bit_for_bit(foreach: bool) -> None:
    params = parameters(dtype=torch.float32)
    optimizer = ScheduleFreeAdamW(params, lr=0.1, foreach=foreach)
    for step in range(3):
        set_gradients(params, step)
        optimizer.step()
    before = [p.detach().clone() for p in params]
    for _ in range(2):
        for _ in range(2):  # twice is once
            optimizer.eval()
        assert not torch.equal(params[3], before[3])
        for _ in range(2):
            optimizer.train()
        assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    assert all("y" not in optimizer.state[p] for p in params)


def test_a_step_on_the_average_is_refused() -> None:
    params = parameters()
    optimizer = ScheduleFreeAdamW(params)
    optimizer.eval()
    with pytest.raises(RuntimeError, match=r"call train\(\) before step"):
        optimizer.step()
    optimizer.train()
    optimizer.step()


@PATHS
def test_a_weight_that_starts_late_starts_like_any_other(foreach: bool) -> None:
    early, late = parameters([(4,), (4,)])
    start = late.detach().clone()
    optimizer = ScheduleFreeAdamW([early, late], lr=0.1, foreach=foreach)
    for step in range(50):
        set_gradients([early, late], step, without=frozenset({1}))
        optimizer.step()
    assert torch.equal(late, start)
    set_gradients([early, late], 50)
    optimizer.step()
    assert (late - start).abs().tolist() == pytest.approx([0.1] * 4, rel=1e-6)


@PATHS
@pytest.mark.parametrize("evaluating", [False, True])
def test_state_dict_round_trip(foreach: bool, evaluating: bool) -> None:
    params = parameters()
    optimizer = ScheduleFreeAdamW(params, lr=0.05, foreach=foreach)
    for step in range(3):
        set_gradients(params, step)
        optimizer.step()
    if evaluating:
        optimizer.eval()
    twins = copy.deepcopy(params)
    twin = ScheduleFreeAdamW(twins, lr=9.0, foreach=not foreach)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for tensors, owner in ((params, optimizer), (twins, twin)):
        owner.train()
        for step in range(3, 6):
            set_gradients(tensors, step)
            owner.step()
    for p, q in zip(params, twins, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", ["lr", "weight_decay", "beta", "beta2", "eps"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, torch.tensor(0.5)])
def test_illegal_hyperparameters_are_refused(name: str, value: Any) -> None:
    for arguments, group in (({name: value}, {}), ({}, {name: value})):
        with pytest.raises(ValueError, match=rf"ScheduleFreeAdamW: {name} must be a number in"):
            ScheduleFreeAdamW([{"params": parameters(), **group}], **arguments)


@pytest.mark.parametrize("name", ["beta", "beta2"])
def test_beta_stays_below_one(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be a number in \[0, 1\), not 1\.0"):
        ScheduleFreeAdamW(parameters(), **{name: 1.0})


def test_beta_stays_above_zero() -> None:
    with pytest.raises(ValueError, match="beta must be above 0"):
        ScheduleFreeAdamW(parameters(), beta=0.0)


def test_sparse_gradients_are_refused() -> None:
    p = nn.Parameter(torch.zeros(4, 2))
    p.grad = torch.sparse_coo_tensor([[1]], [[1.0, 1.0]], (4, 2), check_invariants=True)
    with pytest.raises(RuntimeError, match="sparse"):
        ScheduleFreeAdamW([p]).step()


def test_closure_runs_with_gradients_enabled() -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = ScheduleFreeAdamW([p], lr=0.5)

    def closure() -> float:
        loss = (p**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 2.0
    assert p.tolist() == pytest.approx([0.5, 0.5])


def test_gradients_are_left_as_they_were() -> None:
    params = parameters()
    set_gradients(params, 0)
    before = [p.grad.clone() for p in params if p.grad is not None]
    ScheduleFreeAdamW(params, weight_decay=0.1).step()
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


def test_a_fast_step_reads_nothing_back_and_launches_nine_kernels() -> None:
    params = parameters([(3,), (4, 5), (2, 3, 3, 3), ()])
    groups = [{"params": [p], "role": role} for p, role in zip(params, "abcd", strict=True)]
    optimizer = ScheduleFreeAdamW(groups, weight_decay=0.1)
    for step in range(3):
        set_gradients(params, step)
        with OperatorLog() as log:
            optimizer.step()
    assert len(log.names) == 9
    assert all(name.startswith("_foreach_") for name in log.names)


# -- schedule and averaging ----------------------------------------------------------------


def test_the_schedule_warms_up_and_stays() -> None:
    schedule = WarmupConstant(warmup_fraction=0.25)
    factors = [schedule(p) for p in (0.0625, 0.125, 0.25, 0.6, 1.0)]
    assert factors == [Factors(learning_rate=f) for f in (0.25, 0.5, 1.0, 1.0, 1.0)]
    assert WarmupConstant(warmup_fraction=0.0)(0.001) == Factors()


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_an_illegal_warmup_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"warmup_fraction must be a number in \[0, 1\]"):
        WarmupConstant(warmup_fraction=value)


def test_no_schedule_can_move_beta() -> None:
    """A schedule's momentum factor scales these keys; another β would put x elsewhere."""
    group = ScheduleFreeAdamW(parameters()).param_groups[0]
    assert not {"momentum", "beta1", "betas"} & group.keys()


class Calibration:
    """A session that estimates batch-norm statistics from given inputs."""

    def __init__(self, inputs: torch.Tensor) -> None:
        self.inputs = inputs
        self.batches = 0

    def recalibrate(self, model: nn.Module, batches: int) -> None:
        self.batches += batches
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.reset_running_stats()
                    module.momentum = 1.0
            model(self.inputs)
            for module in model.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.momentum = 0.1


def trained_model(inputs: torch.Tensor) -> tuple[nn.Sequential, ScheduleFreeAdamW]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    optimizer = ScheduleFreeAdamW(model.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        optimizer.step()
    return model, optimizer


def test_the_average_is_evaluated_with_statistics_of_its_own() -> None:
    inputs = torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    model, optimizer = trained_model(inputs)
    session: Any = Calibration(inputs)
    average = EvaluatedAverage(
        session=session, model=model, optimizer=optimizer, recalibration_batches=4
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, norm = model[0], model[1]
    assert isinstance(first, nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d)
    y, z = before["0.weight"], optimizer.state[first.weight]["z"]
    average.update()
    optimizer.eval()  # the harness calls both around an export; neither disturbs the other
    with average.evaluated():
        torch.testing.assert_close(first.weight.detach(), (y - 0.1 * z) / 0.9)
        mean = [sum(column) / 16 for column in first(inputs).detach().T.tolist()]
        assert norm.running_mean is not None
        assert norm.running_mean.tolist() == pytest.approx(mean, rel=1e-10)
    optimizer.train()
    assert session.batches == 4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_come_back_when_the_evaluation_fails() -> None:
    inputs = torch.randn(16, 3, dtype=torch.float64)
    model, optimizer = trained_model(inputs)
    session: Any = Calibration(inputs)
    average = EvaluatedAverage(session=session, model=model, optimizer=optimizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="evaluation"), average.evaluated():
        raise RuntimeError("evaluation")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    optimizer.step()


def test_no_recalibration_is_refused() -> None:
    session: Any = None
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="recalibration_batches must be at least 1, not 0"):
        EvaluatedAverage(
            session=session,
            model=model,
            optimizer=ScheduleFreeAdamW(model.parameters()),
            recalibration_batches=0,
        )


def test_the_card_and_the_constructors_agree() -> None:
    card = read_card(Path(schedule_free.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = {
        name: argument.default
        for part in (ScheduleFreeAdamW, WarmupConstant, EvaluatedAverage)
        for name, argument in inspect.signature(part).parameters.items()
        if name not in ("params", "foreach", "session", "model", "optimizer")
    }
    assert card_defaults(card, arguments) == arguments
    assert card.implementation == "schedule_free:ScheduleFreeAdamW"
    assert card.claim is not None and card.claim.ratio == 0.92
