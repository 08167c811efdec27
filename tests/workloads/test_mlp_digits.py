"""mlp/digits: the data to the byte, the model, the loss and the metrics by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from harness import catalogue
from workloads.digit_images import CLASSES, HELD_OUT_PER_CLASS
from workloads.mlp.digits import COPIES, FEATURES, MLPDigits

Splits = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def workload() -> MLPDigits:
    return MLPDigits(catalogue.workload("mlp/digits").card)


@pytest.fixture(scope="module")
def splits(workload: MLPDigits) -> Splits:
    return workload.prepare()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_splits_have_the_stated_shapes_and_balance(splits: Splits) -> None:
    for tensors in splits.values():
        images, labels = tensors["images"], tensors["labels"]
        assert images.dtype == torch.float32 and images.shape == (len(labels), FEATURES)
        assert labels.dtype == torch.int64
        assert images.min() >= 0 and images.max() <= 1
    for name in ("evaluation", "test"):
        counts = torch.bincount(splits[name]["labels"], minlength=CLASSES)
        assert counts.tolist() == [HELD_OUT_PER_CLASS * COPIES[name]] * CLASSES
    assert len(splits["training"]["labels"]) == 997 * COPIES["training"]


def test_splits_share_no_base_image(workload: MLPDigits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.mlp.digits.distort", lambda images, matrix, shift: images)
    found = {
        name: {image.numpy().tobytes() for image in tensors["images"]}
        for name, tensors in workload.prepare().items()
    }
    assert {name: len(images) for name, images in found.items()} == {
        "training": 997,
        "evaluation": 400,
        "test": 400,
    }
    assert len(set.union(*found.values())) == 1797


def test_fixed_distortions_differ_from_copy_to_copy(splits: Splits) -> None:
    for name, copies in COPIES.items():
        first_image = splits[name]["images"][:copies]
        assert len(torch.unique(first_image, dim=0)) == copies


def test_training_batch_is_the_examples_and_draws_nothing(
    workload: MLPDigits, splits: Splits
) -> None:
    data, indices = splits["training"], torch.tensor([3, 7975, 3, 100])
    stream = generator(1)
    images, labels = workload.training_batch(data, indices, stream)
    assert torch.equal(images, data["images"][indices])
    assert torch.equal(labels, data["labels"][indices])
    assert torch.equal(stream.get_state(), generator(1).get_state())


def test_loss_against_cross_entropy_by_hand(workload: MLPDigits) -> None:
    outputs = torch.randn(6, CLASSES, dtype=torch.float64, generator=generator(0))
    targets = torch.tensor([0, 9, 3, 3, 7, 1])
    for smoothing in (0.0, 0.1):
        losses = workload.per_example_loss(outputs, targets, smoothing)
        assert losses.shape == (6,) and losses.dtype == torch.float64
        for row, target, loss in zip(
            outputs.tolist(), targets.tolist(), losses.tolist(), strict=True
        ):
            log_total = math.log(sum(math.exp(z) for z in row))
            truth = -(row[target] - log_total)
            uniform = sum(log_total - z for z in row) / CLASSES
            expected = (1 - smoothing) * truth + smoothing * uniform
            assert loss == pytest.approx(expected, rel=1e-12)


class AnswersThree(nn.Module):
    """Logits that give class 3 nine tenths and each other class one ninetieth."""

    def forward(self, images: Tensor) -> Tensor:
        probabilities = torch.full((len(images), CLASSES), 0.1 / 9)
        probabilities[:, 3] = 0.9
        return probabilities.log()


def test_evaluate_against_a_model_that_answers_three(workload: MLPDigits) -> None:
    labels = torch.tensor([3] * 300 + [4] * 100 + [0] * 200)
    data = {"images": torch.zeros(600, FEATURES), "labels": labels}
    metrics = workload.evaluate(AnswersThree(), data)
    assert metrics["accuracy"] == 0.5
    expected = -(math.log(0.9) + math.log(0.1 / 9)) / 2
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)


def test_evaluate_in_inference_mode_changes_no_state(workload: MLPDigits, splits: Splits) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, splits["test"])
    assert set(metrics) == {"accuracy", "loss"} and 0 <= metrics["accuracy"] < 0.4
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_model_comes_in_training_mode_from_the_global_seed(workload: MLPDigits) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    assert model(torch.rand(3, FEATURES)).shape == (3, CLASSES)
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())


def test_model_is_a_sum_of_groups_of_hidden_units(workload: MLPDigits) -> None:
    # What a stage-wise method relies on: groups trained apart are written into their places.
    model = workload.build_model().double()
    inputs = torch.rand(5, FEATURES, dtype=torch.float64, generator=generator(0))
    weights = dict(model.named_parameters())
    total = weights["head.bias"].expand(5, CLASSES)
    for group in torch.arange(len(weights["hidden.weight"])).split(64):
        hidden = inputs @ weights["hidden.weight"][group].T + weights["hidden.bias"][group]
        total = total + torch.tanh(hidden) @ weights["head.weight"][:, group].T
    torch.testing.assert_close(model(inputs), total, rtol=1e-12, atol=1e-12)


def test_synthetic_batch_looks_like_a_real_one(workload: MLPDigits, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(32), generator(0))
    synthetic = workload.synthetic_batch(32, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert synthetic[0].min() >= 0 and synthetic[0].max() <= 1
    assert synthetic[1].min() >= 0 and synthetic[1].max() < CLASSES
    again = workload.synthetic_batch(32, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
