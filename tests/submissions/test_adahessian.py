"""AdaHessian against Yao et al. 2021, written out element by element."""

import copy
import gc
import inspect
import math
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.cards import SubmissionCard, read_card
from submissions.optimizers import adahessian
from submissions.optimizers.adahessian import AdaHessian

# torch warns of the cycle of gradients and graph that `step` breaks.
pytestmark = pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
PATHS = pytest.mark.parametrize("foreach", [True, False], ids=["fast", "reference"])
COUPLING = 0.3
SHAPES = [(2, 2), (2, 1, 2, 2), (2, 2, 3), (3,), ()]


class FakeSession:
    last_batch = SimpleNamespace(size=7)

    def __init__(self) -> None:
        self.backward = 0

    def count(self, *, forward: int, backward: int) -> None:
        assert forward == 0
        self.backward += backward


def parameters(shapes: list[tuple[int, ...]] = SHAPES) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes]


def quartic(params: list[nn.Parameter]) -> Tensor:
    """Σ θᵢ⁴ / 4 + c (Σ θᵢ)² / 2: the Hessian is 3 θᵢ² on the diagonal and c everywhere."""
    powers = torch.stack([(p**4).sum() for p in params]).sum() / 4
    return powers + COUPLING / 2 * torch.stack([p.sum() for p in params]).sum() ** 2


def closure_of(params: list[nn.Parameter], loss: Callable[..., Tensor] = quartic) -> Any:
    def closure() -> Tensor:
        for p in params:
            p.grad = None
        value = loss(params)
        value.backward(create_graph=True)
        return value.detach()

    return closure


def values(tensors: list[Any]) -> list[list[float]]:
    return [t.detach().flatten().tolist() for t in tensors]


@PATHS
@pytest.mark.parametrize(("power", "interval"), [(1.0, 1), (0.5, 1), (1.0, 3)])
def test_follows_the_published_rule(power: float, interval: int, foreach: bool) -> None:
    lr, beta1, beta2, eps, wd = 0.02, 0.8, 0.9, 1e-3, 0.2
    params = parameters()
    roles = ["matrix", "conv", "conv", "bias", "bias"]
    session = FakeSession()
    optimizer = AdaHessian(
        [{"params": [p], "role": role} for p, role in zip(params, roles, strict=True)],
        session=session, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=wd,
        hessian_power=power, interval=interval, foreach=foreach,
    )  # fmt: skip
    theta = values(params)
    kernels = [1, 4, 3, 1, 1]  # elements that share D
    m = [[0.0] * len(row) for row in theta]
    v = [[0.0] * len(row) for row in theta]
    estimates = 0
    for t in range(1, 8):
        torch.manual_seed(t)
        z = values(adahessian._random_signs(params))
        sum_theta = sum(map(sum, theta))
        sum_z = sum(map(sum, z))
        due = (t - 1) % interval == 0
        estimates += due
        for i, row in enumerate(theta):
            if due:
                Hz = [3 * x**2 * s + COUPLING * sum_z for x, s in zip(row, z[i], strict=True)]
                D = [abs(a * s) for a, s in zip(Hz, z[i], strict=True)]
                for start in range(0, len(row), kernels[i]):
                    mean = sum(D[start : start + kernels[i]]) / kernels[i]
                    for j in range(start, start + kernels[i]):
                        v[i][j] = beta2 * v[i][j] + (1 - beta2) * mean**2
            g = [x**3 + COUPLING * sum_theta for x in row]
            m[i] = [beta1 * a + (1 - beta1) * b for a, b in zip(m[i], g, strict=True)]
        for i, row in enumerate(theta):
            for j, x in enumerate(row):
                m_hat = m[i][j] / (1 - beta1**t)
                v_hat = v[i][j] / (1 - beta2**estimates)
                row[j] = x - lr * (m_hat / (v_hat ** (power / 2) + eps) + wd * x)
        torch.manual_seed(t)
        optimizer.step(closure_of(params))
        for now, expected in zip(values(params), theta, strict=True):
            assert now == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert session.backward == 7 * estimates


@pytest.mark.parametrize(
    ("shape", "role", "shared"),
    [
        ((4, 3), "matrix", False),
        ((4, 3, 5), "conv", True),
        ((4, 3, 3, 3), "conv", True),
        ((4, 3, 2, 2, 2), "conv", True),
        ((4, 3, 5), "embedding", False),
        ((4, 3, 5), None, True),
    ],
)
def test_kernels_share_their_mean_and_nothing_else_does(
    shape: tuple[int, ...], role: str | None, shared: bool
) -> None:
    Hz = parameters([shape])[0].detach()
    D = adahessian._diagonal(Hz, role).abs()
    assert D.shape == Hz.shape
    if shared:
        expected = Hz.abs().flatten(2).mean(-1)
        torch.testing.assert_close(D.flatten(2), expected[..., None].expand_as(D.flatten(2)))
    else:
        assert torch.equal(D, Hz.abs())


