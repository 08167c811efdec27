"""deepmlp/digits: the data to the byte, the bad start by its formula, the model by hand."""

import math

import msgspec
import pytest
import torch
from torch import Tensor, nn

from harness import catalogue
from harness.errors import UsageError
from workloads.deepmlp.digits import (
    COPIES,
    DEPTH,
    FEATURES,
    WEIGHT_STD,
    DeepMLPDigits,
    DeepPerceptron,
)
from workloads.digit_images import CLASSES, HELD_OUT_PER_CLASS

Splits = dict[str, dict[str, Tensor]]
CARD = catalogue.workload("deepmlp/digits").card


@pytest.fixture(scope="module")
def workload() -> DeepMLPDigits:
    return DeepMLPDigits(CARD)


@pytest.fixture(scope="module")
def splits(workload: DeepMLPDigits) -> Splits:
    return workload.prepare()


def variant(**model: str) -> DeepMLPDigits:
    return DeepMLPDigits(msgspec.structs.replace(CARD, model=model))


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


def test_splits_share_no_base_image(
    workload: DeepMLPDigits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workloads.deepmlp.digits.distort", lambda images, matrix, shift: images)
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
        assert len(torch.unique(splits[name]["images"][:copies], dim=0)) == copies


def test_training_batch_is_the_examples_and_draws_nothing(
    workload: DeepMLPDigits, splits: Splits
) -> None:
    data, indices = splits["training"], torch.tensor([3, 2000, 3, 100])
    stream = generator(1)
    images, labels = workload.training_batch(data, indices, stream)
    assert torch.equal(images, data["images"][indices])
    assert torch.equal(labels, data["labels"][indices])
    assert torch.equal(stream.get_state(), generator(1).get_state())


def test_loss_against_cross_entropy_by_hand(workload: DeepMLPDigits) -> None:
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


def test_evaluate_against_a_model_that_answers_three(workload: DeepMLPDigits) -> None:
    labels = torch.tensor([3] * 300 + [4] * 100 + [0] * 200)
    data = {"images": torch.zeros(600, FEATURES), "labels": labels}
    metrics = workload.evaluate(AnswersThree(), data)
    assert metrics["accuracy"] == 0.5
    expected = -(math.log(0.9) + math.log(0.1 / 9)) / 2
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)


def test_evaluate_in_inference_mode_changes_no_state(
    workload: DeepMLPDigits, splits: Splits
) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, splits["test"])
    assert set(metrics) == {"accuracy", "loss"} and 0 <= metrics["accuracy"] < 0.4
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_model_comes_in_training_mode_from_the_global_seed(workload: DeepMLPDigits) -> None:
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


def test_weights_start_from_the_same_gaussian_in_every_layer(workload: DeepMLPDigits) -> None:
    torch.manual_seed(0)
    weights = dict(workload.build_model().named_parameters())
    assert len(weights) == 2 * (DEPTH + 1)
    for name, tensor in weights.items():
        if name.endswith("bias"):
            assert not tensor.any()
            continue
        assert tensor.std().item() == pytest.approx(WEIGHT_STD, rel=0.12)  # 500 to 3,200 entries
        assert abs(tensor.mean().item()) < 0.2 * WEIGHT_STD


def test_the_signal_shrinks_from_layer_to_layer_at_the_start(splits: Splits) -> None:
    # A ReLU layer of n units multiplies the mean square by n std² ÷ 2 in expectation.
    images = splits["training"]["images"][::100].double()
    shares = {"small": [], "he": []}  # type: dict[str, list[float]]
    for initialisation, found in shares.items():
        for seed in range(40):
            torch.manual_seed(seed)
            model = DeepPerceptron(
                width=50, depth=DEPTH, activation="relu", initialisation=initialisation
            ).double()
            with torch.no_grad():
                x = images
                sizes = []
                for layer in model.hidden:
                    x = torch.relu(layer(x))
                    sizes.append(x.square().mean().item())
            found.append((sizes[-1] / sizes[0]) ** (1 / (2 * (DEPTH - 1))))
    # The typical factor lies a little below the root mean square, since products are skewed.
    for initialisation, mean_square in (("small", 50 * WEIGHT_STD**2 / 2), ("he", 1.0)):
        root = math.sqrt(mean_square)
        assert 0.85 * root < sorted(shares[initialisation])[20] < 1.02 * root


def test_first_gradients_are_hundreds_of_times_too_small(
    workload: DeepMLPDigits, splits: Splits
) -> None:
    inputs, targets = workload.training_batch(splits["training"], torch.arange(128), generator(0))
    sizes = {}
    for name, chosen in (("small", workload), ("he", variant(initialisation="he"))):
        torch.manual_seed(0)
        model = chosen.build_model()
        workload.per_example_loss(model(inputs), targets, 0.0).mean().backward()
        first = dict(model.named_parameters())["hidden.0.weight"].grad
        assert first is not None
        sizes[name] = first.norm().item()
    assert 0 < sizes["small"] < 5e-3 * sizes["he"]


def test_model_against_the_formula_in_float64(workload: DeepMLPDigits) -> None:
    torch.manual_seed(0)
    model = variant(initialisation="he").build_model().double()
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in weights.items():
            if name.endswith("bias"):
                tensor.normal_()
    inputs = torch.rand(5, FEATURES, dtype=torch.float64, generator=generator(0))
    x = inputs
    for layer in range(DEPTH):
        x = x @ weights[f"hidden.{layer}.weight"].T + weights[f"hidden.{layer}.bias"]
        x = x * (x > 0)
    expected = x @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(model(inputs), expected, rtol=1e-12, atol=1e-12)


def test_every_parameter_gets_a_gradient_and_the_model_differentiates_twice(
    workload: DeepMLPDigits,
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


def test_each_choice_changes_the_model(workload: DeepMLPDigits) -> None:
    def outputs(chosen: DeepMLPDigits) -> Tensor:
        torch.manual_seed(0)
        logits: Tensor = chosen.build_model().double()(
            torch.rand(2, FEATURES, dtype=torch.float64, generator=generator(0))
        )
        return logits

    main = outputs(workload)
    for model in ({"width": "64"}, {"activation": "gelu"}, {"initialisation": "he"}):
        assert not torch.equal(outputs(variant(**model)), main)
    same = variant(width="50", activation="relu", initialisation="small")
    assert torch.equal(outputs(same), main)
    with pytest.raises(UsageError, match="initialisation"):
        variant(initialisation="zero").build_model()


def test_synthetic_batch_looks_like_a_real_one(workload: DeepMLPDigits, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(32), generator(0))
    synthetic = workload.synthetic_batch(32, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert synthetic[0].min() >= 0 and synthetic[0].max() <= 1
    assert synthetic[1].min() >= 0 and synthetic[1].max() < CLASSES
    again = workload.synthetic_batch(32, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
