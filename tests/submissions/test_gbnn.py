"""GBNN against the stages of Emami & Martínez-Muñoz 2023, in plain loops."""

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.cards import SubmissionCard, read_card
from harness.session import Batch, Selection
from submissions.procedures import gbnn
from submissions.procedures.gbnn import GBNN, hidden_and_head
from workloads.gpt.model import GPT

CLASSES = 3


class Perceptron(nn.Module):
    def __init__(self, features: int = 2, units: int = 6, outputs: int = CLASSES) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, units)
        self.head = nn.Linear(units, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.hidden(inputs)))
        return logits


def perceptron(**sizes: int) -> Perceptron:
    torch.manual_seed(0)
    return Perceptron(**sizes).double()


class EndOfRunError(Exception):
    pass


class DataSession:
    """Points in classes by angle, or targets of another loss; epochs in a fixed order."""

    def __init__(self, examples: int = 40, batch_size: int = 4, horizon: int = 100) -> None:
        generator = torch.Generator().manual_seed(2)
        inputs = torch.randn(examples, 2, generator=generator, dtype=torch.float64)
        self.inputs = inputs
        self.targets = (inputs[:, 0] > 0.3).long() + (inputs.sum(dim=1) > 0).long()
        self.training_examples = examples
        self.training_ids = torch.arange(examples)
        self.batch_size = batch_size
        self.horizon_examples = horizon
        self.calls: list[tuple[str, int]] = []
        self.seen: list[Tensor] = []  # the evaluated model's outputs at every step
        self.told: list[Tensor] = []
        self.at_most = 10**9
        self._position = 0

    def examples_of(self, selection: Selection) -> Batch:
        i = selection.ids
        return Batch(ids=i, inputs=self.inputs[i], targets=self.targets[i], weights=None)

    def batch(self) -> Batch:
        start = self._position
        if start + self.batch_size > len(self.training_ids):
            start = 0
        self._position = start + self.batch_size
        return self.examples_of(Selection(ids=self.training_ids.flip(0)[start : self._position]))

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        self.calls.append(("forward", batch.size))
        outputs: Tensor = model(batch.inputs)
        return outputs

    def per_example_loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch.targets, reduction="none")

    def loss(self, losses: Tensor, batch: Batch) -> Tensor:
        self.told.append(losses)
        return losses.mean()

    def probe_loss(self, losses: Tensor, batch: Batch) -> Tensor:
        assert losses.shape == (batch.size,)
        if batch.weights is not None:
            return (batch.weights * losses).sum() / batch.weights.sum()
        return losses.mean()

    def backward(self, loss: Tensor, examples: int) -> None:
        self.calls.append(("backward", examples))
        loss.backward()

    def score(self, model: nn.Module, ids: Tensor) -> Tensor:
        self.calls.append(("score", len(ids)))
        return torch.zeros(len(ids))

    def maybe_evaluate(self, model: nn.Module) -> None:
        self.calls.append(("step", 0))
        with torch.no_grad():
            self.seen.append(model(self.inputs))
        if len(self.seen) == self.at_most:
            raise EndOfRunError


class SquaredErrorSession(DataSession):
    def per_example_loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        wanted = torch.stack((batch.inputs[:, 0] + 2, batch.inputs.sum(dim=1), batch.inputs[:, 1]))
        return (outputs - wanted.T).square().sum(dim=1)


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(x) for x in row]
    return [x / sum(powers) for x in powers]


