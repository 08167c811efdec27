"""EMA against Kingma and Ba 2015, section 7.2, written out element by element."""

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.cards import SubmissionCard, read_card
from submissions.averaging import ema
from submissions.averaging.ema import EMA

PATHS = pytest.mark.parametrize("foreach", [True, False], ids=["fast", "reference"])


class Calibration:
    """A session that estimates batch-norm statistics from given inputs."""

    def __init__(self, inputs: torch.Tensor) -> None:
        self.inputs = inputs
        self.seen: list[tuple[int, list[float]]] = []

    def recalibrate(self, model: nn.Module, batches: int) -> None:
        self.seen.append((batches, [p.flatten()[0].item() for p in model.parameters()]))
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        with torch.no_grad():
            for _ in range(batches if norms else 0):
                model(self.inputs)
        for norm in norms:
            norm.momentum = 0.1


def averaging(model: nn.Module, session: Any = None, **arguments: Any) -> EMA:
    return EMA(session=session or Calibration(torch.randn(8, 3)), model=model, **arguments)


def model_with_norm(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).to(dtype)


def move(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))


@PATHS
def test_follows_the_published_rule(foreach: bool) -> None:
    model = nn.Linear(3, 2, dtype=torch.float64)
    average = averaging(model, decay=0.8, foreach=foreach)
    m = [[0.0] * p.numel() for p in model.parameters()]
    for t in range(1, 8):
        move(model, t)
        average.update()
        theta = [p.flatten().tolist() for p in model.parameters()]
        for row, weights in zip(m, theta, strict=True):
            for j, weight in enumerate(weights):
                row[j] = 0.8 * row[j] + 0.2 * weight
        with average.evaluated():
            for p, row in zip(model.parameters(), m, strict=True):
                corrected = [value / (1 - 0.8**t) for value in row]
                assert p.flatten().tolist() == pytest.approx(corrected, rel=1e-12)
        assert [p.flatten().tolist() for p in model.parameters()] == theta


@PATHS
def test_the_initial_weights_have_no_part_in_it(foreach: bool) -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.fill_(1e6)
    average = averaging(model, decay=0.999, foreach=foreach)
    move(model, 1)
    trained = model.weight.detach().clone()
    average.update()
    with average.evaluated():
        assert torch.equal(model.weight, trained)


def test_before_the_first_step_nothing_changes() -> None:
    model = model_with_norm()
    session = Calibration(torch.randn(8, 3, dtype=torch.float64))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with averaging(model, session).evaluated():
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert session.seen == []


def test_fast_and_reference_paths_agree() -> None:
    models = [model_with_norm(torch.float32), model_with_norm(torch.float32)]
    averages = [averaging(m, foreach=f) for m, f in zip(models, (True, False), strict=True)]
    for t in range(1, 30):
        for model, average in zip(models, averages, strict=True):
            move(model, t)
            average.update()
    for fast, reference in zip(averages[0]._averages, averages[1]._averages, strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-5, atol=1e-6)


def test_statistics_fit_the_average_and_everything_comes_back_bit_for_bit() -> None:
    model = model_with_norm()
    inputs = torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    session = Calibration(inputs)
    average = averaging(model, session, decay=0.5, recalibration_batches=3)
    for t in range(1, 4):
        move(model, t)
        model(inputs)  # running statistics of training
        average.update()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, norm = model[0], model[1]
    assert isinstance(first, nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d)
    with average.evaluated():
        hidden = first(inputs).detach()
        mean = [sum(column) / 16 for column in hidden.T.tolist()]
        assert norm.running_mean is not None
        assert norm.running_mean.tolist() == pytest.approx(mean, rel=1e-10)
        assert norm.num_batches_tracked is not None
        assert norm.num_batches_tracked.item() == 3
        assert session.seen == [(3, [p.flatten()[0].item() for p in model.parameters()])]
    assert norm.momentum == 0.1
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert before["1.num_batches_tracked"].item() == 3


def test_an_evaluation_leaves_the_average_and_the_tensors_alone() -> None:
    models = [model_with_norm(), model_with_norm()]
    inputs = torch.randn(8, 3, dtype=torch.float64)
    averages = [averaging(model, Calibration(inputs)) for model in models]
    addresses = [p.data_ptr() for p in models[0].parameters()]
    for t in range(1, 6):
        for model, average in zip(models, averages, strict=True):
            move(model, t)
            average.update()
        with averages[0].evaluated():
            pass
    assert [p.data_ptr() for p in models[0].parameters()] == addresses
    for a, b in zip(averages[0]._averages, averages[1]._averages, strict=True):
        assert torch.equal(a, b)


def test_weights_come_back_when_the_evaluation_fails() -> None:
    model = nn.Linear(3, 2)
    average = averaging(model, decay=0.5)
    for t in range(1, 4):
        move(model, t)
        average.update()
    trained = model.weight.detach().clone()
    with pytest.raises(RuntimeError, match="evaluation"), average.evaluated():
        raise RuntimeError("evaluation" if not torch.equal(model.weight, trained) else "nothing")
    assert torch.equal(model.weight, trained)


def test_the_gradient_of_training_is_untouched() -> None:
    model = nn.Linear(3, 2)
    average = averaging(model)
    model(torch.ones(1, 3)).sum().backward()
    gradient = model.weight.grad
    average.update()
    with average.evaluated():
        pass
    assert model.weight.grad is gradient
    assert model.weight.requires_grad
    assert not average._averages[0].requires_grad


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_an_illegal_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"EMA: decay must be a number in \[0, 1\), not "):
        averaging(nn.Linear(1, 1), decay=decay)


def test_no_recalibration_is_refused() -> None:
    with pytest.raises(ValueError, match="recalibration_batches must be at least 1, not 0"):
        averaging(nn.Linear(1, 1), recalibration_batches=0)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(ema.__file__).with_suffix(".yaml"), SubmissionCard)
    assert {name: h.convert(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default
        for name, argument in inspect.signature(EMA).parameters.items()
        if name not in ("session", "model", "foreach")
    }
    assert (card.kind, card.implementation) == ("averaging", "ema:EMA")
