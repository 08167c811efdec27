"""finetune/digits: the data and the weights to the byte, the loss and the metrics by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import catalogue
from harness.prepared_data import tensors_sha256
from harness.workload import canonical_weights
from workloads.digit_images import (
    CLASSES,
    HELD_OUT_PER_CLASS,
    PIXELS,
    UNIT,
    base_images,
    distort,
    split_ids,
)
from workloads.finetune.digits import (
    COPIES,
    MATRIX_RANGE,
    PARITIES,
    SHIFT_RANGE,
    SPLIT_SEED,
    TURN,
    WEIGHT_UNIT,
    FinetuneDigits,
)

Splits = dict[str, dict[str, Tensor]]
INPUTS = PIXELS * PIXELS


@pytest.fixture(scope="module")
def workload() -> FinetuneDigits:
    return FinetuneDigits(catalogue.workload("finetune/digits").card)


@pytest.fixture(scope="module")
def splits(workload: FinetuneDigits) -> Splits:
    return workload.prepare()


@pytest.fixture(scope="module")
def pretrained(workload: FinetuneDigits) -> dict[str, Tensor]:
    return workload.pretrain()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_splits_have_the_stated_shapes_and_balance(splits: Splits) -> None:
    for tensors in splits.values():
        images, labels = tensors["images"], tensors["labels"]
        assert images.dtype == torch.float32 and images.shape == (len(labels), INPUTS)
        assert labels.dtype == torch.int64
        assert images.min() >= 0 and images.max() <= 1
    for name in ("evaluation", "test"):
        counts = torch.bincount(splits[name]["labels"], minlength=PARITIES)
        half = HELD_OUT_PER_CLASS * COPIES[name] * CLASSES // 2
        assert counts.tolist() == [half, half]
    assert len(splits["training"]["labels"]) == 997 * COPIES["training"]


def test_splits_share_no_base_image(
    workload: FinetuneDigits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workloads.finetune.digits.distort", lambda images, matrix, shift: images)
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
    workload: FinetuneDigits, splits: Splits
) -> None:
    data, indices = splits["training"], torch.tensor([3, 7975, 3, 100])
    stream = generator(1)
    images, labels = workload.training_batch(data, indices, stream)
    assert torch.equal(images, data["images"][indices])
    assert torch.equal(labels, data["labels"][indices])
    assert torch.equal(stream.get_state(), generator(1).get_state())


def test_labels_are_the_parity_of_the_digit(splits: Splits) -> None:
    _, digits = base_images()
    for name, ids in split_ids(digits, np.random.RandomState(SPLIT_SEED)).items():
        expected = digits[ids].repeat_interleave(COPIES[name]) % 2
        assert torch.equal(splits[name]["labels"], expected)


def test_images_are_turned_by_forty_degrees() -> None:
    matrix = torch.tensor(TURN) / UNIT + torch.eye(2)
    angle = math.radians(40)
    rotation = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    torch.testing.assert_close(matrix, torch.tensor(rotation), atol=0.5 / UNIT, rtol=0)


def test_turned_images_are_exact_in_float32() -> None:
    images = base_images()[0][:200]
    jitter = torch.randint(-MATRIX_RANGE, MATRIX_RANGE + 1, (200, 2, 2), generator=generator(0))
    matrix = jitter + torch.tensor(TURN)
    shift = torch.randint(-SHIFT_RANGE, SHIFT_RANGE + 1, (200, 2), generator=generator(1))
    exact = distort(images.double(), matrix, shift)
    assert torch.equal(distort(images, matrix, shift).double(), exact)


def test_pretrain_is_identical_to_the_byte(
    workload: FinetuneDigits, pretrained: dict[str, Tensor]
) -> None:
    torch.manual_seed(1)  # whatever the global generator holds
    again = workload.pretrain()
    assert again.keys() == pretrained.keys()
    for name, tensor in pretrained.items():
        assert tensor.numpy().tobytes() == again[name].numpy().tobytes()


def test_pretrained_weights_are_those_of_the_calibration(pretrained: dict[str, Tensor]) -> None:
    for tensor in pretrained.values():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor * WEIGHT_UNIT, (tensor * WEIGHT_UNIT).round())
    # The rounding makes them the same on every processor; another hash is another task.
    calibrated = "39639ba7a6b8d3ed5a1aba61cf595f1f88cd6a1d1217785721823a689fb92e4c"
    assert tensors_sha256(pretrained) == calibrated


def test_pretrain_leaves_generator_and_threads_alone(
    workload: FinetuneDigits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workloads.finetune.digits.PRETRAINING_STEPS", 3)
    threads = torch.get_num_threads()
    before = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        with torch.no_grad():  # as a caller may hold it
            workload.pretrain()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(before, torch.get_rng_state())


def test_pretrain_covers_every_parameter_and_buffer(
    workload: FinetuneDigits, pretrained: dict[str, Tensor]
) -> None:
    expected = canonical_weights(workload.build_model())
    assert pretrained.keys() == expected.keys()
    for name, tensor in pretrained.items():
        assert tensor.shape == expected[name].shape and tensor.dtype == expected[name].dtype
        assert not tensor.requires_grad and tensor.isfinite().all()


def test_pretrained_weights_beat_a_fresh_model_and_miss_the_target(
    workload: FinetuneDigits, splits: Splits, pretrained: dict[str, Tensor]
) -> None:
    model = workload.build_model().eval()
    model.load_state_dict(pretrained)
    with torch.inference_mode():
        accuracy = workload.evaluate(model, splits["evaluation"])["accuracy"]
    assert 0.65 < accuracy < 0.75


def test_only_the_head_is_trained(workload: FinetuneDigits, splits: Splits) -> None:
    model = workload.build_model()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == workload.head_parameters
    assert sum(dict(model.named_parameters())[name].numel() for name in trained) == 34
    images, labels = workload.training_batch(splits["training"], torch.arange(8), generator(0))
    workload.per_example_loss(model(images), labels, 0.0).mean().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in trained)


def test_loss_against_cross_entropy_by_hand(workload: FinetuneDigits) -> None:
    outputs = torch.randn(4, PARITIES, dtype=torch.float64, generator=generator(0))
    targets = torch.tensor([0, 1, 1, 0])
    for smoothing in (0.0, 0.1):
        losses = workload.per_example_loss(outputs, targets, smoothing)
        assert losses.shape == (4,) and losses.dtype == torch.float64
        for row, target, loss in zip(
            outputs.tolist(), targets.tolist(), losses.tolist(), strict=True
        ):
            log_total = math.log(sum(math.exp(z) for z in row))
            truth = log_total - row[target]
            uniform = sum(log_total - z for z in row) / PARITIES
            expected = (1 - smoothing) * truth + smoothing * uniform
            assert loss == pytest.approx(expected, rel=1e-12)


class AnswersOdd(nn.Module):
    """Logits that give odd nine tenths."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([0.1, 0.9]).log().expand(len(images), PARITIES)


def test_evaluate_against_a_model_that_answers_odd(workload: FinetuneDigits) -> None:
    labels = torch.tensor([1] * 300 + [0] * 300)
    data = {"images": torch.zeros(600, INPUTS), "labels": labels}
    metrics = workload.evaluate(AnswersOdd(), data)
    assert metrics["accuracy"] == 0.5
    expected = -(math.log(0.9) + math.log(0.1)) / 2
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)


def test_evaluate_in_inference_mode_changes_no_state(
    workload: FinetuneDigits, splits: Splits
) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, splits["test"])
    assert set(metrics) == {"accuracy", "loss"} and 0 <= metrics["accuracy"] <= 1
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_model_comes_in_training_mode_from_the_global_seed(workload: FinetuneDigits) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    assert model(torch.rand(3, INPUTS)).shape == (3, PARITIES)
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())


def test_synthetic_batch_looks_like_a_real_one(workload: FinetuneDigits, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(32), generator(0))
    synthetic = workload.synthetic_batch(32, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert synthetic[0].min() >= 0 and synthetic[0].max() <= 1
    assert set(synthetic[1].tolist()) == {0, 1}
    again = workload.synthetic_batch(32, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
