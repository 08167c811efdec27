"""pinn/allen-cahn: solve a reaction–diffusion equation by training on its residuals alone.

Wang, Sankaran & Perdikaris 2022, "Respecting causality is all you need for training
physics-informed neural networks" (2203.07404), section 4: u_t = D u_xx + 5u - 5u³ on
[-1, 1] × [0, T], periodic in x, from u(0, x) = x² cos(πx). The paper has D = 0.0001 and T = 1,
which takes hours of a graphics card; here D and T are such that a core needs seconds. No
value of the solution but the initial ones is ever trained on; the metric compares with a
spectral solution of this file. Everything is float64: second derivatives and small residuals
lose too much in float32. Nothing is downloaded.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from harness.cards import ModelSettings
from harness.workload import Workload
from workloads.pinn.model import Activation, PeriodicPerceptron

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIFFUSION = 0.01
REACTION = 5.0
END_TIME = 0.25

SLICES = 32  # instants at which the residual is asked for
POINTS_PER_SLICE = 128
INITIAL_POINTS = 256
INITIAL_WEIGHT = 100.0  # of a squared error at t = 0 against a squared residual; the paper's
DATA_SEED = 2203_07404
PLACE_STEPS = 2**20  # interior places are multiples of 2 ÷ this

SOLVER_POINTS = 2048
SOLVER_STEPS = 128
HELD_OUT_TIMES = 32
HELD_OUT_PLACES = 64
# Held-out values are rounded to multiples of this, initial ones as well. No value lies within
# 1e-12 of a boundary between two multiples; what last bits come to is less than a fiftieth of that.
RESOLUTION = 2.0**-20
EVALUATION_BATCH = 2048


def solve_allen_cahn(
    initial: "NDArray[np.float64]", *, diffusion: float, time: float, steps: int, every: int
) -> "NDArray[np.float64]":
    """Return the solution at every `every`-th step, [steps ÷ every, N], from `initial` [N].

    Fourier collocation on [-1, 1), the upper half of the modes without reaction, and the
    classical Runge–Kutta method of fourth order under an integrating factor, which treats the
    diffusion exactly.
    """
    import numpy as np

    points = len(initial)
    mode = np.arange(points // 2 + 1)
    kept = mode <= points // 4  # a cubic's aliases fall outside
    h = time / steps
    half = np.exp(-diffusion * (np.pi * mode) ** 2 * h / 2)
    whole = half * half

    def reaction(u_hat: "NDArray[np.complex128]") -> "NDArray[np.complex128]":
        u = np.fft.irfft(u_hat, n=points)
        rate: NDArray[np.complex128] = kept * np.fft.rfft(REACTION * (u - u**3))
        return rate

    u_hat = np.fft.rfft(initial)
    solutions = []
    for step in range(1, steps + 1):
        a = reaction(u_hat)
        b = reaction(half * (u_hat + h / 2 * a))
        c = reaction(half * u_hat + h / 2 * b)
        d = reaction(whole * u_hat + h * half * c)
        u_hat = whole * u_hat + h / 6 * (whole * a + 2 * half * (b + c) + d)
        if step % every == 0:
            solutions.append(np.fft.irfft(u_hat, n=points))
    return np.stack(solutions)


def initial_value(x: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return u(0, x) = x² cos(πx)."""
    import numpy as np

    value: NDArray[np.float64] = x**2 * np.cos(np.pi * x)
    return value


def circle(points: int) -> "NDArray[np.float64]":
    """Return equidistant points of [-1, 1), exact in binary for a power of two."""
    import numpy as np

    places: NDArray[np.float64] = np.arange(points, dtype=np.float64) * (2 / points) - 1
    return places


def unrounded_solution() -> "tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]":
    """Return times [T], places [P] and the solution there, [T, P], before rounding."""
    import numpy as np

    grid = circle(SOLVER_POINTS)
    instants = 2 * HELD_OUT_TIMES
    solution = solve_allen_cahn(
        initial_value(grid),
        diffusion=DIFFUSION,
        time=END_TIME,
        steps=SOLVER_STEPS,
        every=SOLVER_STEPS // instants,
    )
    apart = SOLVER_POINTS // (2 * HELD_OUT_PLACES)
    times = np.arange(1, instants + 1, dtype=np.float64) * (END_TIME / instants)
    return times, grid[::apart], solution[:, ::apart]


class PINNSettings(ModelSettings, frozen=True, kw_only=True):
    """Hidden units, hidden layers, harmonics among the features, activation."""

    width: int = 32
    depth: int = 3
    harmonics: int = 4
    activation: Activation = "tanh"