def test_follows_the_published_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three stages of two units; the learners' weights are given, all else is by hand."""
    generator = torch.Generator().manual_seed(4)
    learners = [
        [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((2, 2), 2, (3, 2), 3)]
        for _ in range(3)
    ]
    fitted: list[tuple[list[int], list[list[float]]]] = []

    def fit(
        self: GBNN, session: Any, learner: nn.Module, batch: Batch, residuals: Tensor, model: Any
    ) -> None:
        with torch.no_grad():
            for parameter, given in zip(learner.parameters(), learners[len(fitted)], strict=True):
                assert parameter.shape == given.shape
                parameter.copy_(given)
        fitted.append((batch.ids.tolist(), residuals.tolist()))

    monkeypatch.setattr(GBNN, "_fit", fit)
    session: Any = DataSession()
    shrinkage = 0.7
    model = perceptron()
    GBNN(units=2, shrinkage=shrinkage, subsample=0.5).train(session, model)

    inputs, targets = session.inputs.tolist(), session.targets.tolist()
    n = len(inputs)
    counts = [targets.count(k) for k in range(3)]
    assert min(counts) > 3
    outputs = [[math.log(c / n) for c in counts] for _ in range(n)]  # the best constant
    mean = sum(outputs[0]) / 3
    outputs = [[x - mean for x in row] for row in outputs]  # a shift of all classes is free
    assert len(fitted) == 3
    steps = []
    for stage, (ids, residuals) in enumerate(fitted):
        assert len(set(ids)) == 20
        by_id = [
            [(targets[i] == k) - p for k, p in enumerate(softmax(outputs[i]))] for i in range(n)
        ]
        for i, row in zip(ids, residuals, strict=True):
            assert row == pytest.approx(by_id[i], abs=1e-6)
        W, b, V, c = (t.tolist() for t in learners[stage])
        h = []
        for x in inputs:
            z = [math.tanh(W[j][0] * x[0] + W[j][1] * x[1] + b[j]) for j in range(2)]
            h.append([V[k][0] * z[0] + V[k][1] * z[1] + c[k] for k in range(3)])
        slope = curvature = 0.0
        for i in range(n):
            p = softmax(outputs[i])
            slope -= sum(r * v for r, v in zip(by_id[i], h[i], strict=True))
            first = sum(q * v for q, v in zip(p, h[i], strict=True))
            curvature += sum(q * v * v for q, v in zip(p, h[i], strict=True)) - first * first
        step = shrinkage * -slope / curvature
        steps.append(step)
        outputs = [
            [f + step * v for f, v in zip(*rows, strict=True)]
            for rows in zip(outputs, h, strict=True)
        ]
    # Merged: the units side by side, output weights and biases times νρ.
    for stage, (weight, bias, given, _) in enumerate(learners):
        group = slice(2 * stage, 2 * stage + 2)
        assert torch.equal(model.hidden.weight[group], weight)
        assert torch.equal(model.hidden.bias[group], bias)
        torch.testing.assert_close(
            model.head.weight[:, group].detach(), steps[stage] * given, rtol=1e-5, atol=1e-7
        )
    with torch.no_grad():
        actual = model(session.inputs)
    expected = torch.tensor(outputs, dtype=torch.float64)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_the_first_constant_gives_the_frequencies_of_the_classes() -> None:
    session: Any = DataSession()
    data = session.examples_of(Selection(ids=session.training_ids))
    constant = gbnn.best_constant(session, torch.zeros(40, 3, dtype=torch.float64), data)
    frequencies = torch.bincount(session.targets).double() / 40
    torch.testing.assert_close(constant.softmax(dim=0), frequencies, rtol=1e-5, atol=1e-6)


def test_the_first_constant_of_another_loss_is_its_own() -> None:
    session: Any = SquaredErrorSession()
    data = session.examples_of(Selection(ids=session.training_ids))
    constant = gbnn.best_constant(session, torch.zeros(40, 3, dtype=torch.float64), data)
    x, y = session.inputs.mean(dim=0).tolist()
    assert constant.tolist() == pytest.approx([x + 2, x + y, y], abs=1e-6)


def test_a_newton_step_along_a_quadratic_is_the_minimum() -> None:
    session: Any = SquaredErrorSession()
    data = session.examples_of(Selection(ids=session.training_ids))
    generator = torch.Generator().manual_seed(3)
    start, direction = torch.randn(2, 40, 3, generator=generator, dtype=torch.float64)
    step = gbnn.newton_step(session, start, direction, data).item()

    def loss(rho: float) -> float:
        return session.per_example_loss(start + rho * direction, data).sum().item()  # type: ignore[no-any-return]

    assert loss(step) < min(loss(step - 1e-3), loss(step + 1e-3))


def test_a_direction_that_changes_nothing_gives_a_finite_step() -> None:
    session: Any = DataSession()
    data = session.examples_of(Selection(ids=session.training_ids))
    zeros = torch.zeros(40, 3, dtype=torch.float64)
    assert gbnn.newton_step(session, zeros, zeros, data).item() == 0.0


def test_a_fit_is_a_least_squares_fit() -> None:
    """At its end no gradient is left: the errors are orthogonal to units and constant."""
    session: Any = DataSession()
    model = perceptron()
    learner = gbnn.weak_learner(model, 2)
    batch = session.examples_of(Selection(ids=torch.arange(20)))
    residuals = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    GBNN(iterations=500)._fit(session, learner, batch, residuals, model)
    hidden, _ = hidden_and_head(learner).values()
    with torch.no_grad():
        errors = learner(batch.inputs) - residuals
        units = torch.tanh(hidden(batch.inputs))
    assert (units.T @ errors).abs().max() < 1e-4
    assert errors.sum(dim=0).abs().max() < 1e-4
    assert errors.square().sum() < residuals.square().sum()


def test_weighted_examples_count_by_their_weight_in_a_fit() -> None:
    session: Any = DataSession()
    model = perceptron()
    plain = session.examples_of(Selection(ids=torch.arange(20)))
    weights = torch.ones(20, dtype=torch.float64)
    weights[0] = 1e6
    batch = Batch(ids=plain.ids, inputs=plain.inputs, targets=plain.targets, weights=weights)
    residuals = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    learner = gbnn.weak_learner(model, 1)
    GBNN()._fit(session, learner, batch, residuals, model)
    with torch.no_grad():
        errors = (learner(batch.inputs) - residuals).square().sum(dim=1)
    assert errors[0] < 1e-3 * errors[1:].mean()


