"""deepmlp/digits: twenty layers of fifty ReLU units, from a start that lets the signal die out.

After Neelakantan et al. 2015, "Adding Gradient Noise Improves Learning for Very Deep Networks"
(1511.06807), whose noise lets plain gradient descent train 20 fully connected layers from a poor
initialisation. Here every weight is drawn from N(0, 0.14²): 50 units keep 0.7 of the signal's
size a layer, forward and backward, so the logits begin as good as equal for all images and the
gradients some 10³ times too small. Under N(0, 0.1²) AdamW stays at chance from some seeds.
"""

from itertools import pairwise
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
DEPTH = 20  # hidden layers
WEIGHT_STD = 0.14

SPLIT_SEED = 1797
COPIES = {"training": 8, "evaluation": 6, "test": 6}  # fixed distortions of each base image
MATRIX_RANGE = 6  # ± 0.09: rotation, shear and scale together
SHIFT_RANGE = 6  # ± 0.375 pixels


class DeepMLPSettings(ModelSettings, frozen=True, kw_only=True):
    """Units of a hidden layer, their activation, and the start of the weights."""

    width: int = 50
    activation: Literal["relu", "gelu", "tanh"] = "relu"
    initialisation: Literal["small", "he"] = "small"


class DeepPerceptron(nn.Module):
    """Inputs [B, 64] → `depth` layers of hidden units → logits [B, 10]; biases start at zero.

    `initialisation` is `small`, N(0, 0.14²) whatever the fan-in, or `he`, under which the
    signal keeps its size (He et al. 2015, "Delving Deep into Rectifiers", 1502.01852).
    """

    def __init__(self, *, width: int, depth: int, activation: str, initialisation: str) -> None:
        super().__init__()
        sizes = (FEATURES, *[width] * depth)
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.head = nn.Linear(width, CLASSES)
        self.activation = activation_function(activation)
        for layer in (*self.hidden, self.head):
            fan_in = layer.weight.shape[1]
            std = WEIGHT_STD if initialisation == "small" else (2 / fan_in) ** 0.5
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs
        for layer in self.hidden:
            x = self.activation(layer(x))
        logits: Tensor = self.head(x)
        return logits


class DeepMLPDigits(ImageClassification):
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
        settings = self.settings(DeepMLPSettings)
        return DeepPerceptron(
            width=settings.width,
            depth=DEPTH,
            activation=settings.activation,
            initialisation=settings.initialisation,
        )
