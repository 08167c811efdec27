"""resnet/fashion and vit/fashion: splits of files made here, batches, loss, metric, models.

What the official files say is checked where they are: set BENCH_DATA_DIR.
"""

import gzip
import hashlib
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from real_data import needs_files
from torch import Tensor, nn

import workloads.fashion_mnist
from harness import catalogue
from harness.prepared_data import tensors_sha256
from harness.workload import load_workload
from workloads.fashion_mnist import FashionMNIST

Splits = dict[str, dict[str, Tensor]]

NAMES = ("resnet/fashion", "vit/fashion")
HELD_OUT = 4
TRAINING, TEST = 240, 60


def workload_of(name: str, **changes: Any) -> FashionMNIST:
    entry = catalogue.workload(name)
    found = load_workload(entry.module, msgspec.structs.replace(entry.card, **changes))
    assert isinstance(found, FashionMNIST)
    return found


@pytest.fixture(scope="module", params=NAMES)
def workload(request: pytest.FixtureRequest) -> FashionMNIST:
    return workload_of(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files in the format of the official ones: image i of a part begins with i, part."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "fashion_mnist").mkdir()
    for number, (part, n) in enumerate({"train": TRAINING, "t10k": TEST}.items()):
        images = np.random.RandomState(number).randint(0, 256, (n, 28, 28)).astype(np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.arange(n), number
        labels = (np.arange(n) * 7 % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes((0, 0, 8, array.ndim))
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            path = folder / "fashion_mnist" / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(head + sizes + array.tobytes()))
    return folder


@pytest.fixture
def small(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FashionMNIST:
    """The workload on the small files."""
    monkeypatch.setenv("BENCH_DATA_DIR", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(workloads.fashion_mnist, "HELD_OUT_PER_CLASS", HELD_OUT)
    data = catalogue.workload(NAMES[0]).card.data
    files = []
    for file in data.files:
        content = (folder / file.name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        files.append(msgspec.structs.replace(file, bytes=len(content), sha256=digest))
    return workload_of(NAMES[0], data=msgspec.structs.replace(data, files=tuple(files)))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- the splits ----------------------------------------------------------------------------


def test_evaluation_comes_from_the_training_part_and_test_is_the_test_part(
    small: FashionMNIST,
) -> None:
    splits = small.prepare()
    assert {name: len(split["labels"]) for name, split in splits.items()} == {
        "training": TRAINING - 10 * HELD_OUT,
        "evaluation": 10 * HELD_OUT,
        "test": TEST,
    }
    for name, split in splits.items():
        images, labels = split["images"], split["labels"]
        assert images.dtype == torch.uint8 and images.shape == (len(labels), 1, 28, 28)
        assert labels.dtype == torch.int64
        part = int(name == "test")
        assert (images[:, 0, 0, 1] == part).all()
        # The image's own number says which label it has.
        assert torch.equal(images[:, 0, 0, 0].long() * 7 % 10, labels)
    assert torch.bincount(splits["evaluation"]["labels"]).tolist() == [HELD_OUT] * 10
    numbers = [splits[name]["images"][:, 0, 0, 0] for name in ("training", "evaluation")]
    assert torch.cat(numbers).sort().values.tolist() == list(range(TRAINING))


def test_prepare_is_identical_to_the_byte_and_draws_from_no_global_generator(
    small: FashionMNIST,
) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first, second = small.prepare(), small.prepare()
    for name, split in first.items():
        for key, tensor in split.items():
            assert tensor.is_contiguous()
            assert tensor.numpy().tobytes() == second[name][key].numpy().tobytes()
    assert torch.equal(before, torch.get_rng_state())
    assert numpy_before == np.random.get_state()[1].tolist()


@needs_files("resnet/fashion")
def test_the_official_files_give_what_the_cards_froze() -> None:
    splits = workload_of("resnet/fashion").prepare()
    for name in NAMES:
        data = catalogue.workload(name).card.data
        sizes = [len(split["labels"]) for split in splits.values()]
        assert sizes == [data.training_examples, data.evaluation_examples, data.test_examples]
        assert {split: tensors_sha256(t) for split, t in splits.items()} == data.sha256
    seen = [image.numpy().tobytes() for split in splits.values() for image in split["images"]]
    assert len(set(seen)) == len(seen) == 70_000  # no image twice, so none leaks
    for split, per_class in (("training", 5500), ("evaluation", 500), ("test", 1000)):
        assert torch.bincount(splits[split]["labels"]).tolist() == [per_class] * 10
    pixels = splits["training"]["images"].double()
    assert abs(pixels.mean() - FashionMNIST.mean[0]) < 0.5
    assert abs(pixels.std() - FashionMNIST.deviation[0]) < 0.5


def test_both_cards_name_the_same_files_and_splits() -> None:
    first, second = (catalogue.workload(name).card.data for name in NAMES)
    assert first.files == second.files and first.sha256 == second.sha256


# -- batches, loss, metric -----------------------------------------------------------------


def test_training_batch_is_the_examples_standardised(workload: FashionMNIST) -> None:
    images = torch.randint(256, (50, 1, 28, 28), generator=generator(0), dtype=torch.uint8)
    data = {"images": images, "labels": torch.arange(50) % 10}
    stream, indices = generator(1), torch.tensor([3, 49, 3, 0])
    inputs, labels = workload.training_batch(data, indices, stream)
    assert inputs.dtype == torch.float32 and inputs.shape == (4, 1, 28, 28)
    assert labels.tolist() == [3, 9, 3, 0]
    for row, example in enumerate(indices.tolist()):
        for at in ((0, 0), (13, 27)):
            expected = (int(images[example, 0, *at]) - 73) / 90
            assert inputs[row, 0, *at].item() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(stream.get_state(), generator(1).get_state())


def test_synthetic_batch_looks_like_a_real_one(workload: FashionMNIST) -> None:
    images = torch.randint(256, (50, 1, 28, 28), generator=generator(0), dtype=torch.uint8)
    data = {"images": images, "labels": torch.arange(50) % 10}
    real = workload.training_batch(data, torch.arange(32), generator(0))
    synthetic = workload.synthetic_batch(32, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert synthetic[0].min() >= -73 / 90 and synthetic[0].max() <= 182 / 90
    assert synthetic[1].min() >= 0 and synthetic[1].max() < 10
    again = workload.synthetic_batch(32, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))


def test_loss_against_cross_entropy_by_hand(workload: FashionMNIST) -> None:
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


class AnswersByBrightness(nn.Module):
    """Nine tenths for class 3 where the first pixel is above the mean, for class 5 elsewhere."""

    def forward(self, images: Tensor) -> Tensor:
        probabilities = torch.full((len(images), 10), 0.1 / 9)
        bright = images[:, 0, 0, 0] > 0
        probabilities[torch.arange(len(images)), torch.where(bright, 3, 5)] = 0.9
        return probabilities.log()


def test_evaluate_by_hand_on_standardised_images(workload: FashionMNIST) -> None:
    images = torch.zeros(600, 1, 28, 28, dtype=torch.uint8)
    images[:300, 0, 0, 0] = 74  # just above the mean
    labels = torch.tensor([3] * 300 + [5] * 150 + [3] * 150)
    metrics = workload.evaluate(AnswersByBrightness(), {"images": images, "labels": labels})
    assert metrics["accuracy"] == 0.75
    expected = -(3 * math.log(0.9) + math.log(0.1 / 9)) / 4
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)


# -- the models ----------------------------------------------------------------------------


def test_model_comes_in_training_mode_from_the_global_seed(workload: FashionMNIST) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    assert model(torch.rand(3, 1, 28, 28)).shape == (3, 10)
    parameters = dict(model.named_parameters())
    assert sum(p.numel() for p in parameters.values()) == workload.card.parameters
    assert workload.head_parameters <= parameters.keys()
    assert all(torch.equal(parameters[name], p) for name, p in twin.named_parameters())


def test_every_parameter_gets_a_gradient_and_a_second_one(workload: FashionMNIST) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, labels = workload.synthetic_batch(4, generator(0))
    loss = workload.per_example_loss(model(inputs), labels, 0.0).mean()
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    square = sum((gradient**2).sum() for gradient in gradients)
    assert isinstance(square, Tensor)
    for name, second in zip(
        parameters, torch.autograd.grad(square, list(parameters.values())), strict=True
    ):
        assert second.isfinite().all() and second.any(), name


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("resnet/fashion", {"width": "4"}),
        ("resnet/fashion", {"activation": "gelu"}),
        ("resnet/fashion", {"normalisation": "group"}),
        ("resnet/fashion", {"initialisation": "lecun"}),
        ("vit/fashion", {"width": "32"}),
        ("vit/fashion", {"activation": "relu"}),
        ("vit/fashion", {"pooling": "token"}),
    ],
)
def test_each_choice_changes_the_model(name: str, model: dict[str, str]) -> None:
    inputs, _ = workload_of(name).synthetic_batch(4, generator(0))
    outputs = []
    for choices in ({}, model):
        torch.manual_seed(0)
        outputs.append(workload_of(name, model=choices).build_model()(inputs))
    assert outputs[0].shape == outputs[1].shape and not torch.allclose(*outputs)
