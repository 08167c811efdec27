"""logistic/separable: the largest margin proved, the data to the byte, loss and metric by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from harness import catalogue
from harness.cards import WorkloadCard
from workloads.logistic.separable import (
    EXAMPLES,
    FEATURES,
    MARGIN,
    PAIRED_SHARE,
    ROOT,
    SCALES,
    UNIT,
    LogisticRegression,
    LogisticSettings,
    SeparableLogistic,
    rotation,
)

Splits = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def card() -> WorkloadCard:
    return catalogue.workload("logistic/separable").card


@pytest.fixture(scope="module")
def workload(card: WorkloadCard) -> SeparableLogistic:
    return SeparableLogistic(card)


@pytest.fixture(scope="module")
def splits(workload: SeparableLogistic) -> Splits:
    return workload.prepare()


def sum_of_squares(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum()


def numpy_key() -> list[int]:
    keys: list[int] = np.random.get_state(legacy=False)["state"]["key"].tolist()
    return keys


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def signed(tensors: dict[str, Tensor]) -> Tensor:
    """Return the features times the sign of the label, turned back, float64 [N, F]."""
    signs = (2 * tensors["labels"] - 1)[:, None]
    return signs * (tensors["features"].double() @ torch.from_numpy(rotation()).double().T) / ROOT


def test_rotation_is_orthogonal_and_the_features_are_exact(splits: Splits) -> None:
    matrix = rotation()
    assert (matrix @ matrix.T == FEATURES * np.eye(FEATURES, dtype=np.int64)).all()
    assert ROOT**2 == FEATURES
    features = splits["evaluation"]["features"].double()
    assert ((features * UNIT * ROOT) % 1 == 0).all()


def test_no_separator_has_a_larger_margin_than_the_first_axis(splits: Splits) -> None:
    for name, tensors in splits.items():
        aligned = signed(tensors)
        assert aligned[:, 0].min() == MARGIN  # so the first axis has this margin
        # And of a pair, whose mean is MARGIN × axis, one has no more along any unit vector:
        # min(a, b)·u ≤ (a + b)·u ÷ 2 = MARGIN × axis·u ≤ MARGIN.
        pairs = aligned[: EXAMPLES[name] // PAIRED_SHARE].unflatten(0, (-1, 2))
        axis = torch.zeros(FEATURES, dtype=torch.float64)
        axis[0] = MARGIN
        assert torch.equal(pairs.mean(dim=1), axis.expand(len(pairs), -1))
        # Not with a constant either: pairs hold either label, so constants can be made to cancel.
        labels = tensors["labels"][: EXAMPLES[name] // PAIRED_SHARE].unflatten(0, (-1, 2))
        assert {0, 2} <= set(labels.sum(dim=1).tolist())


def test_most_examples_are_misled_and_features_spread_over_scales(splits: Splits) -> None:
    aligned = signed(splits["training"])
    others = aligned[EXAMPLES["training"] // PAIRED_SHARE :]
    assert others[:, 1].mean().item() == pytest.approx(4, abs=0.05)
    assert (others[:, 1] > 0).all()  # the misleading axis alone sorts all of them
    assert (aligned[: EXAMPLES["training"] // PAIRED_SHARE, 1] < 0).double().mean() == 0.5
    for scale in range(SCALES):
        column = others[:, SCALES + scale].abs().max().item()
        assert column == pytest.approx(2.0**-scale, rel=0.02)


def test_no_example_stands_in_two_splits(splits: Splits) -> None:
    rows = torch.cat([tensors["features"][:, :40] for tensors in splits.values()])
    assert len(torch.unique(rows, dim=0)) == sum(EXAMPLES.values())


def test_metric_by_hand(workload: SeparableLogistic, splits: Splits) -> None:
    torch.manual_seed(1)
    model = LogisticRegression(FEATURES, LogisticSettings(constant="yes"))
    with torch.no_grad():
        model.head.weight += (
            0.005 * torch.from_numpy(rotation()[0]).float() * torch.tensor([[-1.0], [1.0]])
        )
        model.head.bias.copy_(torch.tensor([0.25, 0.75]))
    data = {name: tensor[-1500:] for name, tensor in splits["test"].items()}
    w = model.head.weight.detach()[1].double() - model.head.weight.detach()[0].double()
    length = math.sqrt(math.fsum(v * v for v in w.tolist()))
    least, right, total = math.inf, 0, 0.0
    for x, label in zip(data["features"].double(), data["labels"].tolist(), strict=True):
        distance = (math.fsum((x * w).tolist()) + 0.5) * (1 if label else -1)
        least, right = min(least, distance / length), right + (distance > 0)
        total += math.log1p(math.exp(-distance))
    with torch.inference_mode():
        metrics = workload.evaluate(model, data)
    assert metrics == {
        "margin_share": pytest.approx(least / MARGIN, rel=1e-9),
        "accuracy": right / 1500,
        "loss": pytest.approx(total / 1500, rel=1e-9),
    }
    assert 0 < right < 1500


def test_the_first_axis_has_share_one_at_any_length(
    workload: SeparableLogistic, splits: Splits
) -> None:
    model = LogisticRegression(FEATURES, LogisticSettings(initialisation="zero"))
    for length in (1e-3, 1.0, 1e3):
        with torch.no_grad():
            model.head.weight[1] = length * torch.from_numpy(rotation()[0]).float()
            metrics = workload.evaluate(model, splits["evaluation"])
        assert metrics["margin_share"] == pytest.approx(1, rel=1e-6)
        assert metrics["accuracy"] == 1


def test_loss_against_cross_entropy_by_hand(workload: SeparableLogistic) -> None:
    outputs = 3 * torch.randn(6, 2, dtype=torch.float64, generator=generator(0))
    targets = torch.tensor([0, 1, 1, 0, 1, 0])
    for smoothing in (0.0, 0.2):
        losses = workload.per_example_loss(outputs, targets, smoothing)
        for (a, b), label, loss in zip(
            outputs.tolist(), targets.tolist(), losses.tolist(), strict=True
        ):
            truth = math.log1p(math.exp((a - b) if label else (b - a)))
            wrong = math.log1p(math.exp((b - a) if label else (a - b)))
            expected = (1 - smoothing / 2) * truth + smoothing / 2 * wrong
            assert loss == pytest.approx(expected, rel=1e-12)


def test_accuracy_is_perfect_long_before_the_margin_is(
    workload: SeparableLogistic, splits: Splits, card: WorkloadCard
) -> None:
    # What the workload promises, on full batches: the mean classifier's direction fails, a few
    # hundred steps of gradient descent sort everything, and the margin is far from the target.
    data = splits["training"]
    mean = LogisticRegression(FEATURES, LogisticSettings(initialisation="zero"))
    with torch.no_grad():
        mean.head.weight[1] = (data["features"] * (2 * data["labels"] - 1)[:, None]).mean(dim=0)
        assert workload.evaluate(mean, splits["evaluation"])["margin_share"] < 0
    model = LogisticRegression(FEATURES, LogisticSettings(initialisation="zero"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(120):
        loss = workload.per_example_loss(model(data["features"]), data["labels"], 0.0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        metrics = workload.evaluate(model, splits["evaluation"])
    assert metrics["accuracy"] == 1
    assert 0 < metrics["margin_share"] < card.metric.target - 0.1


def test_evaluate_in_inference_mode_changes_no_state(
    workload: SeparableLogistic, splits: Splits
) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, splits["test"])
    assert list(metrics) == ["margin_share", "accuracy", "loss"] and metrics["margin_share"] < 0
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_model_is_linear_and_its_choices_change_it(workload: SeparableLogistic) -> None:
    inputs, _ = workload.synthetic_batch(4, generator(0))
    torch.manual_seed(0)
    model = LogisticRegression(FEATURES, LogisticSettings())
    expected = (inputs[:, None] * model.head.weight[None]).sum(dim=2)
    torch.testing.assert_close(model(inputs), expected)
    assert model.head.weight.std().item() == pytest.approx(1 / ROOT, rel=0.1)
    assert not LogisticRegression(FEATURES, LogisticSettings(initialisation="zero"))(inputs).any()
    with_constant = LogisticRegression(FEATURES, LogisticSettings(constant="yes"))
    assert sum(p.numel() for p in with_constant.parameters()) == 2 * FEATURES + 2


def test_model_can_be_differentiated_twice(workload: SeparableLogistic) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(8, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    curvature = torch.autograd.grad(sum_of_squares(gradients), parameters)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)


def test_model_comes_in_training_mode_from_the_global_seed(
    workload: SeparableLogistic, card: WorkloadCard
) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    names = dict(model.named_parameters())
    assert workload.head_parameters & names.keys() == names.keys()
    assert sum(p.numel() for p in model.parameters()) == card.parameters
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())


def test_synthetic_batch_looks_like_a_real_one(workload: SeparableLogistic, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(32), generator(0))
    assert torch.equal(real[0], splits["training"]["features"][:32])
    assert torch.equal(real[1], splits["training"]["labels"][:32])
    synthetic = workload.synthetic_batch(32, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert set(synthetic[1].tolist()) == {0, 1}
    again = workload.synthetic_batch(32, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
