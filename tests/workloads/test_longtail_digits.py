"""longtail/digits: the data to the byte, counts and wrong labels, the metrics in plain loops."""

import math
from collections import Counter

import msgspec
import pytest
import torch
from torch import Tensor, nn

from harness import catalogue
from harness.errors import UsageError
from workloads.digit_images import CLASSES, HELD_OUT_PER_CLASS
from workloads.longtail.digits import (
    BASE_IMAGES,
    COPIES,
    DEPTH,
    FEATURES,
    RIGHT_PER_WRONG,
    LongTailDigits,
)

Splits = dict[str, dict[str, Tensor]]
CARD = catalogue.workload("longtail/digits").card


@pytest.fixture(scope="module")
def right_labels(workload: LongTailDigits) -> Tensor:
    """The training labels before any was made wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workloads.longtail.digits.with_wrong_labels", lambda labels, random: labels)
        return workload.prepare()["training"]["labels"]


@pytest.fixture(scope="module")
def workload() -> LongTailDigits:
    return LongTailDigits(CARD)


@pytest.fixture(scope="module")
def splits(workload: LongTailDigits) -> Splits:
    return workload.prepare()


def variant(**model: str) -> LongTailDigits:
    return LongTailDigits(msgspec.structs.replace(CARD, model=model))


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
    groups = splits["training"]["groups"]
    assert groups.dtype == torch.int64 and torch.equal(groups, splits["training"]["labels"])


def test_class_counts_fall_exponentially(right_labels: Tensor) -> None:
    for label, count in enumerate(BASE_IMAGES):
        assert abs(count - 94 * 20 ** (-label / 9)) < 0.6
    counts = torch.bincount(right_labels, minlength=CLASSES).tolist()
    assert counts == [COPIES["training"] * count for count in BASE_IMAGES]


def test_one_label_in_five_of_each_class_is_wrong(splits: Splits, right_labels: Tensor) -> None:
    labels = splits["training"]["labels"].tolist()
    pairs = list(zip(right_labels.tolist(), labels, strict=True))
    totals = Counter(right for right, _ in pairs)
    wrong = Counter(right for right, label in pairs if right != label)
    assert wrong == {label: total // (RIGHT_PER_WRONG + 1) for label, total in totals.items()}


def test_wrong_labels_are_as_long_tailed_as_right_ones(
    splits: Splits, right_labels: Tensor
) -> None:
    labels = splits["training"]["labels"]
    totals = torch.bincount(right_labels, minlength=CLASSES).double()
    wrong = labels != right_labels
    found = torch.bincount(labels[wrong], minlength=CLASSES).tolist()
    for label in range(CLASSES):
        expected = sum(
            totals[other].item() / 5 * totals[label].item() / (totals.sum() - totals[other]).item()
            for other in range(CLASSES)
            if other != label
        )
        assert abs(found[label] - expected) < 4 * math.sqrt(expected)
    # So most of every class's training labels are right, the tail's too.
    for label in range(CLASSES):
        own = labels == label
        assert (right_labels[own] == label).double().mean() > 0.6


def test_held_out_labels_are_right(workload: LongTailDigits, splits: Splits) -> None:
    from sklearn.datasets import load_digits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workloads.longtail.digits.distort", lambda images, matrix, shift: images)
        plain = workload.prepare()
    digits = load_digits()
    truth = {
        (image / 16).astype("float32").tobytes(): label
        for image, label in zip(digits.data, digits.target.tolist(), strict=True)
    }
    for name in ("evaluation", "test"):
        assert torch.equal(plain[name]["labels"], splits[name]["labels"])
        for image, label in zip(plain[name]["images"], plain[name]["labels"].tolist(), strict=True):
            assert truth[image.numpy().tobytes()] == label


def test_splits_share_no_base_image(
    workload: LongTailDigits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workloads.longtail.digits.distort", lambda images, matrix, shift: images)
    found = {
        name: {image.numpy().tobytes() for image in tensors["images"]}
        for name, tensors in workload.prepare().items()
    }
    assert {name: len(images) for name, images in found.items()} == {
        "training": sum(BASE_IMAGES),
        "evaluation": 400,
        "test": 400,
    }
    assert len(set.union(*found.values())) == 800 + sum(BASE_IMAGES)


def test_fixed_distortions_differ_from_copy_to_copy(splits: Splits) -> None:
    for name, copies in COPIES.items():
        assert len(torch.unique(splits[name]["images"][:copies], dim=0)) == copies


def test_training_batch_is_the_examples_and_draws_nothing(
    workload: LongTailDigits, splits: Splits
) -> None:
    data, indices = splits["training"], torch.tensor([3, 2000, 3, 100])
    stream = generator(1)
    images, labels = workload.training_batch(data, indices, stream)
    assert torch.equal(images, data["images"][indices])
    assert torch.equal(labels, data["labels"][indices])
    assert torch.equal(stream.get_state(), generator(1).get_state())


def test_loss_against_cross_entropy_by_hand(workload: LongTailDigits) -> None:
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


def test_metrics_against_plain_loops(workload: LongTailDigits, splits: Splits) -> None:
    torch.manual_seed(1)
    model = workload.build_model().eval()
    # Unbalanced on purpose, and more than one batch.
    keep = torch.cat((torch.arange(0, 700), torch.arange(1000, 3200, 5)))
    data = {key: tensor[keep] for key, tensor in splits["evaluation"].items()}
    metrics = workload.evaluate(model, data)
    with torch.no_grad():
        logits = model(data["images"]).double().tolist()
    hits, totals, loss = Counter[int](), Counter[int](), 0.0
    for row, label in zip(logits, data["labels"].tolist(), strict=True):
        totals[label] += 1
        hits[label] += row.index(max(row)) == label
        loss += math.log(sum(math.exp(z) for z in row)) - row[label]
    recalls = [hits[label] / totals[label] for label in range(CLASSES)]
    assert len(set(totals.values())) > 1
    assert metrics["macro_accuracy"] == pytest.approx(sum(recalls) / CLASSES, rel=1e-12)
    assert metrics["worst_recall"] == min(recalls)
    assert metrics["loss"] == pytest.approx(loss / len(keep), rel=1e-6)


def test_macro_accuracy_counts_classes_alike(workload: LongTailDigits) -> None:
    class AnswersZero(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.eye(CLASSES)[torch.zeros(len(images), dtype=torch.int64)]

    labels = torch.tensor([0] * 991 + list(range(1, CLASSES)))
    metrics = workload.evaluate(
        AnswersZero(), {"images": torch.zeros(1000, FEATURES), "labels": labels}
    )
    assert metrics["macro_accuracy"] == pytest.approx(0.1) and metrics["worst_recall"] == 0


def test_evaluate_in_inference_mode_changes_no_state(
    workload: LongTailDigits, splits: Splits
) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, splits["test"])
    assert set(metrics) == {"macro_accuracy", "worst_recall", "loss"}
    assert 0 <= metrics["worst_recall"] <= metrics["macro_accuracy"] < 0.4
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_model_comes_in_training_mode_from_the_global_seed(workload: LongTailDigits) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    assert model(torch.rand(3, FEATURES)).shape == (3, CLASSES)
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())
    assert sum(tensor.numel() for tensor in names.values()) == CARD.parameters


@pytest.mark.parametrize("normalisation", ["none", "layer"])
def test_model_against_the_formula_in_float64(normalisation: str) -> None:
    torch.manual_seed(0)
    model = variant(normalisation=normalisation).build_model().double()
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for tensor in weights.values():  # no norm is left at ones and zeros
            tensor.add_(0.1 * torch.randn(tensor.shape, dtype=torch.float64))
    inputs = torch.rand(5, FEATURES, dtype=torch.float64, generator=generator(0))
    x = inputs
    for layer in range(DEPTH):
        x = x @ weights[f"hidden.{layer}.weight"].T + weights[f"hidden.{layer}.bias"]
        if normalisation == "layer":
            x = x - x.mean(dim=1, keepdim=True)
            x = x / (x.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
            x = x * weights[f"norms.{layer}.weight"] + weights[f"norms.{layer}.bias"]
        x = x * (x > 0)
    expected = x @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(model(inputs), expected, rtol=1e-12, atol=1e-12)


def test_every_parameter_gets_a_gradient_and_the_model_differentiates_twice(
    workload: LongTailDigits,
) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(4, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    steepness = torch.stack([g.square().sum() for g in gradients]).sum()
    curvature = torch.autograd.grad(steepness, parameters)
    for tensor in (*gradients, *curvature):
        assert torch.isfinite(tensor).all() and tensor.any()


def test_each_choice_changes_the_model(workload: LongTailDigits) -> None:
    def outputs(chosen: LongTailDigits) -> Tensor:
        torch.manual_seed(0)
        logits: Tensor = chosen.build_model()(torch.rand(2, FEATURES, generator=generator(0)))
        return logits

    main = outputs(workload)
    for model in ({"width": "64"}, {"activation": "gelu"}, {"normalisation": "layer"}):
        assert not torch.allclose(outputs(variant(**model)), main)
    same = variant(width="512", activation="relu", normalisation="none")
    assert torch.equal(outputs(same), main)
    with pytest.raises(UsageError, match="normalisation"):
        variant(normalisation="batch").build_model()


def test_synthetic_batch_looks_like_a_real_one(workload: LongTailDigits, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(32), generator(0))
    synthetic = workload.synthetic_batch(32, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert synthetic[0].min() >= 0 and synthetic[0].max() <= 1
    assert synthetic[1].min() >= 0 and synthetic[1].max() < CLASSES
    again = workload.synthetic_batch(32, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
