"""A small residual network for images: He et al. 2016, "Deep Residual Learning" (1512.03385).

The layout is section 4.2's for small images: a 3×3 stem that keeps the resolution, stages
of basic blocks that halve it and widen, global average pooling, one linear layer.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from workloads.activations import activation_function

GROUP_CHANNELS = 8  # of one group under group normalisation

Normalisation = Callable[[int], nn.Module]
_NORMALISATIONS: dict[str, Normalisation] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(max(channels // GROUP_CHANNELS, 1), channels),
}
# Standard deviations: √(2 ÷ fan-out) as in the paper, and √(1 ÷ fan-in), LeCun et al. 1998.
_INITIALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "he": partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"),
    "lecun": partial(nn.init.kaiming_normal_, mode="fan_in", nonlinearity="linear"),
}


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A padded convolution without bias: the normalisation behind it has one."""
    return nn.Conv2d(
        in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
    )


class BasicBlock(nn.Module):
    """act(norm(conv(act(norm(conv(x))))) + shortcut(x)): [B, C, H, W] → [B, C', H/s, W/s]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        activation: Callable[[Tensor], Tensor],
        norm: Normalisation,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.conv1 = convolution(in_channels, out_channels, 3, stride)
        self.norm1 = norm(out_channels)
        self.conv2 = convolution(out_channels, out_channels, 3)
        self.norm2 = norm(out_channels)
        # Projection where the shape changes, identity elsewhere: the paper's option B.
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                convolution(in_channels, out_channels, 1, stride), norm(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.activation(y + self.shortcut(x))


class ResNet(nn.Module):
    """Images [B, in_channels, H, W] → logits [B, classes].

    `widths` holds the channels of each stage and `depths` its number of blocks; every
    stage after the first begins with stride 2. The defaults are the paper's: batch norm,
    ReLU, and He normal (fan out) for convolutions.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        widths: Sequence[int],
        depths: Sequence[int],
        activation: str = "relu",
        normalisation: str = "batch",
        initialisation: str = "he",
    ) -> None:
        super().__init__()
        if not widths or len(widths) != len(depths) or min(*widths, *depths) < 1:
            raise ValueError(
                "widths and depths need one positive entry a stage; "
                f"got widths={tuple(widths)}, depths={tuple(depths)}"
            )
        self.activation = activation_function(activation)
        norm = _NORMALISATIONS[normalisation]
        self.stem = convolution(in_channels, widths[0], 3)
        self.norm = norm(widths[0])
        blocks: list[nn.Module] = []
        channels = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(channels, width, stride, self.activation, norm))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _INITIALISATIONS[initialisation](module.weight)

    def forward(self, images: Tensor) -> Tensor:
        x = self.activation(self.norm(self.stem(images)))
        x = self.blocks(x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits
