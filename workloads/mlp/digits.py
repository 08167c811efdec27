"""mlp/digits: a perceptron with one hidden layer on digits as 64 numbers without geometry.

Every example is a fixed distortion of one of scikit-learn's handwritten digits, so that an id
always means the same inputs and a stage-wise method may keep what it computed for them.
"""

from typing import Literal

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
from workloads.image_classification import ImageClassification

FEATURES = PIXELS * PIXELS
SPLIT_SEED = 1797
COPIES = {"training": 8, "evaluation": 13, "test": 13}  # fixed distortions of each base image
MATRIX_RANGE = 12  # ± 0.19: rotation, shear and scale together
SHIFT_RANGE = 12  # ± 0.75 pixels


class MLPSettings(ModelSettings, frozen=True, kw_only=True):
    """Hidden units and their activation."""

    width: int = 1024
    activation: Literal["tanh", "relu", "gelu"] = "tanh"


class Perceptron(nn.Module):
    """Inputs [B, 64] → a layer of hidden units → logits [B, 10].

    An additive model in its hidden units: gradient boosting can build it a group of units at a
    time (Emami & Martínez-Muñoz 2023, "Sequential Training of Neural Networks With Gradient
    Boosting", IEEE Access 11).
    """

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, width)
        self.head = nn.Linear(width, CLASSES)
        self.activation = activation_function(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.activation(self.hidden(inputs)))
        return logits


class MLPDigits(ImageClassification):
    """No augmentation: the 7,976 training examples are the same in every epoch and every run."""

    classes = CLASSES
    image_shape = (FEATURES,)

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `images` float32 [N, 64] in 0 … 1, `labels` int64 [N].

        The copies of one base image stand together, and all in one split.
        """
        import numpy as np

        images, labels = base_images()
        random = np.random.RandomState(SPLIT_SEED)
        splits = {}
        for name, base_ids in split_ids(labels, random).items():
            ids = base_ids.repeat_interleave(COPIES[name])
            distortions = random_distortions(random, len(ids), MATRIX_RANGE, SHIFT_RANGE)
            distorted = distort(images[ids], *distortions).flatten(1)
            splits[name] = {"images": distorted, "labels": labels[ids]}
        return splits

    def build_model(self) -> nn.Module:
        settings = self.settings(MLPSettings)
        return Perceptron(settings.width, settings.activation)
