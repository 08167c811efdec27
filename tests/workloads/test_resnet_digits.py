"""resnet/digits: the data to the byte, the augmentation, the loss and the metrics by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from harness import catalogue
from workloads.digit_images import HELD_OUT_PER_CLASS, distort
from workloads.resnet.digits import COPIES, ResNetDigits
from workloads.resnet.model import ResNet

Splits = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def workload() -> ResNetDigits:
    return ResNetDigits(catalogue.workload("resnet/digits").card)


@pytest.fixture(scope="module")
def splits(workload: ResNetDigits) -> Splits:
    return workload.prepare()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_splits_have_the_stated_shapes_and_balance(splits: Splits) -> None:
    for tensors in splits.values():
        images, labels = tensors["images"], tensors["labels"]
        assert images.dtype == torch.float32 and images.shape == (len(labels), 1, 8, 8)
        assert labels.dtype == torch.int64
        assert images.min() >= 0 and images.max() <= 1
    for name in ("evaluation", "test"):
        counts = torch.bincount(splits[name]["labels"], minlength=10)
        assert len(splits[name]["labels"]) >= 5000
        assert counts.tolist() == [HELD_OUT_PER_CLASS * COPIES] * 10
    counts = torch.bincount(splits["training"]["labels"], minlength=10)
    assert counts.min() >= 94 and counts.max() <= 103 and counts.sum() == 1797 - 800


def test_splits_share_no_base_image(
    workload: ResNetDigits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workloads.resnet.digits.distort", lambda images, matrix, shift: images)
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
    for name in ("evaluation", "test"):
        first_image = splits[name]["images"][:COPIES]
        assert len(torch.unique(first_image, dim=0)) == COPIES


def test_training_batch_follows_its_generator(workload: ResNetDigits, splits: Splits) -> None:
    data, indices = splits["training"], torch.arange(5, 69)
    images, labels = workload.training_batch(data, indices, generator(1))
    same, _ = workload.training_batch(data, indices, generator(1))
    other, _ = workload.training_batch(data, indices, generator(2))
    assert images.shape == (64, 1, 8, 8) and images.dtype == torch.float32
    assert torch.equal(labels, data["labels"][indices])
    assert torch.equal(images, same)
    assert not torch.equal(images, other)
    assert images.min() >= 0 and images.max() <= 1


def test_training_batch_reads_its_own_indices_only(workload: ResNetDigits, splits: Splits) -> None:
    indices = torch.tensor([3, 996, 3, 100])
    only = {
        "images": torch.full_like(splits["training"]["images"], math.nan),
        "labels": torch.full_like(splits["training"]["labels"], -1),
    }
    for key, tensor in splits["training"].items():
        only[key][indices] = tensor[indices]
    images, labels = workload.training_batch(only, indices, generator(1))
    expected, _ = workload.training_batch(splits["training"], indices, generator(1))
    assert torch.equal(images, expected) and labels.min() >= 0
    assert not torch.equal(images[0], images[2])  # one example twice: two distortions


def test_distort_by_nothing_and_by_one_pixel(splits: Splits) -> None:
    images = splits["training"]["images"][:4]
    zero = torch.zeros(4, 2, 2, dtype=torch.int64)
    assert torch.equal(distort(images, zero, zero[:, 0]), images)
    # 16/64 of half a side is one pixel: the sampling point moves right, the image left.
    moved = distort(images, zero, torch.tensor([[16, 0]]).expand(4, 2))
    assert torch.equal(moved[..., :-1], images[..., 1:])
    assert not moved[..., -1].any()


def test_distort_is_exact_in_float32(splits: Splits) -> None:
    images = splits["training"]["images"][:200]
    matrix = torch.randint(-18, 19, (200, 2, 2), generator=generator(0))
    shift = torch.randint(-20, 21, (200, 2), generator=generator(1))
    exact = distort(images.double(), matrix, shift)
    assert torch.equal(distort(images, matrix, shift).double(), exact)


def test_loss_against_cross_entropy_by_hand(workload: ResNetDigits) -> None:
    outputs = torch.randn(6, 10, dtype=torch.float64, generator=generator(0))
    targets = torch.tensor([0, 9, 3, 3, 7, 1])
    for smoothing in (0.0, 0.1):
        losses = workload.per_example_loss(outputs, targets, smoothing)
        assert losses.shape == (6,) and losses.dtype == torch.float64
        for row, target, loss in zip(
            outputs.tolist(), targets.tolist(), losses.tolist(), strict=True
        ):
            log_total = math.log(sum(math.exp(z) for z in row))
            truth = -(row[target] - log_total)
            uniform = sum(log_total - z for z in row) / 10
            expected = (1 - smoothing) * truth + smoothing * uniform
            assert loss == pytest.approx(expected, rel=1e-12)


class AnswersThree(nn.Module):
    """Logits that give class 3 nine tenths and each other class one ninetieth."""

    def forward(self, images: Tensor) -> Tensor:
        probabilities = torch.full((len(images), 10), 0.1 / 9)
        probabilities[:, 3] = 0.9
        return probabilities.log()


def test_evaluate_against_a_model_that_answers_three(workload: ResNetDigits) -> None:
    labels = torch.tensor([3] * 300 + [4] * 100 + [0] * 200)
    data = {"images": torch.zeros(600, 1, 8, 8), "labels": labels}
    metrics = workload.evaluate(AnswersThree(), data)
    assert metrics["accuracy"] == 0.5
    expected = -(math.log(0.9) + math.log(0.1 / 9)) / 2
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)


def test_evaluate_in_inference_mode_changes_no_state(
    workload: ResNetDigits, splits: Splits
) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, splits["test"])
    assert set(metrics) == {"accuracy", "loss"} and 0 <= metrics["accuracy"] < 0.4
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_model_comes_in_training_mode_from_the_global_seed(workload: ResNetDigits) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())


def test_model_is_generic_in_channels_widths_and_depths() -> None:
    model = ResNet(in_channels=3, classes=7, widths=(4, 6, 8), depths=(2, 1, 1))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 1 + 4 * 2 + 2
    with pytest.raises(ValueError, match=r"widths=\(4,\), depths=\(1, 1\)"):
        ResNet(in_channels=3, classes=7, widths=(4,), depths=(1, 1))
    with pytest.raises(ValueError, match="one positive entry a stage"):
        ResNet(in_channels=3, classes=7, widths=(), depths=())


def test_synthetic_batch_looks_like_a_real_one(workload: ResNetDigits, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(32), generator(0))
    synthetic = workload.synthetic_batch(32, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert synthetic[0].min() >= 0 and synthetic[0].max() <= 1
    assert synthetic[1].min() >= 0 and synthetic[1].max() <= 9
    again = workload.synthetic_batch(32, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