class PINNAllenCahn(Workload):
    """Examples are fixed collocation points: the initial ones, then the interior slice by slice.

    The loss of an interior point is its squared residual, that of an initial one its squared
    error times `INITIAL_WEIGHT`. The group is 0 for the initial points and 1 … `SLICES` for
    those at t = T · group ÷ `SLICES`, so that a method can weigh them in the order of time.
    """

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.linear.weight"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `points` float64 [N, 2] (t, x) and `values` float64 [N].

        In training also `groups` int64 [N], and `values` is 0 but at t = 0. The held-out splits
        are two grids in space and time without a point in common, with the solution's values.
        The `RandomState` stream is frozen by NumPy (NEP 19) and coordinates are exact; rounding
        to `RESOLUTION` takes off what processors and FFT libraries differ in.
        """
        import numpy as np

        random = np.random.RandomState(DATA_SEED)
        draws = random.randint(0, PLACE_STEPS, size=(SLICES, POINTS_PER_SLICE)).astype(np.float64)
        instants = np.arange(1, SLICES + 1, dtype=np.float64)
        initial = np.stack((np.zeros(INITIAL_POINTS), circle(INITIAL_POINTS)), axis=1)
        interior = _grid(instants * (END_TIME / SLICES), draws * (2 / PLACE_STEPS) - 1)
        values = np.zeros(len(initial) + len(interior))
        values[:INITIAL_POINTS] = _rounded(initial_value(initial[:, 1]))
        groups = np.repeat(np.arange(SLICES + 1), [INITIAL_POINTS] + SLICES * [POINTS_PER_SLICE])
        splits = {
            "training": {
                "points": torch.from_numpy(np.concatenate((initial, interior))),
                "values": torch.from_numpy(values),
                "groups": torch.from_numpy(groups),
            }
        }
        times, places, solution = unrounded_solution()
        for odd, name in enumerate(("evaluation", "test")):
            points = _grid(times[odd::2], np.tile(places[odd::2], (HELD_OUT_TIMES, 1)))
            held_out = _rounded(solution[odd::2, odd::2]).ravel()
            splits[name] = {
                "points": torch.from_numpy(points),
                "values": torch.from_numpy(held_out),
            }
        return splits

    def build_model(self) -> nn.Module:
        settings = self.settings(PINNSettings)
        return PeriodicPerceptron(
            width=settings.width,
            depth=settings.depth,
            harmonics=settings.harmonics,
            end_time=END_TIME,
            activation=settings.activation,
        ).double()

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return the points float64 [B, 2] and, float64 [B, 2], u(0, x) and 1 where t = 0.

        An interior point has the targets 0 and 0.
        """
        initial = (data["groups"].index_select(0, indices) == 0).double()
        return data["points"].index_select(0, indices), torch.stack(
            (data["values"].index_select(0, indices), initial), dim=1
        )

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return uniform points and values, a tenth of them initial, on the generator's device."""
        device = generator.device
        points, targets = torch.rand(
            2, batch_size, 2, generator=generator, device=device, dtype=torch.float64
        )
        targets[:, 1] = targets[:, 1] < 0.1
        return points, targets

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return squared residuals, and weighted squared errors where t = 0; shape [B].

        Args:
            outputs: u, u_t, u_x and u_xx at the points, [B, 4].
            targets: as from `training_batch`.
            label_smoothing: 0.

        Raises:
            ValueError: labels were to be smoothed, and a function has none.
        """
        if label_smoothing:
            raise ValueError(f"a regression has no labels to smooth, got {label_smoothing}")
        u, u_t, _, u_xx = outputs.unbind(1)
        value, initial = targets.unbind(1)
        residual = u_t - DIFFUSION * u_xx - REACTION * (u - u**3)
        return torch.where(initial > 0, INITIAL_WEIGHT * (u - value).square(), residual.square())

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `relative_l2`, ‖u - solution‖ ÷ ‖solution‖ over the split's points together."""
        assert isinstance(model, PeriodicPerceptron)
        # The sums stay on the device: one synchronisation.
        sums = torch.zeros(2, dtype=torch.float64, device=data["points"].device)
        for points, values in zip(
            data["points"].split(EVALUATION_BATCH),
            data["values"].split(EVALUATION_BATCH),
            strict=True,
        ):
            sums[0] += (model.values(points) - values).square().sum()
            sums[1] += values.square().sum()
        return {"relative_l2": (sums[0] / sums[1]).sqrt().item()}


def _grid(times: "NDArray[np.float64]", places: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the points (t, x), [T · P, 2], of `times` [T] and their own places [T, P]."""
    import numpy as np

    grid: NDArray[np.float64] = np.stack(
        (np.broadcast_to(times[:, None], places.shape), places), axis=2
    ).reshape(-1, 2)
    return grid


def _rounded(values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return multiples of `RESOLUTION`; the sign of -0.0, that of a last bit, is taken off."""
    import numpy as np

    rounded: NDArray[np.float64] = np.rint(values / RESOLUTION) * RESOLUTION + 0.0
    return rounded
