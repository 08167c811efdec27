"""resnet/cifar10 on a small archive in the official layout."""

import hashlib
from pathlib import Path

import msgspec
import pytest
import torch
from test_image_files import cifar_archive, record

import workloads.resnet.cifar10
from harness import catalogue
from harness.cards import DataFile
from harness.prepared_data import load_split, prepare
from harness.prepared_paths import is_prepared
from workloads.image_files import CIFAR_TRAINING
from workloads.resnet.cifar10 import ARCHIVE, ResNetCIFAR10

HELD_OUT = 2


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResNetCIFAR10:
    """Five batches of 20 records, two of each class; the pixels' seed is 100 batch + record."""
    records = {
        name: b"".join(record(n % 10, 100 * batch + n) for n in range(20))
        for batch, name in enumerate(CIFAR_TRAINING)
    }
    records["test_batch.bin"] = b"".join(record(9 - n, 900 + n) for n in range(10))
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    content = cifar_archive(folder, records).read_bytes()
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(workloads.resnet.cifar10, "HELD_OUT_PER_CLASS", HELD_OUT)
    file = DataFile(
        name=ARCHIVE,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    )
    card = catalogue.workload("resnet/cifar10").card
    data = msgspec.structs.replace(card.data, files=(file,))
    return ResNetCIFAR10(msgspec.structs.replace(card, data=data))


def test_splits_without_frozen_hashes_are_cached_by_the_hash_of_their_file(
    workload: ResNetCIFAR10,
) -> None:
    assert not workload.card.data.sha256
    prepare(workload)
    assert is_prepared(workload.card)
    training = load_split(workload.card, "training", torch.device("cpu"))
    torch.testing.assert_close(training, workload.prepare()["training"], rtol=0, atol=0)
    (file,) = workload.card.data.files
    other = msgspec.structs.replace(file, sha256="0" * 64)
    data = msgspec.structs.replace(workload.card.data, files=(other,))
    assert not is_prepared(msgspec.structs.replace(workload.card, data=data))


def test_the_card_counts_the_models_parameters(workload: ResNetCIFAR10) -> None:
    model = workload.build_model()
    assert sum(p.numel() for p in model.parameters()) == workload.card.parameters


def pixels(seed: int) -> bytes:
    return record(0, seed)[1:]


def test_splits_hold_the_official_parts(workload: ResNetCIFAR10) -> None:
    splits = workload.prepare()
    assert list(splits) == ["training", "evaluation", "test"]
    expected = {pixels(100 * b + n): n % 10 for b in range(5) for n in range(20)}
    found = {
        image.numpy().tobytes(): int(label)
        for name in ("training", "evaluation")
        for image, label in zip(splits[name]["images"], splits[name]["labels"], strict=True)
    }
    assert found == expected
    assert len(splits["training"]["labels"]) == 100 - 10 * HELD_OUT
    assert torch.bincount(splits["evaluation"]["labels"]).tolist() == [HELD_OUT] * 10
    test = splits["test"]
    assert test["labels"].tolist() == list(range(9, -1, -1))
    assert [image.numpy().tobytes() for image in test["images"]] == [
        pixels(900 + n) for n in range(10)
    ]
    again = workload.prepare()
    for name, split in splits.items():
        assert split["images"].shape[1:] == (3, 32, 32) and split["images"].is_contiguous()
        for key, tensor in split.items():
            assert tensor.numpy().tobytes() == again[name][key].numpy().tobytes()


def test_batches_are_standardised_channel_by_channel(workload: ResNetCIFAR10) -> None:
    data = workload.prepare()["training"]
    inputs, _ = workload.training_batch(data, torch.tensor([5]), torch.Generator())
    for channel, (mean, deviation) in enumerate(((125, 63), (123, 62), (114, 67))):
        value = int(data["images"][5, channel, 8, 9])
        assert inputs[0, channel, 8, 9].item() == pytest.approx(
            (value - mean) / deviation, rel=1e-6
        )
    synthetic, labels = workload.synthetic_batch(7, torch.Generator().manual_seed(0))
    assert synthetic.shape == (7, *inputs.shape[1:]) and synthetic.dtype == inputs.dtype
    assert labels.shape == (7,) and labels.dtype == torch.int64


def test_the_model_takes_a_batch_and_is_scored(workload: ResNetCIFAR10) -> None:
    splits = workload.prepare()
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, labels = workload.training_batch(splits["training"], torch.arange(8), torch.Generator())
    workload.per_example_loss(model(inputs), labels, 0.0).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    with torch.inference_mode():
        metrics = workload.evaluate(model.eval(), splits["test"])
    assert 0 <= metrics["accuracy"] <= 1 and metrics["loss"] > 0
