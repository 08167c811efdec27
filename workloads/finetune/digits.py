"""finetune/digits: odd or even, on digits turned by 40°, from a body trained on upright ones.

What is trained is a head on frozen features, 34 numbers: few enough for methods that see
losses only and no gradients, whose steps grow with the dimension they search.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.cards import ModelSettings
from harness.workload import PretrainedWorkload, canonical_weights
from workloads.digit_images import (
    CLASSES,
    PIXELS,
    base_images,
    distort,
    random_distortions,
    split_ids,
)
from workloads.image_classification import ImageClassification

FEATURES = 16
PARITIES = 2  # 0: even, 1: odd

SPLIT_SEED = 1797
COPIES = {"training": 8, "evaluation": 13, "test": 13}  # fixed distortions of each base image
MATRIX_RANGE = 8  # ± 0.13: rotation, shear and scale together, around the turn
SHIFT_RANGE = 10  # ± 0.63 pixels
# Turned by 40°: 64 (cos 40° - 1) = -15.0 and 64 sin 40° = 41.1.
TURN = ((-15, -41), (41, -15))

PRETRAINING_SEED = 0
PRETRAINING_STEPS = 1000
PRETRAINING_BATCH = 64
PRETRAINING_LR = 3e-3
PRETRAINING_COPIES = 4
PRETRAINING_MATRIX_RANGE = 6
PRETRAINING_SHIFT_RANGE = 8
WEIGHT_UNIT = 1024  # pre-trained weights are multiples of 1/1024


_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


class FinetuneSettings(ModelSettings, frozen=True, kw_only=True):
    """The frozen body's hidden units and their activation."""

    width: int = 64
    activation: Literal["relu", "tanh", "gelu"] = "relu"


class Classifier(nn.Module):
    """Inputs [B, 64] → hidden units → 16 features, normalised → logits [B, classes].

    Each example's features are centred and scaled on their own: no statistics of a batch,
    which a probe with perturbed weights would disturb.
    """

    def __init__(self, classes: int, settings: FinetuneSettings) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(PIXELS * PIXELS, settings.width),
            _ACTIVATIONS[settings.activation](),
            nn.Linear(settings.width, FEATURES),
            nn.LayerNorm(FEATURES, elementwise_affine=False),
        )
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(inputs))
        return logits


class FinetuneDigits(ImageClassification, PretrainedWorkload):
    """The 7,976 training examples are the same in every epoch and every run."""

    classes = PARITIES
    image_shape = (PIXELS * PIXELS,)

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `images` float32 [N, 64] in 0 … 1, `labels` int64 [N], 1 for odd.

        The copies of one base image stand together, and all in one split.
        """
        import numpy as np

        images, labels = base_images()
        random = np.random.RandomState(SPLIT_SEED)
        turn = torch.tensor(TURN)
        splits = {}
        for name, base_ids in split_ids(labels, random).items():
            ids = base_ids.repeat_interleave(COPIES[name])
            matrix, shift = random_distortions(random, len(ids), MATRIX_RANGE, SHIFT_RANGE)
            distorted = distort(images[ids], matrix + turn, shift).flatten(1)
            splits[name] = {"images": distorted, "labels": labels[ids] % PARITIES}
        return splits

    def pretrain(self) -> dict[str, Tensor]:
        """Return a body trained to tell the ten digits apart upright, and a head made from its own.

        The odd digits' row of the head is the mean of their five rows, the even ones' likewise.
        Only base images of the training split are seen. 1,000 steps of Adam on one thread, with
        a linear decay, in float64 and then rounded to multiples of 1/1024: processors differ by
        some 1e-15 in what they reach, so all start fine-tuning from the same bytes. The thread
        count and the global generator are put back.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                torch.manual_seed(PRETRAINING_SEED)
                trained = _trained_on_upright_digits(self.settings(FinetuneSettings))
        finally:
            torch.set_num_threads(threads)
        weights = canonical_weights(trained)
        for name in self.head_parameters:
            rows = weights[name]
            weights[name] = torch.stack([rows[kind::PARITIES].mean(0) for kind in range(PARITIES)])
        return {
            name: ((tensor.detach() * WEIGHT_UNIT).round() / WEIGHT_UNIT).float()
            for name, tensor in weights.items()
        }

    def build_model(self) -> nn.Module:
        """Return the classifier for two classes, its body frozen (`requires_grad` is off)."""
        model = Classifier(PARITIES, self.settings(FinetuneSettings))
        model.body.requires_grad_(False)
        return model


def _trained_on_upright_digits(settings: FinetuneSettings) -> Classifier:
    import numpy as np

    images, labels = base_images()
    random = np.random.RandomState(SPLIT_SEED)
    ids = split_ids(labels, random)["training"].repeat_interleave(PRETRAINING_COPIES)
    distortions = random_distortions(
        random, len(ids), PRETRAINING_MATRIX_RANGE, PRETRAINING_SHIFT_RANGE
    )
    inputs, targets = distort(images[ids].double(), *distortions).flatten(1), labels[ids]
    model = Classifier(CLASSES, settings).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=PRETRAINING_LR, fused=True)
    for step in range(PRETRAINING_STEPS):
        optimizer.param_groups[0]["lr"] = PRETRAINING_LR * (1 - step / PRETRAINING_STEPS)
        batch = torch.randint(len(ids), (PRETRAINING_BATCH,))
        loss = F.cross_entropy(model(inputs[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model
