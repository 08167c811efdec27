"""resnet/digits: a small ResNet on scikit-learn's handwritten digits, distorted at random.

The images are the 1,797 digits of 8×8 pixels that scikit-learn bundles (Alpaydin & Kaynak
1998, UCI "Optical Recognition of Handwritten Digits", test part). Nothing is downloaded.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.workload import Workload
from workloads.resnet.model import ResNet

CLASSES = 10
PIXELS = 8  # height and width of an image
LEVELS = 16  # grey levels are 0 … 16 in the source

WIDTHS = (16, 32, 64)  # channels of the stages, at 8×8, 4×4 and 2×2 pixels
DEPTHS = (1, 1, 1)

SPLIT_SEED = 1797
HELD_OUT_PER_CLASS = 40  # base images of each class, in evaluation and again in test
COPIES = 13  # fixed distortions of each held-out image: 400 × 13 = 5,200 images a split

# A distortion is x ↦ (1 + M)x + t with uniform entries in units of 1/64: of the coordinate
# itself in M, of half the image's side (so 1/16 pixel) in t.
UNIT = 64
MATRIX_RANGE = 18  # ± 0.28: rotation, shear and scale together
SHIFT_RANGE = 20  # ± 1.25 pixels
EVALUATION_BATCH = 256


def distort(images: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Resample images [B, 1, 8, 8] under integer distortions `matrix` [B, 2, 2], `shift` [B, 2].

    Bilinear, zeros outside. Every coordinate, weight and grey level is a multiple of a
    power of two that fits float32, so the result is exact, hence the same to the byte on
    every processor and in every order of summation.
    """
    steps = torch.arange(PIXELS, device=images.device, dtype=images.dtype)
    centres = (2 * steps + 1 - PIXELS) / PIXELS  # in -1 … 1, as `grid_sample` counts
    y, x = centres[:, None], centres[None, :]
    m = (matrix / UNIT)[:, :, :, None, None]
    t = (shift / UNIT)[:, :, None, None]
    grid = torch.stack(
        (
            x + (m[:, 0, 0] * x + m[:, 0, 1] * y) + t[:, 0],
            y + (m[:, 1, 0] * x + m[:, 1, 1] * y) + t[:, 1],
        ),
        dim=-1,
    )
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class ResNetDigits(Workload):
    """Training distorts each image anew; evaluation and test hold fixed distortions."""

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight", "head.bias"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `images` float32 [N, 1, 8, 8] in 0 … 1, `labels` int64 [N].

        Base images are split by class; the classes are exactly balanced in evaluation and
        test. The `RandomState` streams are frozen by NumPy (NEP 19), `Generator`'s are not.
        """
        import numpy as np
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images.astype(np.float32))[:, None] / LEVELS
        labels = torch.from_numpy(digits.target.astype(np.int64))
        random = np.random.RandomState(SPLIT_SEED)
        members: dict[str, list[Tensor]] = {"training": [], "evaluation": [], "test": []}
        for label in range(CLASSES):
            ids = torch.from_numpy(random.permutation(np.flatnonzero(digits.target == label)))
            k = HELD_OUT_PER_CLASS
            members["evaluation"].append(ids[:k])
            members["test"].append(ids[k : 2 * k])
            members["training"].append(ids[2 * k :])
        splits = {}
        for name, parts in members.items():
            ids = torch.cat(parts).sort().values
            if name == "training":
                splits[name] = {"images": images[ids], "labels": labels[ids]}
                continue
            ids = ids.repeat_interleave(COPIES)
            n = len(ids)
            matrix = random.randint(-MATRIX_RANGE, MATRIX_RANGE + 1, size=(n, 2, 2))
            shift = random.randint(-SHIFT_RANGE, SHIFT_RANGE + 1, size=(n, 2))
            distorted = distort(images[ids], torch.from_numpy(matrix), torch.from_numpy(shift))
            splits[name] = {"images": distorted, "labels": labels[ids]}
        return splits

    def build_model(self) -> nn.Module:
        return ResNet(in_channels=1, classes=CLASSES, widths=WIDTHS, depths=DEPTHS)

    def training_batch(
        self, data: Mapping[str, Tensor], indices: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return distorted images float32 [B, 1, 8, 8] and labels int64 [B]."""
        draw = partial(torch.randint, generator=generator, device=generator.device)
        matrix = draw(-MATRIX_RANGE, MATRIX_RANGE + 1, (len(indices), 2, 2))
        shift = draw(-SHIFT_RANGE, SHIFT_RANGE + 1, (len(indices), 2))
        return distort(data["images"][indices], matrix, shift), data["labels"][indices]

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return uniform noise as images and uniform labels, on the generator's device."""
        device = generator.device
        images = torch.rand(batch_size, 1, PIXELS, PIXELS, generator=generator, device=device)
        labels = torch.randint(CLASSES, (batch_size,), generator=generator, device=device)
        return images, labels

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the cross-entropies in nats, shape [B]."""
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `accuracy` (a fraction) and `loss` (mean cross-entropy in nats, unsmoothed)."""
        images = torch.split(data["images"], EVALUATION_BATCH)
        labels = torch.split(data["labels"], EVALUATION_BATCH)
        # The sums stay on the device, in float64: one synchronisation, no rounding that counts.
        sums = torch.zeros(2, dtype=torch.float64, device=data["labels"].device)
        for x, y in zip(images, labels, strict=True):
            logits = model(x).float()
            sums[0] += (logits.argmax(dim=1) == y).sum()
            sums[1] += F.cross_entropy(logits, y, reduction="sum")
        accuracy, loss = (sums / len(data["labels"])).tolist()
        return {"accuracy": accuracy, "loss": loss}