def test_signs_are_fair_and_independent_enough() -> None:
    torch.manual_seed(0)
    z = torch.cat(adahessian._random_signs([torch.empty(300, 100), torch.empty(70_000)])[1:])
    assert set(z.tolist()) == {-1.0, 1.0}
    assert abs(z.mean().item()) < 0.015
    for lag in (1, 7, adahessian.RANDOM_BITS):
        assert abs((z[lag:] * z[:-lag]).mean().item()) < 0.015


@pytest.mark.parametrize("block", [1, 12, adahessian.CPU_BLOCK_ELEMENTS])
def test_fast_and_reference_paths_agree(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adahessian, "CPU_BLOCK_ELEMENTS", block)
    both = {}
    for foreach in (True, False):
        params = parameters()
        groups: list[dict[str, Any]] = [
            {"params": params[:1], "role": "matrix", "weight_decay": 0.0, "hessian_power": 0.7},
            {"params": params[1:3], "role": "conv", "lr": 0.01},
            {"params": params[3:], "role": "bias"},
        ]
        optimizer = AdaHessian(
            groups, session=FakeSession(), weight_decay=0.1, interval=2, foreach=foreach
        )
        torch.manual_seed(0)
        for step in range(6):
            # The first parameter joins late, between two estimates, the last leaves early.
            optimizer.step(closure_of(params[step < 3 : 5 - (step > 3)]))
        both[foreach] = params
    for fast, reference in zip(both[True], both[False], strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-11, atol=1e-13)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Mark:
    """Lives as long as the graph's node that it is hooked on."""

    def __call__(self, *gradients: Any) -> None:
        pass


@PATHS
@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("interval", [1, 2])
def test_no_graph_outlives_its_step(interval: int, foreach: bool) -> None:
    params = parameters()
    optimizer = AdaHessian(params, session=FakeSession(), interval=interval, foreach=foreach)
    marks = []

    def marked(params: list[nn.Parameter]) -> Tensor:
        mark = Mark()
        marks.append(weakref.ref(mark))
        loss = quartic(params)
        assert loss.grad_fn is not None
        loss.grad_fn.register_hook(mark)
        return loss

    for step in range(3):
        optimizer.step(closure_of(params, marked))
        assert [mark() for mark in marks] == [None] * (step + 1)
        assert all(p.grad is None for p in params)
        for state in optimizer.state.values():
            assert not any(isinstance(x, Tensor) and x.requires_grad for x in state.values())


def test_state_dict_round_trip() -> None:
    params = parameters()
    optimizer = AdaHessian(params, session=FakeSession(), interval=2)
    for _ in range(3):
        optimizer.step(closure_of(params))
    twins = copy.deepcopy(params)
    twin = AdaHessian(twins, session=FakeSession(), lr=9.0)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(3):
        for group, owner in ((params, optimizer), (twins, twin)):
            torch.manual_seed(step)
            owner.step(closure_of(group))
    for p, q in zip(params, twins, strict=True):
        assert torch.equal(p, q)


def test_gradients_without_a_graph_are_refused() -> None:
    params = parameters()
    quartic(params).backward()
    with pytest.raises(RuntimeError, match="the closure must be `graph`"):
        AdaHessian(params, session=FakeSession()).step()


def test_a_parameter_the_loss_is_linear_in_has_no_curvature() -> None:
    params = parameters([(3,), (2,)])
    optimizer = AdaHessian(params, session=FakeSession(), lr=0.1, eps=1.0)
    before = params[1].detach().clone()
    optimizer.step(closure_of(params, lambda ps: (ps[0] ** 4).sum() + 0.5 * ps[1].sum()))
    torch.testing.assert_close(params[1].detach(), before - 0.1 * 0.5)  # v = 0, ε = 1


@pytest.mark.parametrize("name", ["lr", "weight_decay", "beta1", "beta2", "eps", "hessian_power"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, torch.tensor(0.5)])
def test_illegal_hyperparameters_are_refused(name: str, value: Any) -> None:
    for arguments, group in (({name: value}, {}), ({}, {name: value})):
        with pytest.raises(ValueError, match=rf"AdaHessian: {name} must be a number in \[0, "):
            AdaHessian([{"params": parameters(), **group}], session=FakeSession(), **arguments)


def test_the_interval_is_positive() -> None:
    with pytest.raises(ValueError, match="interval must be at least 1, not 0"):
        AdaHessian(parameters(), session=FakeSession(), interval=0)


def test_sparse_gradients_are_refused() -> None:
    p = nn.Parameter(torch.zeros(4, 2))
    p.grad = torch.sparse_coo_tensor([[1]], [[1.0, 1.0]], (4, 2), check_invariants=True)
    with pytest.raises(RuntimeError, match="sparse"):
        AdaHessian([p], session=FakeSession()).step()


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(adahessian.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(AdaHessian).parameters
    assert {name: float(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default
        for name, argument in arguments.items()
        if name not in ("params", "session", "foreach")
    }
    assert card.closure == "graph"
    assert card.needs == ("session",)
