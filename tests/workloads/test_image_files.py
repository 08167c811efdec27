"""Readers of published image files, on files written here byte by byte."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from workloads.image_files import (
    CIFAR_TEST,
    CIFAR_TRAINING,
    ByteImages,
    read_cifar10,
    read_idx,
    set_aside,
)


def idx(*shape: int, values: bytes, kind: int = 8) -> bytes:
    head = bytes((0, 0, kind, len(shape)))
    return head + b"".join(size.to_bytes(4, "big") for size in shape) + values


def packed(folder: Path, content: bytes) -> Path:
    path = folder / "file.gz"
    path.write_bytes(gzip.compress(content))
    return path


def test_idx_values_stand_in_row_major_order(tmp_path: Path) -> None:
    values = bytes(range(24))
    array = read_idx(packed(tmp_path, idx(2, 3, 4, values=values)))
    assert array.dtype == torch.uint8 and array.shape == (2, 3, 4)
    for i in range(2):
        for j in range(3):
            for k in range(4):
                assert array[i, j, k] == values[(i * 3 + j) * 4 + k]


def test_idx_sizes_have_the_high_byte_first(tmp_path: Path) -> None:
    array = read_idx(packed(tmp_path, idx(258, values=bytes(256) + b"\x07\xff")))
    assert array.shape == (258,) and array[-2:].tolist() == [7, 255]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no IDX file of bytes"),
        (b"\x00\x00\x08", "no IDX file of bytes"),
        (idx(2, values=bytes(2), kind=13), "no IDX file of bytes"),  # floats
        (b"\x01" + idx(2, values=bytes(2))[1:], "no IDX file of bytes"),
        (idx(2, 3, values=bytes(5)), r"has 17 bytes, \[2, 3\] needs others"),
        (idx(2, 3, values=bytes(7)), r"has 19 bytes, \[2, 3\] needs others"),
        (idx(2, 3, values=b"")[:9], r"has 9 bytes"),
    ],
)
def test_what_is_no_idx_file_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_idx(packed(tmp_path, content))


def cifar_archive(folder: Path, records: dict[str, bytes]) -> Path:
    """Write an archive as the official one is laid out, other files in it too."""
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in ({"batches.meta.txt": b"airplane\n"} | records).items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def record(label: int, seed: int) -> bytes:
    pixels = np.random.RandomState(seed).randint(0, 256, 3072).astype(np.uint8).tobytes()
    return bytes((label,)) + pixels


def test_cifar_records_are_label_then_planes_row_by_row(tmp_path: Path) -> None:
    records = {
        name: record(n, 2 * n) + record(n + 4, 2 * n + 1) for n, name in enumerate(CIFAR_TRAINING)
    }
    path = cifar_archive(tmp_path, records | {"test_batch.bin": record(9, 99)})
    images, labels = read_cifar10(path, CIFAR_TRAINING)
    assert images.dtype == torch.uint8 and images.shape == (10, 3, 32, 32)
    assert images.is_contiguous() and labels.dtype == torch.int64
    assert labels.tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 4, 8]  # the batches in their order
    raw = record(1, 3)  # of image 3, the second of the second batch, pixels only
    for plane, row, column in ((0, 0, 0), (0, 0, 31), (0, 1, 0), (1, 5, 7), (2, 31, 31)):
        assert images[3, plane, row, column] == raw[1 + plane * 1024 + row * 32 + column]
    test_images, test_labels = read_cifar10(path, CIFAR_TEST)
    assert test_labels.tolist() == [9] and test_images.shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        ({}, "has no test_batch.bin"),
        ({"test_batch.bin": b""}, "no whole number of records of 3073 bytes"),
        ({"test_batch.bin": record(0, 0) + b"!"}, "no whole number of records of 3073 bytes"),
    ],
)
def test_what_is_no_cifar_archive_is_refused(
    tmp_path: Path, records: dict[str, bytes], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        read_cifar10(cifar_archive(tmp_path, records), CIFAR_TEST)


def test_setting_aside_takes_as_many_of_each_class() -> None:
    labels = torch.tensor([0, 1, 2] * 40 + [2] * 30)
    kept, aside = set_aside(labels, 7, np.random.RandomState(0))
    assert torch.bincount(labels[aside]).tolist() == [7, 7, 7]
    assert torch.equal(torch.cat((kept, aside)).sort().values, torch.arange(150))
    assert torch.equal(kept, kept.sort().values) and torch.equal(aside, aside.sort().values)
    again = set_aside(labels, 7, np.random.RandomState(0))[1]
    other = set_aside(labels, 7, np.random.RandomState(1))[1]
    assert torch.equal(aside, again) and not torch.equal(aside, other)


def test_standardising_by_hand() -> None:
    class Two(ByteImages):
        mean, deviation = (10.0, 20.0), (2.0, 4.0)
        prepare = build_model = None  # type: ignore[assignment]

    Two.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    images = torch.tensor([[[[0, 255]], [[20, 24]]]], dtype=torch.uint8)
    found = Two.standardised(Two.__new__(Two), images)
    assert found.dtype == torch.float32
    assert found.tolist() == [[[[-5.0, 122.5]], [[0.0, 1.0]]]]
