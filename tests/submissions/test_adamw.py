"""AdamW against the documented rule, written out element by element."""

import copy
import inspect
import math
from pathlib import Path

import pytest
import torch

from harness.cards import SubmissionCard, read_card
from submissions.optimizers import adamw
from submissions.optimizers.adamw import AdamW


def test_follows_the_documented_rule_with_a_schedule_and_exempt_groups() -> None:
    beta1, beta2, eps = 0.8, 0.9, 1e-3
    rates = [0.1, 0.1, 0.05, 0.02, 0.0]
    decays = [0.3, 0.0]
    generator = torch.Generator().manual_seed(0)
    params = [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        for shape in ((2, 3), ())
    ]
    groups = [
        {"params": [params[0]], "role": "matrix"},
        {"params": [params[1]], "role": "bias", "weight_decay": decays[1]},
    ]
    optimizer = AdamW(groups, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decays[0])
    theta = [p.detach().flatten().tolist() for p in params]
    m = [[0.0] * len(row) for row in theta]
    v = [[0.0] * len(row) for row in theta]
    for t, lr in enumerate(rates, start=1):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for i, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            for j, g in enumerate(p.grad.flatten().tolist()):
                theta[i][j] -= lr * decays[i] * theta[i][j]
                m[i][j] = beta1 * m[i][j] + (1 - beta1) * g
                v[i][j] = beta2 * v[i][j] + (1 - beta2) * g * g
                m_hat = m[i][j] / (1 - beta1**t)
                v_hat = v[i][j] / (1 - beta2**t)
                theta[i][j] -= lr * m_hat / (math.sqrt(v_hat) + eps)
        optimizer.step()
        for p, row in zip(params, theta, strict=True):
            assert p.detach().flatten().tolist() == pytest.approx(row, rel=1e-12, abs=1e-13)


def test_a_parameter_without_gradient_stays() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    AdamW([p]).step()
    assert p.tolist() == [1.0, 1.0]


def test_state_dict_round_trip() -> None:
    p, q = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    optimizer, twin = AdamW([p], lr=0.3), AdamW([q])
    for step in range(4):
        if step == 2:
            twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            q.data.copy_(p.data)
        p.grad = torch.full_like(p, step - 0.5)
        q.grad = p.grad.clone()
        optimizer.step()
        twin.step()
    assert torch.equal(p, q)


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr": -0.1},
        {"lr": math.nan},
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"eps": -1.0},
        {"weight_decay": -1.0},
    ],
    ids=str,
)
def test_illegal_hyperparameters_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Invalid"):
        AdamW([torch.nn.Parameter(torch.ones(1))], **arguments)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(adamw.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(AdamW).parameters
    assert {name: float(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default for name, argument in arguments.items() if name != "params"
    }
    assert card.claim is None
