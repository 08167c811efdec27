"""vit/digits: a small vision transformer on scikit-learn's handwritten digits, distorted at random.

Patches of 2×2 pixels make 16 tokens: on a CPU with 16 float32 lanes the softmax over them is
many times faster than one over 13, 14, 15 or 17.
"""

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
from workloads.vit.model import VisionTransformer

PATCH = 2  # height and width of a patch
DEPTH = 2
HEADS = 8

SPLIT_SEED = 1797
COPIES = 6  # fixed distortions of each held-out image: 400 × 6 = 2,400 images a split
MATRIX_RANGE = 12  # ± 0.19: rotation, shear and scale together
SHIFT_RANGE = 12  # ± 0.75 pixels


class ViTSettings(ModelSettings, frozen=True, kw_only=True):
    """Channels of a token, the activation of the blocks, and what the head reads."""

    width: int = 48
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    pooling: Literal["mean", "token"] = "mean"


class ViTDigits(ImageClassification):
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
        settings = self.settings(ViTSettings)
        return VisionTransformer(
            image_size=PIXELS,
            patch_size=PATCH,
            in_channels=1,
            classes=CLASSES,
            width=settings.width,
            depth=DEPTH,
            heads=HEADS,
            activation=settings.activation,
            pooling=settings.pooling,
        )

    def training_batch(
        self, data: Mapping[str, Tensor], indices: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return distorted images float32 [B, 1, 8, 8] and labels int64 [B]."""
        distortions = draw_distortions(len(indices), MATRIX_RANGE, SHIFT_RANGE, generator)
        return distort(data["images"].index_select(0, indices), *distortions), data[
            "labels"
        ].index_select(0, indices)
