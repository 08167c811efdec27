"""A graph isomorphism network (GIN; Xu et al. 2019, "How Powerful are Graph Neural Networks?").

Each layer adds up a node's own and its neighbours' features and sends the sum through a small
perceptron (1810.00826, eq. 4.1, with ε learned). A graph is read out from the sums over its
nodes after every layer and before the first (eq. 4.2), in units of a typical graph's size, so
that training starts from logits near zero. Of the paper's model it leaves out dropout.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from harness.cards import ModelSettings
from workloads.activations import activation_function

TYPICAL_NODES = 30


class GINSettings(ModelSettings, frozen=True, kw_only=True):
    """Features of a node, activation, and what normalises the features inside a layer."""

    width: int = 64
    activation: Literal["relu", "gelu", "silu"] = "relu"
    normalisation: Literal["batch", "layer"] = "batch"


def normalisation(name: str, width: int) -> nn.Module:
    """Return the normalisation of nodes' features [M, width] called `name` on a card."""
    return nn.BatchNorm1d(width) if name == "batch" else nn.LayerNorm(width)


class Layer(nn.Module):
    """Node features [M, in] → [M, width], along edges from `source` to `target` (int64 [E])."""

    def __init__(self, inputs: int, settings: GINSettings) -> None:
        super().__init__()
        width = settings.width
        self.epsilon = nn.Parameter(torch.zeros(()))
        self.first = nn.Linear(inputs, width, bias=False)  # the normalisation brings one
        self.norm1 = normalisation(settings.normalisation, width)
        self.second = nn.Linear(width, width, bias=False)
        self.norm2 = normalisation(settings.normalisation, width)
        self.activation = activation_function(settings.activation)

    def forward(self, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        # The sum over neighbours and a linear map commute: it is cheaper behind the map, which
        # in the first layer narrows.
        x = self.first(x)
        summed = torch.index_add((1 + self.epsilon) * x, 0, target, x.index_select(0, source))
        x = self.second(self.activation(self.norm1(summed)))
        activated: Tensor = self.activation(self.norm2(x))
        return activated


class GIN(nn.Module):
    """Graphs int16 or int64 [B, N, 1 + D] → logits [B, classes].

    Of each node its tag, below `tags`, and the numbers of up to D neighbours in its graph, -1
    where there are fewer; an edge stands with both of its nodes. A tag of -1 fills up where a
    graph has no such node. What fills up costs nothing: the nodes of a batch are gathered
    first, so that normalisation counts nodes alone.
    """

    def __init__(self, *, tags: int, classes: int, depth: int, settings: GINSettings) -> None:
        super().__init__()
        self.tags = tags
        widths = [tags] + [settings.width] * depth
        self.layers = nn.ModuleList(Layer(width, settings) for width in widths[:-1])
        self.heads = nn.ModuleList(nn.Linear(width, classes) for width in widths)

    def forward(self, graphs: Tensor) -> Tensor:
        batch, slots = graphs.shape[:2]
        present = (graphs[:, :, 0] >= 0).flatten()
        number = present.cumsum(0) - 1  # of a node among those of the batch
        (place,) = present.nonzero(as_tuple=True)
        graph = place // slots
        nodes = graphs.flatten(0, 1)[place].long()
        neighbours = nodes[:, 1:]
        target, edge = (neighbours >= 0).nonzero(as_tuple=True)
        source = number[graph[target] * slots + neighbours[target, edge]]

        x = nn.functional.one_hot(nodes[:, 0], self.tags)
        x = x.to(self.heads[0].weight.dtype)  # type: ignore[arg-type]
        logits = self._read_out(0, x, graph, batch)
        for depth, layer in enumerate(self.layers, start=1):
            x = layer(x, source, target)
            logits = logits + self._read_out(depth, x, graph, batch)
        return logits

    def _read_out(self, depth: int, x: Tensor, graph: Tensor, batch: int) -> Tensor:
        summed = x.new_zeros(batch, x.shape[1]).index_add(0, graph, x)
        logits: Tensor = self.heads[depth](summed / TYPICAL_NODES)
        return logits
