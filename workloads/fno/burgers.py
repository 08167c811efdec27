"""fno/burgers: learn the operator from a velocity field to the one that Burgers' flow makes of it.

Li et al. 2021, "Fourier Neural Operator for Parametric Partial Differential Equations"
(2010.08895), section 5.1: u_t + (u² ÷ 2)_x = ν u_xx on a circle of circumference 1, from
Gaussian random fields at time 0 to time 1. Here ν is a tenth of the paper's and the fields have
half its amplitude, so that shocks form instead of everything decaying to one sine; and the grid
has 64 points. The equation is solved by this file. Nothing is downloaded.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from harness.cards import ModelSettings
from harness.workload import Workload
from workloads.fno.model import FNO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POINTS = 64  # of the grid that the model sees
VISCOSITY = 0.01
FINAL_TIME = 1.0
INITIAL_MODES = 8  # the field's further coefficients would be under 1 % of the first

SOLVER_POINTS = 128
SOLVER_STEPS = 80
SOLVER_BATCH = 64  # fields that are solved together: they stay in the cache

SPLIT_SIZES = {"training": 1024, "evaluation": 512, "test": 512}
DATA_SEED = 2010_08895
# Values are rounded to multiples of this. What processors make of one another's last bits
# differs by under 1e-14 at the end; no value of this data lies within 1e-11 of a boundary
# between two multiples, so none can round apart (a test measures both).
RESOLUTION = 2.0**-14

COEFFICIENT_DRAWS = 4  # uniform ones, summed to nearly a normal one
COEFFICIENT_RANGE = 2**15
EVALUATION_BATCH = 128


def solve_burgers(
    initial: "NDArray[np.float64]",
    *,
    viscosity: float,
    time: float,
    steps: int,
) -> "NDArray[np.float64]":
    """Return the solutions [B, N] at `time` that start from `initial` [B, N] on [0, 1).

    Fourier collocation in conservation form, the upper third of the modes held at zero
    (Orszag's two-thirds rule), and the classical Runge–Kutta method of fourth order under an
    integrating factor, which treats the diffusion exactly.
    """
    import numpy as np

    points = initial.shape[1]
    mode = np.arange(points // 2 + 1)
    wave = 2 * np.pi * mode
    kept = mode <= points // 3
    h = time / steps
    half = np.exp(-viscosity * wave**2 * h / 2)  # diffusion over half a step
    whole = half * half

    def advection(u_hat: "NDArray[np.complex128]") -> "NDArray[np.complex128]":
        square = np.fft.irfft(u_hat, n=points, axis=1) ** 2
        rate: NDArray[np.complex128] = -0.5j * wave * kept * np.fft.rfft(square, axis=1)
        return rate

    u_hat = np.fft.rfft(initial, axis=1) * kept
    for _ in range(steps):
        a = advection(u_hat)
        b = advection(half * (u_hat + h / 2 * a))
        c = advection(half * u_hat + h / 2 * b)
        d = advection(whole * u_hat + h * half * c)
        u_hat = whole * u_hat + h / 6 * (whole * a + 2 * half * (b + c) + d)
    solution: NDArray[np.float64] = np.fft.irfft(u_hat, n=points, axis=1)
    return solution


def random_fields(
    random: "np.random.RandomState", number: int, points: int
) -> "NDArray[np.float64]":
    """Return draws [number, points] of nearly a Gaussian field of mean 0 on [0, 1).

    The covariance is 12.5² (25 - d²/dx²)^-2; the coefficients are sums of uniform integers.
    """
    import numpy as np

    shape = (number, COEFFICIENT_DRAWS, 2, INITIAL_MODES)
    sums = random.randint(-COEFFICIENT_RANGE, COEFFICIENT_RANGE + 1, size=shape).sum(axis=1)
    coefficients = sums / (COEFFICIENT_RANGE * (COEFFICIENT_DRAWS / 3) ** 0.5)  # sd 1
    wave = 2 * np.pi * np.arange(1, INITIAL_MODES + 1)
    coefficients *= 2**0.5 * 12.5 / (wave**2 + 25)
    angle = wave[:, None] * np.arange(points) / points
    fields: NDArray[np.float64] = coefficients[:, 0] @ np.cos(angle)
    fields += coefficients[:, 1] @ np.sin(angle)
    return fields


def unrounded_pairs() -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Return every field and its solution, [examples, POINTS] each, before rounding."""
    import numpy as np

    random = np.random.RandomState(DATA_SEED)
    fields = random_fields(random, sum(SPLIT_SIZES.values()), SOLVER_POINTS)
    solutions = np.concatenate(
        [
            solve_burgers(batch, viscosity=VISCOSITY, time=FINAL_TIME, steps=SOLVER_STEPS)
            for batch in np.split(fields, len(fields) // SOLVER_BATCH)
        ]
    )
    every = SOLVER_POINTS // POINTS
    return fields[:, ::every], solutions[:, ::every]


class FNOSettings(ModelSettings, frozen=True, kw_only=True):
    """Channels, modes a layer mixes, layers, hidden units of the projection, activation."""

    width: int = 24
    modes: int = 12
    depth: int = 4
    projection_width: int = 64
    activation: Literal["gelu", "tanh", "silu"] = "gelu"


class FNOBurgers(Workload):
    """Regression from fields to fields; loss and metric are the paper's relative L2 error."""

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `initial` and `final`, float32 [N, POINTS] each.

        The `RandomState` stream is frozen by NumPy (NEP 19), and rounding to `RESOLUTION`
        takes off what processors and FFT libraries differ in.
        """
        import numpy as np

        tensors = [
            # Plus zero: the sign of -0.0 would be that of a last bit.
            torch.from_numpy((np.rint(values / RESOLUTION) * RESOLUTION + 0.0).astype(np.float32))
            for values in unrounded_pairs()
        ]
        pieces = [tensor.split(list(SPLIT_SIZES.values())) for tensor in tensors]
        return {
            name: {"initial": initial.contiguous(), "final": final.contiguous()}
            for name, initial, final in zip(SPLIT_SIZES, *pieces, strict=True)
        }

    def build_model(self) -> nn.Module:
        settings = self.settings(FNOSettings)
        return FNO(
            width=settings.width,
            modes=settings.modes,
            depth=settings.depth,
            projection_width=settings.projection_width,
            activation=settings.activation,
        )

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return the fields at time 0 and at the final time, float32 [B, POINTS] both."""
        return data["initial"].index_select(0, indices), data["final"].index_select(0, indices)

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return white noise for both fields, on the generator's device."""
        initial, final = torch.randn(
            2, batch_size, POINTS, generator=generator, device=generator.device
        )
        return initial, final

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return ‖output - target‖ ÷ ‖target‖ of each example, shape [B].

        Raises:
            ValueError: labels were to be smoothed, and a function has none.
        """
        if label_smoothing:
            raise ValueError(f"a regression has no labels to smooth, got {label_smoothing}")
        return relative_l2(outputs, targets)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `relative_l2`, the mean over the split's examples."""
        pairs = zip(
            data["initial"].split(EVALUATION_BATCH),
            data["final"].split(EVALUATION_BATCH),
            strict=True,
        )
        # The sum stays on the device, in float64: one synchronisation.
        total = torch.zeros((), dtype=torch.float64, device=data["initial"].device)
        for initial, final in pairs:
            total += relative_l2(model(initial).double(), final.double()).sum()
        return {"relative_l2": total.item() / len(data["initial"])}


def relative_l2(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return ‖output - target‖ ÷ ‖target‖ along the last dimension."""
    size: Tensor = torch.linalg.vector_norm(targets, dim=-1)
    error: Tensor = torch.linalg.vector_norm(outputs - targets, dim=-1) / size
    return error
