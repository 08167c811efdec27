"""SAM against Algorithm 1 of Foret et al. 2021 with AdamW's step, written out by element."""

import copy
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from card_defaults import card_defaults
from torch import Tensor, nn

from harness.cards import SubmissionCard, read_card
from submissions.optimizers import sam
from submissions.optimizers.sam import SAM

PATHS = pytest.mark.parametrize("foreach", [True, False], ids=["fast", "reference"])


def parameters(*shapes: tuple[int, ...], seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes]


def quartic(params: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> Callable[[], Tensor]:
    """The closure of the loss Σ θ⁴ / 4, whose gradient is θ³."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.stack([(p**4).sum() / 4 for p in params]).sum()
        loss.backward()
        return loss.detach()

    return closure


@PATHS
def test_follows_the_published_rule(foreach: bool) -> None:
    rho, lr, beta1, beta2, eps, wd = 0.3, 0.05, 0.8, 0.9, 1e-3, 0.2
    params = parameters((2, 2), (3,))
    optimizer = SAM(
        params, rho=rho, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=wd, foreach=foreach
    )
    closure = quartic(params, optimizer)
    theta = [x for p in params for x in p.detach().flatten().tolist()]
    m, v = [0.0] * 7, [0.0] * 7
    for t in range(1, 9):
        loss = sum(x**4 / 4 for x in theta)
        g = [x**3 for x in theta]
        norm = math.sqrt(sum(x**2 for x in g))  # over both tensors
        for j in range(7):
            h = (theta[j] + rho * g[j] / (norm + 1e-12)) ** 3
            theta[j] -= lr * wd * theta[j]
            m[j] = beta1 * m[j] + (1 - beta1) * h
            v[j] = beta2 * v[j] + (1 - beta2) * h * h
            m_hat, v_hat = m[j] / (1 - beta1**t), v[j] / (1 - beta2**t)
            theta[j] -= lr * m_hat / (math.sqrt(v_hat) + eps)
        assert optimizer.step(closure).item() == pytest.approx(loss, rel=1e-12)
        now = [x for p in params for x in p.detach().flatten().tolist()]
        assert now == pytest.approx(theta, rel=1e-12)


@PATHS
def test_the_second_pass_sees_weights_rho_away_and_the_update_starts_from_the_old(
    foreach: bool,
) -> None:
    params = parameters((50,), (4, 5))
    optimizer = SAM(params, rho=0.7, lr=0.0, foreach=foreach)
    before = torch.cat([p.detach().flatten() for p in params])
    seen = []
    evaluate = quartic(params, optimizer)

    def closure() -> Tensor:
        seen.append(torch.cat([p.detach().flatten() for p in params]))
        return evaluate()

    optimizer.step(closure)
    assert len(seen) == 2
    assert torch.equal(seen[0], before)
    assert (seen[1] - before).norm().item() == pytest.approx(0.7)
    assert torch.equal(torch.cat([p.detach().flatten() for p in params]), before)


@PATHS
def test_rho_zero_is_adamw(foreach: bool) -> None:
    ours, theirs = parameters((3, 2)), parameters((3, 2))
    optimizer = SAM(ours, rho=0.0, foreach=foreach)
    adamw = torch.optim.AdamW(theirs, lr=1e-3, weight_decay=0.01)
    for _ in range(5):
        optimizer.step(quartic(ours, optimizer))
        quartic(theirs, adamw)()
        adamw.step()
    torch.testing.assert_close(ours[0], theirs[0])


def test_fast_and_reference_paths_agree() -> None:
    both = {}
    for foreach in (True, False):
        params = parameters((), (3,), (2, 3, 3, 3), (4, 5), (6,))
        groups: list[dict[str, Any]] = [
            {"params": params[:2], "role": "norm", "weight_decay": 0.0},
            {"params": params[2:4], "role": "matrix", "rho": 0.5, "lr": 0.02},
            {"params": params[4:], "role": "bias"},
        ]
        optimizer = SAM(groups, foreach=foreach)
        for _ in range(5):
            optimizer.step(quartic(params[:4], optimizer))  # the last one has no gradient
        both[foreach] = params
    for fast, reference in zip(both[True], both[False], strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-12, atol=1e-14)
    assert torch.equal(both[True][4], parameters((), (3,), (2, 3, 3, 3), (4, 5), (6,))[4])


@PATHS
def test_a_zero_gradient_climbs_nowhere(foreach: bool) -> None:
    params = [nn.Parameter(torch.zeros(3))]
    optimizer = SAM(params, foreach=foreach)
    optimizer.step(quartic(params, optimizer))
    assert params[0].tolist() == [0.0, 0.0, 0.0]


@PATHS
def test_clipping_leaves_the_climb_as_it_is(foreach: bool) -> None:
    climbed = []
    for clip in (1e-3, 1e3):
        params = parameters((5,))
        optimizer = SAM(params, rho=0.2, foreach=foreach)
        evaluate = quartic(params, optimizer)

        def closure(evaluate: Any = evaluate, params: Any = params, clip: float = clip) -> Tensor:
            climbed.append(params[0].detach().clone())
            loss = evaluate()
            nn.utils.clip_grad_norm_(params, clip)
            return loss

        optimizer.step(closure)
    torch.testing.assert_close(climbed[1], climbed[3], rtol=1e-6, atol=1e-9)


@PATHS
def test_weights_are_restored_when_the_second_pass_fails(foreach: bool) -> None:
    params = parameters((4,))
    optimizer = SAM(params, foreach=foreach)
    before = params[0].detach().clone()
    evaluate = quartic(params, optimizer)
    calls = iter((evaluate,))

    def closure() -> Tensor:
        return next(calls)()

    with pytest.raises((StopIteration, RuntimeError)):
        optimizer.step(closure)
    assert torch.equal(params[0], before)


def test_state_dict_round_trip() -> None:
    params = parameters((3, 2), (4,))
    optimizer = SAM(params, rho=0.1)
    for _ in range(3):
        optimizer.step(quartic(params, optimizer))
    twins = copy.deepcopy(params)
    twin = SAM(twins, rho=9.0, lr=9.0)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        optimizer.step(quartic(params, optimizer))
        twin.step(quartic(twins, twin))
    for p, q in zip(params, twins, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, torch.tensor(0.5)])
def test_illegal_rho_is_refused(value: Any) -> None:
    for arguments, group in (({"rho": value}, {}), ({}, {"rho": value})):
        with pytest.raises(ValueError, match=r"SAM: rho must be a number in \[0, inf\), not "):
            SAM([{"params": parameters((2,)), **group}], **arguments)


@pytest.mark.parametrize("arguments", [{"lr": -1.0}, {"beta1": 1.0}, {"eps": -1.0}])
def test_illegal_settings_of_adamw_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Invalid"):
        SAM(parameters((2,)), **arguments)


def test_a_step_needs_a_closure() -> None:
    with pytest.raises(ValueError, match="SAM: step needs a closure"):
        SAM(parameters((2,))).step()


def test_sparse_gradients_are_refused() -> None:
    p = nn.Parameter(torch.zeros(4, 2))

    def closure() -> Tensor:
        p.grad = torch.sparse_coo_tensor([[1]], [[1.0, 1.0]], (4, 2), check_invariants=True)
        return torch.zeros(())

    with pytest.raises(RuntimeError, match="sparse"):
        SAM([p]).step(closure)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(sam.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = {
        name: argument.default
        for name, argument in inspect.signature(SAM).parameters.items()
        if name not in ("params", "foreach")
    }
    assert card_defaults(card, arguments) == arguments
    assert card.closure == "backward"
