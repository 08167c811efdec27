"""longtail/digits: few examples of most classes and a fifth of all labels wrong, in training only.

The setting of Wei et al. 2021, "Robust Long-Tailed Learning under Label Noise" (2108.11569),
small: class counts fall exponentially, as in Cui et al. 2019, "Class-Balanced Loss Based on
Effective Number of Samples" (1901.05555), labels are wrong at random, and what counts is the
mean recall on balanced data with right labels. An id always means the same inputs and label.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.cards import ModelSettings
from workloads.activations import activation_function
from workloads.digit_images import (
    CLASSES,
    PIXELS,
    base_images,
    distort,
    random_distortions,
    split_ids,
)
from workloads.image_classification import EVALUATION_BATCH, ImageClassification

if TYPE_CHECKING:
    from numpy.random import RandomState

FEATURES = PIXELS * PIXELS
DEPTH = 2  # hidden layers

SPLIT_SEED = 1797
# Base images of each class in training: 94 · 20^(-class ÷ 9), rounded.
BASE_IMAGES = (94, 67, 48, 35, 25, 18, 13, 9, 7, 5)
COPIES = {"training": 16, "evaluation": 8, "test": 8}  # fixed distortions of each base image
MATRIX_RANGE = 12  # ± 0.19: rotation, shear and scale together
SHIFT_RANGE = 12  # ± 0.75 pixels
RIGHT_PER_WRONG = 4  # of every five labels of a class, four are right


class LongTailSettings(ModelSettings, frozen=True, kw_only=True):
    """Units of each hidden layer, their activation and their normalisation."""

    width: int = 512
    activation: Literal["relu", "gelu", "tanh"] = "relu"
    normalisation: Literal["none", "layer"] = "none"


class Perceptron(nn.Module):
    """Inputs [B, 64] → `depth` layers of hidden units → logits [B, 10]."""

    def __init__(self, *, width: int, depth: int, activation: str, normalisation: str) -> None:
        super().__init__()
        sizes = (FEATURES, *[width] * depth)
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.norms = nn.ModuleList(
            nn.LayerNorm(width) if normalisation == "layer" else nn.Identity() for _ in range(depth)
        )
        self.head = nn.Linear(width, CLASSES)
        self.activation = activation_function(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = self.activation(norm(layer(x)))
        logits: Tensor = self.head(x)
        return logits


def long_tailed(ids: Tensor, labels: Tensor, random: "RandomState") -> Tensor:
    """Return of the base images `ids` as many of each class as `BASE_IMAGES` says, sorted."""
    kept = []
    for label, count in enumerate(BASE_IMAGES):
        members = ids[labels[ids] == label].numpy()
        kept.append(torch.from_numpy(random.permutation(members)[:count]))
    return torch.cat(kept).sort().values


def with_wrong_labels(labels: Tensor, random: "RandomState") -> Tensor:
    """Return `labels` with one in five of each class wrong.

    A wrong label is that of an example drawn from the other classes, so that it too is rarely
    one of the tail's: uniform ones would outnumber the tail's own.
    """
    noisy = labels.clone()
    for label in range(CLASSES):
        members = (labels == label).nonzero().flatten()
        others = labels[labels != label]
        wrong = len(members) // (RIGHT_PER_WRONG + 1)
        chosen = torch.from_numpy(random.permutation(members.numpy())[:wrong])
        drawn = torch.from_numpy(random.randint(len(others), size=wrong))
        noisy[chosen] = others[drawn]
    return noisy


class LongTailDigits(ImageClassification):
    """No augmentation; an example's group is its class by the training label, right or wrong."""

    classes = CLASSES
    image_shape = (FEATURES,)

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `images` float32 [N, 64] in 0 … 1, `labels` int64 [N].

        Training also has `groups` int64 [N]. The copies of one base image stand together, and
        all in one split; each has a label of its own, right or wrong.
        """
        import numpy as np

        images, labels = base_images()
        random = np.random.RandomState(SPLIT_SEED)
        splits = {}
        for name, base_ids in split_ids(labels, random).items():
            kept = long_tailed(base_ids, labels, random) if name == "training" else base_ids
            ids = kept.repeat_interleave(COPIES[name])
            distortions = random_distortions(random, len(ids), MATRIX_RANGE, SHIFT_RANGE)
            distorted = distort(images[ids], *distortions).flatten(1)
            splits[name] = {"images": distorted, "labels": labels[ids]}
        noisy = with_wrong_labels(splits["training"]["labels"], random)
        splits["training"] |= {"labels": noisy, "groups": noisy.clone()}
        return splits

    def build_model(self) -> nn.Module:
        settings = self.settings(LongTailSettings)
        return Perceptron(
            width=settings.width,
            depth=DEPTH,
            activation=settings.activation,
            normalisation=settings.normalisation,
        )

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `macro_accuracy`, `worst_recall` (fractions) and `loss` (mean nats, unsmoothed).

        A class's recall is the share of its images that get its label; the macro accuracy is
        the mean of the classes' recalls, each counting alike, the worst recall their least.
        """
        labels = data["labels"]
        images = torch.split(data["images"], EVALUATION_BATCH)
        # The sums stay on the device, in float64: one synchronisation, no rounding that counts.
        right = torch.zeros(CLASSES, dtype=torch.float64, device=labels.device)
        loss = torch.zeros((), dtype=torch.float64, device=labels.device)
        for x, y in zip(images, torch.split(labels, EVALUATION_BATCH), strict=True):
            logits = model(x).float()
            right += torch.bincount(y, weights=logits.argmax(dim=1) == y, minlength=CLASSES)
            loss += F.cross_entropy(logits, y, reduction="sum")
        recalls = right / torch.bincount(labels, minlength=CLASSES)
        figures = torch.stack((recalls.mean(), recalls.min(), loss / len(labels)))
        macro_accuracy, worst_recall, mean_loss = figures.tolist()
        return {
            "macro_accuracy": macro_accuracy,
            "worst_recall": worst_recall,
            "loss": mean_loss,
        }
