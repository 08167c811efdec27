"""A residual perceptron for tables, from numeric and categorical columns to outputs.

The shape is that of the ResNet in Gorishniy et al. 2021, "Revisiting Deep Learning Models for
Tabular Data" (2106.11959), without dropout: blocks that normalise, widen, apply the activation
and narrow again, and a head behind a last normalisation and activation.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from harness.cards import ModelSettings
from workloads.activations import activation_function

EXPANSION = 2  # hidden units of a block for each unit of the stream
EMBEDDING_WIDTH = 8


class TabularSettings(ModelSettings, frozen=True, kw_only=True):
    """The stream's width, blocks, activation and what normalises the stream before each."""

    width: int = 256
    depth: int = 2
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    normalisation: Literal["layer", "batch", "none"] = "layer"


def normalisation(name: str, width: int) -> nn.Module:
    """Return the normalisation of [B, width] called `name` on a card."""
    if name == "layer":
        return nn.LayerNorm(width)
    if name == "batch":
        return nn.BatchNorm1d(width)
    return nn.Identity()


class Block(nn.Module):
    """x + narrow(activation(widen(normalise(x))))."""

    def __init__(self, settings: TabularSettings) -> None:
        super().__init__()
        self.norm = normalisation(settings.normalisation, settings.width)
        self.widen = nn.Linear(settings.width, EXPANSION * settings.width)
        self.narrow = nn.Linear(EXPANSION * settings.width, settings.width)
        self.activation = activation_function(settings.activation)

    def forward(self, x: Tensor) -> Tensor:
        narrowed: Tensor = self.narrow(self.activation(self.widen(self.norm(x))))
        return x + narrowed


class TabularNet(nn.Module):
    """A table's rows float32 [B, numeric + len(levels)] → outputs [B, outputs].

    The last columns are categorical: each holds the index of a level, below the number in
    `levels`, and is replaced by that level's embedding.
    """

    def __init__(
        self, *, numeric: int, levels: Sequence[int], outputs: int, settings: TabularSettings
    ) -> None:
        super().__init__()
        self.numeric = numeric
        self.embeddings = nn.ModuleList(nn.Embedding(n, EMBEDDING_WIDTH) for n in levels)
        self.stem = nn.Linear(numeric + EMBEDDING_WIDTH * len(levels), settings.width)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.depth))
        self.norm = normalisation(settings.normalisation, settings.width)
        self.activation = activation_function(settings.activation)
        self.head = nn.Linear(settings.width, outputs)

    def forward(self, rows: Tensor) -> Tensor:
        columns = [rows[:, : self.numeric]]
        for column, embedding in enumerate(self.embeddings, start=self.numeric):
            columns.append(embedding(rows[:, column].long()))
        x = self.stem(torch.cat(columns, dim=1))
        for block in self.blocks:
            x = block(x)
        outputs: Tensor = self.head(self.activation(self.norm(x)))
        return outputs
