"""logistic/separable: logistic regression goes on after every example is classified.

On separable data accuracy is perfect early, the loss has no minimum, and the direction turns
slowly towards the separator of largest margin (Soudry et al. 2018, "The Implicit Bias of Gradient
Descent on Separable Data", 1710.10345). Loss and direction part ways: ever larger steps lower
the one and spoil the other (Tyurin 2024, "From Logistic Regression to the Perceptron
Algorithm", 2412.08424). The metric is the margin as a share of the largest one.

Most examples also carry a misleading feature that sorts them well. Those nearest the boundary
come in pairs that lie on either side of the best direction in all else, and they decide it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.cards import ModelSettings
from harness.workload import Workload

if TYPE_CHECKING:
    from numpy.random import RandomState
    from numpy.typing import NDArray

FEATURES = 1024  # 4^5: the rotation has entries ±1/32
ROOT = 32
EXAMPLES = {"training": 8_192, "evaluation": 2_048, "test": 2_048}
PAIRED_SHARE = 16  # one example in so many lies on the margin, with its partner next to it
UNIT = 64  # margins and features are whole multiples of 1/64
MARGIN = 1.0
EXTRA = 2  # margins beyond the margin, at most
MISLEADING = 4  # of the misleading feature, in margins
SCALES = 6  # features spread over ±1, ±1/2 … ±1/32
DATA_SEED = 2412_08424
EVALUATION_BATCH = 1024


class LogisticSettings(ModelSettings, frozen=True, kw_only=True):
    """What the weights start from, and whether there is a constant."""

    initialisation: Literal["normal", "zero"] = "normal"
    constant: Literal["no", "yes"] = "no"


class LogisticRegression(nn.Module):
    """Features [B, F] → logits [B, 2]; the separator is the difference of the two rows."""

    def __init__(self, features: int, settings: LogisticSettings) -> None:
        super().__init__()
        self.head = nn.Linear(features, 2, bias=settings.constant == "yes")
        for parameter in self.head.parameters():
            if settings.initialisation == "zero" or parameter.ndim == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=features**-0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs)
        return logits


def rotation() -> "NDArray[Any]":
    """Return the Walsh-Hadamard matrix, int64 [F, F] of ±1; over `ROOT` it is orthogonal."""
    import numpy as np

    matrix = np.ones((1, 1), dtype=np.int64)
    while len(matrix) < FEATURES:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def draw(random: "RandomState", n: int) -> tuple["NDArray[Any]", "NDArray[Any]"]:
    """Return features before rotation in units of 1/64, int64 [n, F], and labels int64 [n].

    Along the first axis, examples lie at the margin (pairs) or beyond it; along the second the
    others are misled; the rest is spread evenly over scales that fall to a thirty-second.
    """
    import numpy as np

    signs = 2 * random.randint(2, size=n) - 1
    aligned = random.randint(-UNIT, UNIT + 1, size=(n, FEATURES)) >> np.arange(FEATURES) % SCALES
    aligned[:, 0] = UNIT + random.randint(EXTRA * UNIT, size=n)
    aligned[:, 1] += MISLEADING * UNIT
    paired = n // PAIRED_SHARE
    aligned[:paired, 0] = UNIT
    aligned[1:paired:2, 1:] = -aligned[:paired:2, 1:]
    return signs[:, None] * aligned, (signs + 1) // 2


class SeparableLogistic(Workload):
    """The metric is the least margin of the held-back split over the largest possible."""

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `features` float32 [N, 1024] and `labels` int64 [N].

        Sums of whole numbers over a power of two: exact. The `RandomState` streams are frozen
        by NumPy (NEP 19), `Generator`'s are not.
        """
        import numpy as np

        random = np.random.RandomState(DATA_SEED)
        # Products of float64 matrices of whole numbers this small are exact in any order.
        rotated = rotation().astype(np.float64)
        splits = {}
        for name, n in EXAMPLES.items():
            features, labels = draw(random, n)
            turned = features.astype(np.float64) @ rotated / (UNIT * ROOT)
            splits[name] = {
                "features": torch.from_numpy(turned.astype(np.float32)),
                "labels": torch.from_numpy(labels),
            }
        return splits

    def build_model(self) -> nn.Module:
        return LogisticRegression(FEATURES, self.settings(LogisticSettings))

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return features float32 [B, 1024] and labels int64 [B]."""
        return data["features"].index_select(0, indices), data["labels"].index_select(0, indices)

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return normal noise as features and uniform labels, on the generator's device."""
        device = generator.device
        features = torch.randn(batch_size, FEATURES, generator=generator, device=device)
        return features, torch.randint(2, (batch_size,), generator=generator, device=device)

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the logistic losses in nats, shape [B]."""
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `margin_share`, `accuracy` (a fraction) and `loss` (in nats, unsmoothed).

        The share is the least signed distance from the separator over the split, as a multiple
        of the largest least distance that any separator has; 1 at best, below 0 where an
        example is misclassified. Float64 throughout: losses near the end are tiny.
        """
        features, labels = data["features"], data["labels"]
        assert isinstance(model, LogisticRegression)
        weights = model.head.weight.double()
        separator = weights[1] - weights[0]
        constants = dict(model.named_parameters()).get("head.bias")
        offset = 0.0 if constants is None else (constants[1] - constants[0]).double()
        distances = []
        for x, y in zip(
            features.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True
        ):
            distances.append((x.double() @ separator + offset) * (2 * y - 1))
        signed = torch.cat(distances)
        found = torch.stack(
            (
                signed.min() / (separator.norm() * MARGIN),
                (signed > 0).double().mean(),
                F.softplus(-signed).mean(),
            )
        )
        share, accuracy, loss = found.tolist()
        return {"margin_share": share, "accuracy": accuracy, "loss": loss}
