"""vit/digits: the data to the byte, the augmentation, the model by hand, the metrics by hand."""

import math

import msgspec
import pytest
import torch
from torch import Tensor, nn

from harness import catalogue
from harness.errors import UsageError
from workloads.digit_images import CLASSES, HELD_OUT_PER_CLASS, PIXELS
from workloads.vit.digits import COPIES, DEPTH, HEADS, MATRIX_RANGE, PATCH, SHIFT_RANGE, ViTDigits
from workloads.vit.model import VisionTransformer, patches

Splits = dict[str, dict[str, Tensor]]
CARD = catalogue.workload("vit/digits").card


@pytest.fixture(scope="module")
def workload() -> ViTDigits:
    return ViTDigits(CARD)


@pytest.fixture(scope="module")
def splits(workload: ViTDigits) -> Splits:
    return workload.prepare()


def variant(**model: str) -> ViTDigits:
    return ViTDigits(msgspec.structs.replace(CARD, model=model))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_splits_have_the_stated_shapes_and_balance(splits: Splits) -> None:
    for tensors in splits.values():
        images, labels = tensors["images"], tensors["labels"]
        assert images.dtype == torch.float32 and images.shape == (len(labels), 1, 8, 8)
        assert labels.dtype == torch.int64
        assert images.min() >= 0 and images.max() <= 1
    for name in ("evaluation", "test"):
        counts = torch.bincount(splits[name]["labels"], minlength=CLASSES)
        assert counts.tolist() == [HELD_OUT_PER_CLASS * COPIES] * CLASSES
    assert len(splits["training"]["labels"]) == 997


def test_splits_share_no_base_image(workload: ViTDigits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.vit.digits.distort", lambda images, matrix, shift: images)
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
        assert len(torch.unique(splits[name]["images"][:COPIES], dim=0)) == COPIES


def test_training_batch_follows_its_generator(workload: ViTDigits, splits: Splits) -> None:
    data, indices = splits["training"], torch.tensor([3, 996, 3, 100])
    images, labels = workload.training_batch(data, indices, generator(1))
    same, _ = workload.training_batch(data, indices, generator(1))
    other, _ = workload.training_batch(data, indices, generator(2))
    assert images.shape == (4, 1, 8, 8) and images.dtype == torch.float32
    assert torch.equal(labels, data["labels"][indices])
    assert torch.equal(images, same) and not torch.equal(images, other)
    assert not torch.equal(images[0], images[2])  # one example twice: two distortions


def test_training_batch_reads_its_own_indices_only(workload: ViTDigits, splits: Splits) -> None:
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


def test_training_is_distorted_as_far_as_evaluation_is(
    workload: ViTDigits, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Tensor, Tensor]] = []

    def note(images: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
        drawn.append((matrix, shift))
        return images

    monkeypatch.setattr("workloads.vit.digits.distort", note)
    workload.training_batch(splits["training"], torch.arange(997), generator(0))
    workload.prepare()
    assert len(drawn) == 3  # a batch, evaluation, test
    for matrix, shift in drawn:
        assert matrix.min() == -MATRIX_RANGE and matrix.max() == MATRIX_RANGE
        assert shift.min() == -SHIFT_RANGE and shift.max() == SHIFT_RANGE


def test_loss_against_cross_entropy_by_hand(workload: ViTDigits) -> None:
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


def test_evaluate_against_a_model_that_answers_three(workload: ViTDigits) -> None:
    labels = torch.tensor([3] * 300 + [4] * 100 + [0] * 200)
    data = {"images": torch.zeros(600, 1, 8, 8), "labels": labels}
    metrics = workload.evaluate(AnswersThree(), data)
    assert metrics["accuracy"] == 0.5
    expected = -(math.log(0.9) + math.log(0.1 / 9)) / 2
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)


def test_evaluate_in_inference_mode_changes_no_state(workload: ViTDigits, splits: Splits) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, splits["test"])
    assert set(metrics) == {"accuracy", "loss"} and 0 <= metrics["accuracy"] < 0.4
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_model_comes_in_training_mode_from_the_global_seed(workload: ViTDigits) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, CLASSES)
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())
    assert sum(tensor.numel() for tensor in names.values()) == CARD.parameters


