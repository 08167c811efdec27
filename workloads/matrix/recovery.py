"""matrix/recovery: a low-rank matrix from measurements of which a quarter are grossly wrong.

Ma & Fattahi 2022, "Global Convergence of Sub-gradient Method for Robust Matrix Recovery: Small
Initialization, Noisy Measurements, and Over-parameterization" (2202.08788): a positive
semidefinite X* is seen through y = ⟨A, X*⟩ + s. Its rank is taken to be unknown, so it is sought
as U Uᵀ with U square; the absolute error keeps outliers s from counting by their size; and with a
small start, steps along the subgradient leave the directions that X* lacks small. Optimizers that
even out their steps undo the last: AdamW has to unlearn those directions.

The loss is neither convex nor smooth, and a poor guide to the metric: at the solution it is as
large as the outliers make it, and an error of a hundredth adds half a per cent to it. There are
twice as many measurements as X has unknowns; with fewer than unknowns, some fits explain the
outliers too, and training ends there. Nothing is downloaded.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.cards import ModelSettings
from harness.workload import Workload

if TYPE_CHECKING:
    from numpy.random import RandomState
    from numpy.typing import NDArray

SIZE = 64  # n: X* has n (n + 1) / 2 = 2,080 entries that differ
WEIGHTS = (4, 3, 2)  # of the factor's columns: X*'s eigenvalues are about as 16 to 9 to 4
RANK = len(WEIGHTS)
MEASUREMENTS = {"training": 4_096, "evaluation": 1_024, "test": 1_024}
CORRUPTED = 4  # one measurement in so many
OUTLIER = 8  # largest error of a corrupted one; the others spread by ‖X*‖, about 0.9
DATA_SEED = 2202_08788
FACTOR_LIMIT = 8  # the factor's entries are whole numbers up to this, times the weight
UNIT = 1 << 15  # X* and what is measured are whole multiples of 1/UNIT
EVALUATION_BATCH = 256


class RecoverySettings(ModelSettings, frozen=True, kw_only=True):
    """How many columns U has, and the standard deviation of its entries at the start."""

    columns: int = SIZE
    initial_std: float = 1e-3


class SquaredFactor(nn.Module):
    """Measuring matrices [B, n, n] → their inner products with U Uᵀ, [B]."""

    def __init__(self, settings: RecoverySettings) -> None:
        super().__init__()
        self.factor = nn.Parameter(settings.initial_std * torch.randn(SIZE, settings.columns))

    def product(self) -> Tensor:
        """Return U Uᵀ, the estimate of X*, [n, n]."""
        return self.factor @ self.factor.T

    def forward(self, matrices: Tensor) -> Tensor:
        outputs: Tensor = matrices.flatten(1) @ self.product().flatten()
        return outputs


def draw_truth(random: "RandomState") -> "NDArray[Any]":
    """Return UNIT × X*, int64 [n, n]: positive semidefinite, of rank `RANK`."""
    import numpy as np

    factor = random.randint(-FACTOR_LIMIT, FACTOR_LIMIT + 1, size=(SIZE, RANK)) * np.array(WEIGHTS)
    product: NDArray[Any] = factor @ factor.T
    return product


def measure(
    random: "RandomState", truth: "NDArray[Any]", n: int
) -> tuple["NDArray[Any]", "NDArray[Any]"]:
    """Return n matrices of random signs, int8 [n, SIZE, SIZE], and UNIT × measurements, int64 [n].

    Signs have the moments of the paper's normal entries that matter, mean 0 and variance 1, and
    their sums are exact. The outliers lie anywhere, evenly between ±`OUTLIER`.
    """
    import numpy as np

    signs = 2 * random.randint(2, size=(n, SIZE, SIZE), dtype=np.int8) - 1
    # Float64 sums of whole numbers this small are exact in any order.
    measured = (signs.reshape(n, -1).astype(np.float64) @ truth.ravel()).astype(np.int64)
    wrong = random.permutation(n)[: n // CORRUPTED]
    measured[wrong] += random.randint(-OUTLIER * UNIT, OUTLIER * UNIT + 1, size=len(wrong))
    return signs, measured


def recovery_error(estimate: Tensor, truth: Tensor) -> Tensor:
    """Return ‖estimate - X*‖ ÷ ‖X*‖ in Frobenius norms: 1 for the zero matrix."""
    error: Tensor = torch.linalg.matrix_norm(estimate - truth) / torch.linalg.matrix_norm(truth)
    return error


class MatrixRecovery(Workload):
    """Trains on measurements; the metric is the distance from X*, which training never sees."""

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `matrices` int8 [N, n, n], `measured` float32 [N].

        The held-back ones also have `truth`, X* in float64 [n, n], the same in both: there is
        one matrix to find. The `RandomState` streams are frozen by NumPy (NEP 19),
        `Generator`'s are not.
        """
        import numpy as np

        random = np.random.RandomState(DATA_SEED)
        truth = draw_truth(random)
        splits = {}
        for name, n in MEASUREMENTS.items():
            signs, measured = measure(random, truth, n)
            splits[name] = {
                "matrices": torch.from_numpy(signs),
                "measured": torch.from_numpy((measured / UNIT).astype(np.float32)),
            }
            if name != "training":
                splits[name]["truth"] = torch.from_numpy(truth / UNIT)
        return splits

    def build_model(self) -> nn.Module:
        return SquaredFactor(self.settings(RecoverySettings))

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return matrices [B, n, n] and what they measured [B], float32."""
        # On a CPU many times faster than `[indices]`, which copies byte by byte.
        matrices = data["matrices"].index_select(0, indices)
        return matrices.float(), data["measured"][indices]

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return normal matrices and unrelated measurements, on the generator's device."""
        device = generator.device
        matrices = torch.randn(batch_size, SIZE, SIZE, generator=generator, device=device)
        return matrices, torch.randn(batch_size, generator=generator, device=device)

    def per_example_loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        label_smoothing: float,  # noqa: ARG002 - there are no labels
    ) -> Tensor:
        """Return the absolute errors, shape [B]; their gradient is 0 where they are."""
        return (outputs - targets).abs()

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `recovery_error`, and `loss`: the mean absolute error on fresh measurements.

        A quarter of these are wrong as well, so the loss of X* itself is far from 0.
        """
        assert isinstance(model, SquaredFactor)
        error = recovery_error(model.product().double(), data["truth"])
        total = torch.zeros_like(error)
        for matrices, measured in zip(
            data["matrices"].split(EVALUATION_BATCH),
            data["measured"].split(EVALUATION_BATCH),
            strict=True,
        ):
            total += (model(matrices.float()) - measured).abs().double().sum()
        found, loss = torch.stack((error, total / len(data["measured"]))).tolist()
        return {"recovery_error": found, "loss": loss}
