"""AdAdaGrad against Lau et al. 2024: the variance of a tiny linear model, worked out by hand."""

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from card_defaults import card_defaults
from torch import Tensor, nn

from harness.cards import SubmissionCard, read_card
from harness.session import Batch
from submissions.schedules import adadagrad
from submissions.schedules.adadagrad import (
    AdAdaGrad,
    AdaGrad,
    gradient_noise,
    gradient_noise_reference,
)


class Training:
    """A session: squared errors of one output, and a record of the passes counted."""

    def __init__(self, batch: Batch | None = None, batch_size: int = 8, data: int = 1000) -> None:
        self.last_batch = batch
        self.batch_size = batch_size
        self.training_ids = torch.arange(data)
        self.steps = 10
        self.passes: list[tuple[int, int]] = []

    def count(self, *, forward: int, backward: int) -> None:
        self.passes.append((forward, backward))

    def per_example_loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return 0.5 * (outputs.squeeze(1) - batch.targets) ** 2


class Classifying(Training):
    def per_example_loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch.targets, reduction="none", label_smoothing=0.1)


def linear_batch(n: int, weights: Tensor | None = None, noise: float = 1.0) -> Batch:
    generator = torch.Generator().manual_seed(n)
    inputs = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    targets = inputs.sum(dim=1) + noise * torch.randn(n, generator=generator, dtype=torch.float64)
    return Batch(ids=torch.arange(n), inputs=inputs, targets=targets, weights=weights)


def linear_model() -> nn.Linear:
    model = nn.Linear(2, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, -0.25]]))
        model.bias.fill_(0.125)
    return model


def noise_by_hand(batch: Batch, examples: int) -> tuple[float, float]:
    """V and ‖ḡ‖² of `linear_model`: g_i is the residual times (x₁, x₂, 1)."""
    gradients = []
    for (x1, x2), y in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        residual = 0.5 * x1 - 0.25 * x2 + 0.125 - y
        gradients.append((residual * x1, residual * x2, residual))
    if batch.weights is not None:
        importance = batch.weights[:examples].tolist()
        scale = examples / sum(importance)
        gradients = [
            (w * scale * a, w * scale * b, w * scale * c)
            for w, (a, b, c) in zip(importance, gradients, strict=False)
        ]
    gradients = gradients[:examples]
    variance = norm = 0.0
    for k in range(3):
        mean = sum(g[k] for g in gradients) / examples
        variance += sum((g[k] - mean) ** 2 for g in gradients) / (examples - 1)
        norm += mean**2
    return variance, norm


def method(session: Training, model: nn.Module, **arguments: Any) -> AdAdaGrad:
    double: Any = session
    return AdAdaGrad(session=double, model=model, **arguments)


def batch_size(schedule: AdAdaGrad, session: Training) -> int:
    return round(schedule(0.5).batch_size * session.batch_size)


@pytest.mark.parametrize(("n", "examples"), [(2, 2), (5, 5), (16, 16), (40, 40), (40, 33)])
@pytest.mark.parametrize("noise", [gradient_noise, gradient_noise_reference])
@pytest.mark.parametrize("chunk", [1, 20, 10_000])
def test_noise_is_that_worked_out_by_hand(
    noise: Any, n: int, examples: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adadagrad, "CHUNK_ELEMENTS", chunk)
    for weights in (None, torch.rand(n, generator=torch.Generator().manual_seed(1)).double()):
        batch = linear_batch(n, weights)
        measured = noise(Training(), linear_model(), batch, examples)
        assert measured.tolist() == pytest.approx(noise_by_hand(batch, examples), rel=1e-12)


def test_the_batch_grows_to_what_the_norm_test_asks() -> None:
    batch = linear_batch(40)
    variance, norm = noise_by_hand(batch, 40)
    asked = math.ceil(variance / (0.25**2 * norm))
    assert 8 < asked < 800
    session = Training(batch)
    schedule = method(session, linear_model(), eta=0.25, max_batch_factor=100.0)
    assert batch_size(schedule, session) == asked
    assert session.passes == [(40, 40)]


def test_the_batch_never_shrinks() -> None:
    session = Training(linear_batch(40))
    schedule = method(session, linear_model(), eta=0.25, max_batch_factor=100.0)
    grown = batch_size(schedule, session)
    session.last_batch = linear_batch(40, noise=0.0)  # less noise
    quiet = noise_by_hand(session.last_batch, 40)
    assert quiet[0] / (0.25**2 * quiet[1]) < grown
    assert batch_size(schedule, session) == grown


def test_the_first_batches_are_the_initial_ones() -> None:
    session = Training(None, batch_size=64)
    session.steps = 0
    schedule = method(session, linear_model(), initial_batch_factor=0.25)
    assert batch_size(schedule, session) == 16
    assert session.passes == []


@pytest.mark.parametrize(("data", "largest"), [(1000, 32), (20, 20)])
def test_the_batch_is_clipped_and_then_tests_end(data: int, largest: int) -> None:
    session = Training(linear_batch(40), data=data)
    schedule = method(session, linear_model(), eta=1e-3, max_batch_factor=4.0)
    assert batch_size(schedule, session) == largest
    assert len(session.passes) == 1
    session.steps = 20
    assert batch_size(schedule, session) == largest
    assert len(session.passes) == 1


def test_the_initial_batch_is_no_larger_than_the_data() -> None:
    session = Training(data=3)
    assert batch_size(method(session, linear_model(), initial_batch_factor=1.0), session) == 3


