"""A perceptron on the sum of two tokens' embeddings."""

import torch
from torch import Tensor, nn

from workloads.activations import activation_function


class PairPerceptron(nn.Module):
    """Pairs of tokens int64 [B, 2] → embeddings, summed → hidden units → logits [B, tokens].

    No layer has a bias, so that with ReLU the logits are homogeneous in the weights: scaling
    every weight by c scales them by c³ and leaves the predictions alone (Lyu & Li 2020,
    "Gradient Descent Maximizes the Margin of Homogeneous Neural Networks", 1906.05890).
    """

    def __init__(
        self, *, tokens: int, embedding: int, width: int, activation: str, shared: bool
    ) -> None:
        super().__init__()
        self.first = nn.Embedding(tokens, embedding)
        self.second = self.first if shared else nn.Embedding(tokens, embedding)
        self.hidden = nn.Linear(embedding, width, bias=False)
        self.head = nn.Linear(width, tokens, bias=False)
        self.activation = activation_function(activation)
        with torch.no_grad():
            for table in (self.first, self.second):
                nn.init.normal_(table.weight, std=embedding**-0.5)
            for layer in (self.hidden, self.head):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def forward(self, pairs: Tensor) -> Tensor:
        x = self.first(pairs[:, 0]) + self.second(pairs[:, 1])
        logits: Tensor = self.head(self.activation(self.hidden(x)))
        return logits
