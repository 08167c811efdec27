"""Public image sets in the files their authors publish: readers, splits, and what they share."""

import gzip
import math
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from harness.workload import FileWorkload
from workloads.image_classification import ImageClassification

if TYPE_CHECKING:
    from numpy.random import RandomState

IDX_BYTES = 0x08  # the type code of unsigned bytes
CIFAR_SHAPE = (3, 32, 32)
CIFAR_TRAINING = tuple(f"data_batch_{batch}.bin" for batch in range(1, 6))
CIFAR_TEST = ("test_batch.bin",)


def read_idx(path: Path) -> Tensor:
    """Return the uint8 array in a gzipped IDX file, the format of MNIST and its successors.

    Two zero bytes, a type code, the number of dimensions, each dimension as four bytes (high
    byte first), and the values in row-major order.

    Raises:
        ValueError: it is no such file, or not as long as its head says.
    """
    with gzip.open(path) as file:
        content = file.read()
    if len(content) < 4 or content[:3] != bytes((0, 0, IDX_BYTES)):
        raise ValueError(f"{path} is no IDX file of bytes")
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise ValueError(f"{path} has {len(content)} bytes, {shape} needs others")
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(shape)


def read_cifar10(path: Path, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Return images uint8 [N, 3, 32, 32] and labels int64 [N] of files in CIFAR-10's archive.

    The "binary version": records of a label's byte and 3,072 bytes of pixels, red, green and
    blue plane after each other, each row by row.

    Raises:
        ValueError: a file is missing or is no whole number of records.
    """
    record = 1 + math.prod(CIFAR_SHAPE)
    content = bytearray()
    with tarfile.open(path, "r:gz") as archive:
        found = {Path(member.name).name: member for member in archive if member.isfile()}
        for name in names:
            file = archive.extractfile(found[name]) if name in found else None
            if file is None:
                raise ValueError(f"{path} has no {name}")
            content += file.read()
    if not content or len(content) % record:
        raise ValueError(f"{path} has no whole number of records of {record} bytes")
    records = torch.frombuffer(content, dtype=torch.uint8).reshape(-1, record)
    return records[:, 1:].reshape(-1, *CIFAR_SHAPE).contiguous(), records[:, 0].long()


def set_aside(labels: Tensor, per_class: int, random: "RandomState") -> tuple[Tensor, Tensor]:
    """Return the ids that stay and those set aside, `per_class` of each class; both ascending."""
    aside = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        ids = torch.nonzero(labels == label)[:, 0]
        aside[ids[torch.from_numpy(random.permutation(len(ids)))[:per_class]]] = True
    ids = torch.arange(len(labels))
    return ids[~aside], ids[aside]


class ByteImages(ImageClassification, FileWorkload):
    """Images stay bytes, a quarter of the memory; a batch of them becomes numbers near zero."""

    # The training images' mean and standard deviation, rounded; in bytes' units.
    mean: ClassVar[tuple[float, ...]]
    deviation: ClassVar[tuple[float, ...]]

    def standardised(self, images: Tensor) -> Tensor:
        """Return bytes [N, C, H, W] as float32 of mean 0 and standard deviation 1, about."""
        mean, deviation = (
            torch.tensor(values, device=images.device).reshape(-1, 1, 1)
            for values in (self.mean, self.deviation)
        )
        return (images - mean) / deviation

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return images float32 [B, *image_shape] and labels int64 [B]."""
        return self.standardised(data["images"].index_select(0, indices)), data[
            "labels"
        ].index_select(0, indices)

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return uniform bytes as images, standardised, and uniform labels."""
        device = generator.device
        shape = (batch_size, *self.image_shape)
        images = torch.randint(256, shape, generator=generator, device=device)
        labels = torch.randint(self.classes, (batch_size,), generator=generator, device=device)
        return self.standardised(images), labels

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `accuracy` (a fraction) and `loss` (mean cross-entropy in nats, unsmoothed)."""
        images = self.standardised(data["images"])
        return super().evaluate(model, {"images": images, "labels": data["labels"]})