def test_tests_are_made_every_interval_only_and_on_part_of_the_batch() -> None:
    session = Training(linear_batch(40))
    schedule = method(
        session, linear_model(), test_interval=5, test_examples=12, max_batch_factor=1e6, eta=1e3
    )
    for steps in range(21):
        session.steps = steps
        schedule(0.5)
    assert session.passes == [(12, 12)] * 4


@pytest.mark.parametrize(
    ("gradient", "expected"), [(0.0, 4), (math.nan, 4), (math.inf, 4)], ids=["zero", "nan", "inf"]
)
def test_gradients_without_a_quotient_change_nothing(gradient: float, expected: int) -> None:
    batch = Batch(
        ids=torch.arange(4),
        inputs=torch.ones(4, 2, dtype=torch.float64),
        targets=torch.full((4,), 0.375 + gradient, dtype=torch.float64),  # residuals of -gradient
        weights=None,
    )
    session = Training(batch)
    assert batch_size(method(session, linear_model()), session) == expected


def test_noise_around_a_mean_of_zero_asks_for_the_largest_batch() -> None:
    batch = Batch(
        ids=torch.arange(2),
        inputs=torch.ones(2, 2, dtype=torch.float64),
        targets=torch.tensor([1.375, -0.625], dtype=torch.float64),  # residuals of -1 and 1
        weights=None,
    )
    session = Training(batch)
    assert batch_size(method(session, linear_model()), session) == 64


def test_a_batch_of_one_is_not_tested() -> None:
    session = Training(linear_batch(1))
    assert batch_size(method(session, linear_model()), session) == 4
    assert session.passes == []


def test_batch_norm_and_dropout_take_no_part_and_keep_their_state() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(16, 3)
    )
    frozen = model[1]
    model(torch.randn(20, 1, 4, 4))  # some running statistics
    frozen.eval()  # a module that is frozen on purpose stays frozen
    batch = Batch(
        ids=torch.arange(20),
        inputs=torch.randn(20, 1, 4, 4),
        targets=torch.randint(3, (20,)),
        weights=None,
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    randomness = torch.get_rng_state()
    session: Any = Classifying()
    first = gradient_noise(session, model, batch, 20)
    assert torch.equal(torch.get_rng_state(), randomness)
    assert [module.training for module in model.modules()] == modes == [True, *modes[1:]]
    assert not frozen.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    # The example's own gradient, with the running statistics: the same in any company.
    model.eval()
    alone = gradient_noise_reference(session, model, batch, 20)
    assert first.tolist() == pytest.approx(alone.tolist(), rel=1e-4)


def test_frozen_weights_are_left_out() -> None:
    model = linear_model()
    model.bias.requires_grad_(False)
    session: Any = Training()
    batch = linear_batch(20)
    fast = gradient_noise(session, model, batch, 20)
    torch.testing.assert_close(fast, gradient_noise_reference(session, model, batch, 20))
    assert fast[0] < noise_by_hand(batch, 20)[0]


def test_the_learning_rate_warms_up_and_follows_a_cosine_of_the_examples() -> None:
    schedule = method(Training(), linear_model(), warmup_fraction=0.2, final_lr_fraction=0.1)
    by_hand = {0.05: 0.25, 0.2: 1.0, 0.6: 0.55, 1.0: 0.1}
    for progress, value in by_hand.items():
        assert schedule(progress).learning_rate == pytest.approx(value, rel=1e-14)


def test_adagrad_follows_its_rule() -> None:
    p = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = AdaGrad([p], lr=0.1, weight_decay=0.01, eps=1e-3)
    theta, v = [1.0, -2.0], [0.0, 0.0]
    for step in range(5):
        for j, g in enumerate((0.5 + step, -0.25 * step)):
            decayed = g + 0.01 * theta[j]
            v[j] += decayed**2
            theta[j] -= 0.1 * decayed / (math.sqrt(v[j]) + 1e-3)
        p.grad = torch.tensor([0.5 + step, -0.25 * step], dtype=torch.float64)
        optimizer.step()
        assert p.tolist() == pytest.approx(theta, rel=1e-13)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eta", 0.0),
        ("eta", math.nan),
        ("test_interval", 0),
        ("test_examples", 1),
        ("initial_batch_factor", 0.0),
        ("max_batch_factor", 0.1),
        ("max_batch_factor", math.inf),
        ("warmup_fraction", 1.0),
        ("final_lr_fraction", 1.1),
    ],
)
def test_illegal_hyperparameters_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"AdAdaGrad: {name} must be .*, not {value!r}"):
        method(Training(), linear_model(), **{name: value})


@pytest.mark.parametrize("name", ["lr", "weight_decay", "eps"])
def test_adagrad_refuses_negative_settings(name: str) -> None:
    with pytest.raises(ValueError, match="Invalid"):
        AdaGrad(linear_model().parameters(), **{name: -1.0})


def test_the_card_and_the_constructors_agree() -> None:
    card = read_card(Path(adadagrad.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = {
        name: argument.default
        for part in (AdAdaGrad, AdaGrad)
        for name, argument in inspect.signature(part).parameters.items()
        if name not in ("session", "model", "params")
    }
    assert card_defaults(card, arguments) == arguments
    assert (card.kind, card.implementation) == ("schedule", "adadagrad:AdAdaGrad")
