"""A perceptron of several hidden layers."""

from itertools import pairwise

from torch import Tensor, nn

from workloads.activations import activation_function


class DeepPerceptron(nn.Module):
    """Inputs [B, features] → `depth` layers of `width` hidden units → logits [B, classes]."""

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        width: int,
        depth: int,
        activation: str,
        layer_norm: bool,
    ) -> None:
        super().__init__()
        sizes = [features, *[width] * depth]
        self.hidden = nn.ModuleList(
            nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(width) if layer_norm else nn.Identity() for _ in range(depth)
        )
        self.head = nn.Linear(width, classes)
        self.activation = activation_function(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = self.activation(norm(layer(x)))
        logits: Tensor = self.head(x)
        return logits
