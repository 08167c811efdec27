"""A small decoder-only transformer that reads vectors and writes one number a position."""

import torch
from torch import Tensor, nn

from workloads.gpt.model import Block, linear

POSITION_STD = 0.2


class VectorTransformer(nn.Module):
    """Vectors [B, T, features] → a number for every second one, [B, T/2], from the first on.

    GPT-2's layout with linear maps in the places of the embedding and the head. `scaled` starts
    the layers that write to the residual stream smaller, by √(2 depth), as GPT-2 does.
    """

    def __init__(
        self, *, features: int, context: int, width: int, depth: int, heads: int, scaled: bool
    ) -> None:
        super().__init__()
        self.read = linear(features, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = linear(width, 1)
        nn.init.normal_(self.positions.weight, std=POSITION_STD)
        if scaled:
            with torch.no_grad():
                for name, weight in self.blocks.named_parameters():
                    if name.endswith(("projection.weight", "contract.weight")):
                        weight.div_((2 * depth) ** 0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        steps = torch.arange(vectors.shape[1], device=vectors.device)
        later = steps > steps[:, None]  # [T, T]: row t marks what position t must not see
        x = self.read(vectors) + self.positions(steps)
        for block in self.blocks:
            x = block(x, later)
        numbers: Tensor = self.head(self.norm(x[:, ::2])).squeeze(-1)
        return numbers
