"""The Fourier neural operator in one dimension: Li et al. 2021 (2010.08895), section 4.

Values at a grid's points are lifted to channels; every layer adds a linear map of the lowest
Fourier modes, one matrix a mode, to a linear map of each point alone; two pointwise layers
project to the answer. No coordinate is read, so an input shifted along the circle shifts the
output, as the equation itself does.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from workloads.activations import activation_function


def truncated_dft(points: int, modes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the real DFT to the lowest modes, [2 modes, points], and back, [points, 2 modes].

    Rows of the first give the real parts, then the imaginary parts, divided by `points`. As
    matrices they take a third of `torch.fft`'s time at sixty-four points, and in forward and
    backward alike they are plain products, which any method can differentiate or batch. They
    are made anew for each pass: no state that a copy, a device or inference mode could spoil.
    """
    point = torch.arange(points, device=like.device)
    mode = torch.arange(modes, device=like.device)
    # Whole turns come off as integers, so that the angles are exact to the last bit.
    angle = 2 * math.pi / points * (mode[:, None] * point % points).double()
    dft = torch.cat((angle.cos(), -angle.sin())).to(like.dtype)
    # Each mode but the constant one stands for its conjugate, too.
    twice = torch.where(mode == 0, 1.0, 2.0).to(like.dtype).repeat(2)
    return dft / points, (twice[:, None] * dft).T


class FourierLayer(nn.Module):
    """Channels [points, B, C] → [points, B, C]: the lowest modes mixed, and each point alone.

    `weight` [C out, C in, modes, 2] holds real and imaginary parts, so that optimizers see a
    real tensor. The imaginary part at mode 0 acts on nothing: a real signal has none there.
    """

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width, modes, 2) / width**0.5)
        self.pointwise = nn.Linear(width, width)

    def forward(self, x: Tensor, dft: Tensor, inverse: Tensor) -> Tensor:
        points, batch, width = x.shape
        # [2 parts, modes, C in, C out]; copied once, for `bmm` would copy matrix by matrix.
        real, imaginary = self.weight.permute(3, 2, 1, 0).contiguous().unbind(0)
        u, v = (dft @ x.flatten(1)).view(2, -1, batch, width).unbind(0)
        mixed = torch.cat(
            (
                torch.bmm(u, real) - torch.bmm(v, imaginary),
                torch.bmm(u, imaginary) + torch.bmm(v, real),
            )
        )
        spectral = (inverse @ mixed.flatten(1)).view(points, batch, width)
        output: Tensor = spectral + self.pointwise(x)
        return output


class FNO(nn.Module):
    """Functions on a grid [B, points] → functions on it [B, points].

    Args:
        width: channels between lifting and projection.
        modes: Fourier modes a layer mixes, the constant one among them; at most half of the
            points.
        depth: Fourier layers; the activation stands between them, as in the paper.
        projection_width: hidden units of the pointwise projection.
        activation: by its name on a card.
    """

    def __init__(
        self, *, width: int, modes: int, depth: int, projection_width: int, activation: str
    ) -> None:
        super().__init__()
        self.modes = modes
        self.lift = nn.Linear(1, width)
        self.layers = nn.ModuleList(FourierLayer(width, modes) for _ in range(depth))
        self.projection = nn.Linear(width, projection_width)
        self.head = nn.Linear(projection_width, 1)
        self.activation: Callable[[Tensor], Tensor] = activation_function(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        points = inputs.shape[1]
        if 2 * self.modes > points:
            raise ValueError(f"{self.modes} modes need {2 * self.modes} points, got {points}")
        dft, inverse = truncated_dft(points, self.modes, inputs)
        # Points first: both transforms are then single products over all examples and channels.
        x = self.lift(inputs.T.unsqueeze(2))
        for number, layer in enumerate(self.layers):
            if number:
                x = self.activation(x)
            x = layer(x, dft, inverse)
        outputs: Tensor = self.head(self.activation(self.projection(x)))
        return outputs.squeeze(2).T
