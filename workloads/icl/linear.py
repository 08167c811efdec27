"""icl/linear: a transformer learns to do linear regression on the examples in its context.

Garg et al. 2022, "What Can Transformers Learn In-Context? A Case Study of Simple Function
Classes" (2208.01066), with noise: every sequence has weights of its own, w ~ N(0, I/d), and
shows x₁, y₁, x₂, y₂, …, where yₜ = w·xₜ + noise; at each xₜ the model predicts yₜ from the pairs
before it. No predictor does better than ridge regression with penalty λ = σ² d, the posterior
mean, so the limit of the loss is known in closed form. Nothing is downloaded.
"""

import statistics
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from harness.cards import ModelSettings
from harness.workload import Workload
from workloads.icl.model import VectorTransformer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIMENSION = 4  # d: a quarter is a power of two, so that the weights' scale 1/√d is exact
PAIRS = 8  # (x, y) of a sequence
# On a CPU with 16 float32 lanes a softmax over 16 positions is far faster than one over 15, so
# the last y is read although nothing is predicted after it.
CONTEXT = 2 * PAIRS
NOISE = 0.5  # σ, the noise's standard deviation
PENALTY = NOISE**2 * DIMENSION  # λ of the ridge regression that is optimal

TRAINING_EXAMPLES = 50_000
HELD_OUT_EXAMPLES = 2_000  # in evaluation and again in test
DATA_SEED = 2208_01066
# Gaussian draws are uniform ones among this many quantiles, in units of 1/256: then x, w, the
# noise and the ys are exact in float32, whatever the processor.
QUANTILES = 4096
UNIT = 256
EVALUATION_BATCH = 128


class ICLSettings(ModelSettings, frozen=True, kw_only=True):
    """The transformer's size, and how its residual branches start."""

    width: int = 48
    depth: int = 2
    heads: int = 6
    residual: Literal["scaled", "full"] = "scaled"


@cache
def gaussian_table() -> "NDArray[np.float64]":
    """Return the standard normal's quantiles at (i + ½)/QUANTILES, rounded to 1/UNIT.

    None lies so near a rounding boundary that the last bit of a logarithm could move it.
    """
    import numpy as np

    quantile = statistics.NormalDist().inv_cdf
    exact = np.array([quantile((i + 0.5) / QUANTILES) for i in range(QUANTILES)])
    rounded: NDArray[np.float64] = np.round(exact * UNIT) / UNIT
    return rounded


def read_along(x: Tensor, y: Tensor) -> Tensor:
    """Return pairs x [B, T, d], y [B, T] as vectors [B, 2T, d + 1]: (0, x₁), (y₁, 0) and so on."""
    vectors = x.new_zeros(*y.shape, 2, x.shape[-1] + 1)
    vectors[:, :, 0, 1:] = x
    vectors[:, :, 1, 0] = y
    return vectors.flatten(1, 2)


def ridge_predictions(x: Tensor, y: Tensor) -> Tensor:
    """Return ridge regression's predictions of y [B, T] from the pairs before each, float64.

    Updates (XᵀX + λI)⁻¹ and the weights pair by pair (Sherman–Morrison): no matrix is solved for.
    """
    x, y = x.double(), y.double()
    inverse = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
    inverse = inverse / PENALTY
    weights = torch.zeros_like(x[:, 0])
    predictions = []
    for input_, truth in zip(x.unbind(1), y.unbind(1), strict=True):
        prediction = (weights * input_).sum(dim=1)
        predictions.append(prediction)
        direction = (inverse * input_[:, None]).sum(dim=2)
        gain = direction / (1 + (direction * input_).sum(dim=1, keepdim=True))
        weights = weights + gain * (truth - prediction)[:, None]
        inverse = inverse - gain[:, :, None] * direction[:, None]
    return torch.stack(predictions, dim=1)


class ICLLinear(Workload):
    """Loss and metric are the mean squared error over all pairs of a sequence.

    E[(w·x)²] is 1, so the error needs no further normalisation.
    """

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `x` float32 [N, PAIRS, DIMENSION] and `y` float32 [N, PAIRS].

        The `RandomState` streams are frozen by NumPy (NEP 19), `Generator`'s are not.
        """
        import numpy as np

        random = np.random.RandomState(DATA_SEED)
        table = gaussian_table()
        sizes = {
            "training": TRAINING_EXAMPLES,
            "evaluation": HELD_OUT_EXAMPLES,
            "test": HELD_OUT_EXAMPLES,
        }
        splits = {}
        for name, size in sizes.items():
            x = table[random.randint(QUANTILES, size=(size, PAIRS, DIMENSION))]
            weights = table[random.randint(QUANTILES, size=(size, 1, DIMENSION))]
            noise = table[random.randint(QUANTILES, size=(size, PAIRS))]
            y = (x * weights).sum(axis=2) * DIMENSION**-0.5 + NOISE * noise
            splits[name] = {"x": torch.from_numpy(x).float(), "y": torch.from_numpy(y).float()}
        return splits

    def build_model(self) -> nn.Module:
        settings = self.settings(ICLSettings)
        return VectorTransformer(
            features=DIMENSION + 1,
            context=CONTEXT,
            width=settings.width,
            depth=settings.depth,
            heads=settings.heads,
            scaled=settings.residual == "scaled",
        )

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return vectors float32 [B, CONTEXT, DIMENSION + 1] and ys float32 [B, PAIRS]."""
        y = data["y"].index_select(0, indices)
        return read_along(data["x"].index_select(0, indices), y), y

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return standard normal xs and ys without relation, on the generator's device."""
        device = generator.device
        x = torch.randn(batch_size, PAIRS, DIMENSION, generator=generator, device=device)
        y = torch.randn(batch_size, PAIRS, generator=generator, device=device)
        return read_along(x, y), y

    def per_example_loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        label_smoothing: float,  # noqa: ARG002 - there are no labels
    ) -> Tensor:
        """Return each sequence's mean squared error, shape [B]."""
        return (outputs - targets).square().mean(dim=1)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `loss` (mean squared error) and `excess`, by how much ridge regression's is less.

        The ridge regression is made anew from the same pairs: about 1 ms.
        """
        x, y = data["x"], data["y"]
        # The sum stays on the device, in float64: one synchronisation, no rounding that counts.
        total = torch.zeros((), dtype=torch.float64, device=y.device)
        for inputs, targets in zip(
            x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True
        ):
            outputs = model(read_along(inputs, targets)).double()
            total += (outputs - targets).square().sum()
        least = (ridge_predictions(x, y) - y).square().mean()
        loss, excess = torch.stack((total / y.numel(), total / y.numel() - least)).tolist()
        return {"loss": loss, "excess": excess}