def test_patches_are_cut_row_by_row() -> None:
    images = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    cut = patches(images, 2)
    assert cut.shape == (2, 6, 12)
    for b in range(2):
        for token in range(6):
            top, left = 2 * (token // 3), 2 * (token % 3)
            expected = images[b, :, top : top + 2, left : left + 2]
            assert cut[b, token].tolist() == expected.flatten().tolist()


def standardised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * weight + bias


@pytest.mark.parametrize("pooling", ["mean", "token"])
def test_model_against_the_formula_a_head_at_a_time(pooling: str) -> None:
    torch.manual_seed(0)
    model = variant(pooling=pooling).build_model().double()
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for tensor in weights.values():  # no norm is left at ones and zeros
            tensor.add_(0.1 * torch.randn(tensor.shape, dtype=torch.float64))
    images = torch.rand(3, 1, PIXELS, PIXELS, dtype=torch.float64, generator=generator(0))
    outputs = model(images)
    for image, output in zip(images, outputs, strict=True):
        cut = image[0].unfold(0, PATCH, PATCH).unfold(1, PATCH, PATCH).reshape(16, PATCH * PATCH)
        x = cut @ weights["patch.weight"].T
        if pooling == "token":
            x = torch.cat((weights["class_token.weight"], x))
        x = x + weights["positions.weight"]
        width = x.shape[1]
        size = width // HEADS
        for block in range(DEPTH):
            of = {name.removeprefix(f"blocks.{block}."): tensor for name, tensor in weights.items()}
            y = standardised(x, of["norm1.weight"], of["norm1.bias"])
            q, k, v = (y @ of["attention.qkv.weight"].T).split(width, dim=1)
            mixed = []
            for head in range(HEADS):
                own = slice(head * size, (head + 1) * size)
                attention = torch.exp(q[:, own] @ k[:, own].T / math.sqrt(size))
                mixed.append(attention @ v[:, own] / attention.sum(dim=1, keepdim=True))
            x = x + torch.cat(mixed, dim=1) @ of["attention.projection.weight"].T
            y = standardised(x, of["norm2.weight"], of["norm2.bias"]) @ of["expand.weight"].T
            y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
            x = x + y @ of["contract.weight"].T
        x = standardised(x, weights["norm.weight"], weights["norm.bias"])
        pooled = x.mean(dim=0) if pooling == "mean" else x[0]
        expected = weights["head.weight"] @ pooled + weights["head.bias"]
        torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)


def test_every_parameter_gets_a_gradient_and_the_model_differentiates_twice(
    workload: ViTDigits,
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


def test_each_choice_changes_the_model(workload: ViTDigits) -> None:
    def outputs(chosen: ViTDigits) -> Tensor:
        torch.manual_seed(0)
        logits: Tensor = chosen.build_model()(torch.rand(2, 1, 8, 8, generator=generator(0)))
        return logits

    main = outputs(workload)
    for model in ({"width": "32"}, {"activation": "relu"}, {"pooling": "token"}):
        assert not torch.allclose(outputs(variant(**model)), main)
    assert torch.equal(outputs(variant(width="48", activation="gelu", pooling="mean")), main)
    with pytest.raises(UsageError, match="pooling"):
        variant(pooling="max").build_model()


def test_model_serves_other_sizes_and_refuses_impossible_ones() -> None:
    model = VisionTransformer(
        image_size=28, patch_size=7, in_channels=3, classes=7, width=12, depth=1, heads=3
    )
    assert model(torch.rand(2, 3, 28, 28)).shape == (2, 7)
    with pytest.raises(ValueError, match="patch_size=5"):
        VisionTransformer(
            image_size=28, patch_size=5, in_channels=1, classes=7, width=12, depth=1, heads=3
        )
    with pytest.raises(ValueError, match="heads=5"):
        VisionTransformer(
            image_size=28, patch_size=7, in_channels=1, classes=7, width=12, depth=1, heads=5
        )


def test_synthetic_batch_looks_like_a_real_one(workload: ViTDigits, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(32), generator(0))
    synthetic = workload.synthetic_batch(32, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert synthetic[0].min() >= 0 and synthetic[0].max() <= 1
    assert synthetic[1].min() >= 0 and synthetic[1].max() < CLASSES
    again = workload.synthetic_batch(32, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
