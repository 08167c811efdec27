"""resnet/digits: a small ResNet on scikit-learn's handwritten digits, distorted at random."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from harness.cards import ModelSettings
from workloads.digit_images import (
    CLASSES,
    PIXELS,
    base_images,
    distort,
    draw_distortions,
    random_distortions,
    split_ids,
)
from workloads.image_classification import ImageClassification
from workloads.resnet.model import ResNet

DEPTHS = (1, 1, 1)  # blocks of the stages, at 8×8, 4×4 and 2×2 pixels

SPLIT_SEED = 1797
COPIES = 13  # fixed distortions of each held-out image: 400 × 13 = 5,200 images a split
MATRIX_RANGE = 18  # ± 0.28: rotation, shear and scale together
SHIFT_RANGE = 20  # ± 1.25 pixels


class ResNetSettings(ModelSettings, frozen=True, kw_only=True):
    """Channels of the first stage, which each later one doubles, and what lies between layers."""

    width: int = 16
    activation: Literal["relu", "gelu", "silu"] = "relu"
    normalisation: Literal["batch", "group"] = "batch"
    initialisation: Literal["he", "lecun"] = "he"


class ResNetDigits(ImageClassification):
    """Training distorts each image anew; evaluation and test hold fixed distortions."""

    classes = CLASSES
    image_shape = (1, PIXELS, PIXELS)

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `images` float32 [N, 1, 8, 8] in 0 … 1, `labels` int64 [N]."""
        import numpy as np

        images, labels = base_images()
        random = np.random.RandomState(SPLIT_SEED)
        splits = {}
        for name, base_ids in split_ids(labels, random).items():
            if name == "training":
                splits[name] = {"images": images[base_ids], "labels": labels[base_ids]}
                continue
            ids = base_ids.repeat_interleave(COPIES)
            distortions = random_distortions(random, len(ids), MATRIX_RANGE, SHIFT_RANGE)
            splits[name] = {"images": distort(images[ids], *distortions), "labels": labels[ids]}
        return splits

    def build_model(self) -> nn.Module:
        settings = self.settings(ResNetSettings)
        return ResNet(
            in_channels=1,
            classes=CLASSES,
            widths=tuple(settings.width * 2**stage for stage in range(len(DEPTHS))),
            depths=DEPTHS,
            activation=settings.activation,
            normalisation=settings.normalisation,
            initialisation=settings.initialisation,
        )

    def training_batch(
        self, data: Mapping[str, Tensor], indices: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return distorted images float32 [B, 1, 8, 8] and labels int64 [B]."""
        distortions = draw_distortions(len(indices), MATRIX_RANGE, SHIFT_RANGE, generator)
        return distort(data["images"].index_select(0, indices), *distortions), data[
            "labels"
        ].index_select(0, indices)