@pytest.mark.parametrize(("units", "groups"), [(2, [2, 2, 2]), (4, [4, 2]), (6, [6]), (9, [6])])
def test_every_stage_lowers_the_loss_and_fills_its_units(units: int, groups: list[int]) -> None:
    session: Any = DataSession()
    model = perceptron()
    torch.manual_seed(1)
    GBNN(units=units, subsample=1.0, shrinkage=0.5, iterations=30).train(session, model)
    assert len(session.told) == len(groups)
    losses = [told.mean().item() for told in session.told]
    with torch.no_grad():
        end = F.cross_entropy(model(session.inputs), session.targets).item()
    assert [*losses, end] == sorted([*losses, end], reverse=True)
    assert end < 0.7 * losses[0]
    assert model.hidden.weight.any(dim=1).all()


def test_what_stands_to_evaluation_is_the_stages_completed() -> None:
    """Before the end, units not yet used are zero; what is evaluated changes between stages."""
    session: Any = DataSession()
    model = perceptron()
    torch.manual_seed(1)
    GBNN(units=2, iterations=10).train(session, model)
    distinct = [session.seen[0]]
    for seen in session.seen:
        if not torch.equal(seen, distinct[-1]):
            distinct.append(seen)
    assert len(distinct) == 4  # the constant and three stages
    assert torch.equal(distinct[0], distinct[0][:1].expand(40, 3))

    session = DataSession()
    session.at_most = 1
    model = perceptron()
    with pytest.raises(EndOfRunError):
        GBNN(units=2).train(session, model)
    assert not model.hidden.weight.any() and not model.hidden.bias.any()
    assert not model.head.weight.any()


def test_every_pass_is_counted() -> None:
    session: Any = DataSession(horizon=100)
    GBNN(units=3, subsample=0.5, iterations=5).train(session, perceptron())
    calls = session.calls
    ends = [i for i, call in enumerate(calls) if call == ("forward", 40)]  # h on all the data
    assert len(ends) == 2
    for start, end in ((0, ends[0]), (ends[0] + 1, ends[1])):
        fit = calls[start:end]
        assert len(fit) >= 3 * 5
        assert fit == [("forward", 20), ("backward", 20), ("step", 0)] * (len(fit) // 3)
    # Then the finished network is scored for the examples of a horizon: 3 passes of 40.
    assert calls[ends[1] + 1 :] == [("score", 40), ("step", 0)] * 3


def test_examples_held_out_are_not_used() -> None:
    session: Any = DataSession()
    session.training_ids = torch.arange(7, 40)
    GBNN(units=6, iterations=3).train(session, perceptron())
    assert len(session.told[0]) == 33


@pytest.mark.parametrize(("share", "drawn"), [(0.01, 4), (0.5, 20), (0.55, 24), (1.0, 40)])
def test_the_subsample_is_a_number_of_batches(share: float, drawn: int) -> None:
    session: Any = DataSession()
    batch = GBNN(subsample=share)._draw(session)
    assert batch.size == len(set(batch.ids.tolist())) == drawn
    assert torch.equal(batch.inputs, session.inputs[batch.ids])


def test_a_learner_has_the_models_activation() -> None:
    model = nn.Sequential(nn.Linear(2, 5), nn.Softplus(), nn.Linear(5, 3)).double()
    learner = gbnn.weak_learner(model, 2)
    assert list(hidden_and_head(learner)) == ["0", "2"]
    hidden, head = hidden_and_head(learner).values()
    assert hidden.weight.shape == (2, 2) and head.weight.shape == (3, 2)
    x = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    assert torch.equal(learner(x), head(F.softplus(hidden(x))))
    assert model[0].out_features == 5  # the model itself is as it was


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (GPT(vocabulary=5, context=2, width=4, depth=1, heads=1), "GPT has .*positions"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)), "two linear layers"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)), "running_mean"),
        (nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2)), "with biases"),
        (nn.Sequential(nn.Linear(2, 4), nn.MaxPool1d(2), nn.Linear(2, 2)), "4 units .* reads 2"),
        (nn.Tanh(), "Tanh has none"),
    ],
)
def test_other_models_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hidden_and_head(model)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("units", 0),
        ("iterations", 0),
        ("shrinkage", 0.0),
        ("shrinkage", 1.5),
        ("subsample", 0.0),
        ("subsample", 1.5),
    ],
)
def test_illegal_hyperparameters_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"gbnn: {name} must be .*not "):
        GBNN(**{name: value})


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(gbnn.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(GBNN).parameters
    assert {name: h.convert(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default for name, argument in arguments.items()
    }
    assert card.kind == "procedure"
