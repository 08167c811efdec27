"""A small decoder-only transformer, GPT-2's in layout: causal attention, pre-norm, GELU.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". Of small models'
usual simplifications it takes: no biases, no dropout, a head of its own (not the embedding's
transpose), so that every parameter has one role.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from workloads.activations import activation_function

EMBEDDING_STD = 0.2  # GPT-2's 0.02 is for widths of 768 and more

NORMALISATIONS: dict[str, Callable[[int], nn.Module]] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer without bias whose outputs start with the variance of its inputs."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


class CausalSelfAttention(nn.Module):
    """Each position attends to itself and the earlier ones: [B, T, C] → [B, T, C]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = linear(width, 3 * width)
        self.projection = linear(width, width)

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # [B, H, T, C/H] each
        # Spelt out: torch's fused kernels cannot be differentiated twice, which methods that
        # use curvature need. At this length they save a fifth of a step.
        scores = q @ k.mT * (width // self.heads) ** -0.5
        weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)  # [B, H, T, T]
        mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width)
        projected: Tensor = self.projection(mixed)
        return projected


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): [B, T, C] → [B, T, C]."""

    def __init__(
        self, width: int, heads: int, activation: str = "gelu", normalisation: str = "layer"
    ) -> None:
        super().__init__()
        self.activation = activation_function(activation)
        norm = NORMALISATIONS[normalisation]
        self.norm1 = norm(width)
        self.attention = CausalSelfAttention(width, heads)
        self.norm2 = norm(width)
        self.expand = linear(width, 4 * width)
        self.contract = linear(4 * width, width)

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), later)
        mixed: Tensor = self.contract(self.activation(self.expand(self.norm2(x))))
        return x + mixed


class GPT(nn.Module):
    """Tokens [B, T] → logits [B, T, vocabulary] of the tokens that follow; T ≤ `context`.

    As in GPT-2, the layers that write to the residual stream start smaller, by √(2 depth).
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int,
        width: int,
        depth: int,
        heads: int,
        activation: str = "gelu",
        normalisation: str = "layer",
    ) -> None:
        super().__init__()
        if min(vocabulary, context, width, depth, heads) < 1 or width % heads:
            raise ValueError(
                "every size must be positive and width a multiple of heads; got "
                f"{vocabulary=}, {context=}, {width=}, {depth=}, {heads=}"
            )
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, activation, normalisation) for _ in range(depth)
        )
        self.norm = NORMALISATIONS[normalisation](width)
        self.head = linear(width, vocabulary)
        nn.init.normal_(self.tokens.weight, std=EMBEDDING_STD)
        nn.init.normal_(self.positions.weight, std=EMBEDDING_STD)
        with torch.no_grad():
            for name, weight in self.blocks.named_parameters():
                if name.endswith(("projection.weight", "contract.weight")):
                    weight.div_((2 * depth) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        later = steps > steps[:, None]  # [T, T]: row t marks what position t must not see
        x = self.tokens(tokens) + self.positions(steps)
        for block in self.blocks:
            x = block(x, later)
        logits: Tensor = self.head(self.norm(x))
        return logits
