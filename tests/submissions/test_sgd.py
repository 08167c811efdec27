"""SGD against the documented rule, written out element by element."""

import copy
import inspect
from pathlib import Path

import pytest
import torch

from harness.cards import SubmissionCard, read_card
from submissions.optimizers import sgd
from submissions.optimizers.sgd import SGD


def test_follows_the_documented_rule_with_a_schedule_and_exempt_groups() -> None:
    momentum = 0.8
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
    optimizer = SGD(groups, lr=1.0, momentum=momentum, weight_decay=decays[0])
    theta = [p.detach().flatten().tolist() for p in params]
    v = [[0.0] * len(row) for row in theta]
    for step, lr in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for i, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            for j, g in enumerate(p.grad.flatten().tolist()):
                g_decayed = g + decays[i] * theta[i][j]
                v[i][j] = g_decayed if step == 0 else momentum * v[i][j] + g_decayed
                theta[i][j] -= lr * (g_decayed + momentum * v[i][j])
        optimizer.step()
        for p, row in zip(params, theta, strict=True):
            assert p.detach().flatten().tolist() == pytest.approx(row, rel=1e-13, abs=1e-14)


def test_a_parameter_without_gradient_stays() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    SGD([p]).step()
    assert p.tolist() == [1.0, 1.0]


def test_state_dict_round_trip() -> None:
    p, q = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    optimizer, twin = SGD([p], lr=0.3), SGD([q])
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
    [{"lr": -0.1}, {"momentum": -0.1}, {"momentum": 0.0}, {"weight_decay": -1.0}],
    ids=str,
)
def test_illegal_hyperparameters_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"Invalid|Nesterov"):
        SGD([torch.nn.Parameter(torch.ones(1))], **arguments)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(sgd.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(SGD).parameters
    assert {name: float(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default for name, argument in arguments.items() if name != "params"
    }
    assert card.claim is None
