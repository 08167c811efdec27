"""A perceptron of time and place, periodic in place, that knows its own derivatives.

Raissi, Perdikaris & Karniadakis 2019, "Physics-informed neural networks" (J. Comput. Phys.
378); the periodic features are those of Dong & Ni 2021 (2007.07442), which Wang, Sankaran &
Perdikaris 2022 (2203.07404) take over.
"""

import itertools
import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Activation = Literal["tanh", "sine"]


class JetLinear(nn.Module):
    """An affine map of values whose derivatives it maps linearly.

    The matrix is a module without bias, so that what is put in its place need only be linear.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        nn.init.xavier_normal_(self.linear.weight)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, jet: Tensor) -> tuple[Tensor, Tensor]:
        """Map a value and its derivatives [1 + n, B, in]; return them apart."""
        mapped = self.linear(jet)  # one product for all
        return mapped[0] + self.bias, mapped[1:]


class PeriodicPerceptron(nn.Module):
    """Points (t, x) [B, 2] → (u, u_t, u_x, u_xx) [B, 4]; u repeats with period 2 in x.

    The derivatives are carried forward through the layers by the chain rule, so that a forward
    pass without gradients has them as well, and reverse mode differentiates the result as
    often as it likes.

    Args:
        width: hidden units of a layer.
        depth: hidden layers.
        harmonics: the features of x are cos(kπx) and sin(kπx) for k = 1 … harmonics.
        end_time: t is scaled to ±1 over [0, end_time].
        activation: by its name on a card.
    """

    def __init__(
        self, *, width: int, depth: int, harmonics: int, end_time: float, activation: Activation
    ) -> None:
        super().__init__()
        if activation not in get_args(Activation):
            raise ValueError(f"activation must be one of {get_args(Activation)}: {activation!r}")
        self.harmonics = harmonics
        self.end_time = end_time
        self.activation = activation
        sizes = [1 + 2 * harmonics] + depth * [width]
        self.layers = nn.ModuleList(JetLinear(*pair) for pair in itertools.pairwise(sizes))
        self.head = JetLinear(width, 1)

    def forward(self, points: Tensor) -> Tensor:
        """Return u, u_t, u_x and u_xx at the points, [B, 4]."""
        jet = self._features(points)  # [4, B, …]: a value and its three derivatives
        for layer in self.layers:
            jet = self._activate(*layer(jet))
        u, derivatives = self.head(jet)
        return torch.cat((u, derivatives.squeeze(2).T), dim=1)

    def values(self, points: Tensor) -> Tensor:
        """Return u alone at the points, [B]: a quarter of the work."""
        t, x = points.unbind(1)
        angle = self._wave_numbers(points) * x[:, None]
        h = torch.cat((2 * t[:, None] / self.end_time - 1, angle.cos(), angle.sin()), dim=1)
        for layer in self.layers:
            z, _ = layer(h[None])
            h = torch.tanh(z) if self.activation == "tanh" else torch.sin(z)
        u: Tensor = self.head(h[None])[0]
        return u.squeeze(1)

    def _wave_numbers(self, points: Tensor) -> Tensor:
        return math.pi * torch.arange(
            1, self.harmonics + 1, dtype=points.dtype, device=points.device
        )

    def _features(self, points: Tensor) -> Tensor:
        t, x = points.unbind(1)
        k = self._wave_numbers(points)
        cos, sin = (k * x[:, None]).cos(), (k * x[:, None]).sin()
        none, no_time = torch.zeros_like(cos), torch.zeros_like(t)[:, None]
        scaled = 2 * t[:, None] / self.end_time - 1
        rate = torch.full_like(scaled, 2 / self.end_time)
        return torch.stack(
            (
                torch.cat((scaled, cos, sin), dim=1),
                torch.cat((rate, none, none), dim=1),
                torch.cat((no_time, -k * sin, k * cos), dim=1),
                torch.cat((no_time, -k * k * cos, -k * k * sin), dim=1),
            )
        )

    def _activate(self, z: Tensor, derivatives: Tensor) -> Tensor:
        """Return the jet of f(z): f, f' z_t, f' z_x and f' z_xx + f'' z_x²."""
        if self.activation == "tanh":
            f = torch.tanh(z)
            slope = 1 - f * f
            bend = -2 * f * slope
        else:
            f, slope = z.sin(), z.cos()
            bend = -f
        z_x = derivatives[1]
        first = slope * derivatives
        return torch.cat((f[None], first[:2], (first[2] + bend * z_x * z_x)[None]))
