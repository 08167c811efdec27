"""Activations by the names that cards give them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """Return the activation called `name` on a card."""
    return _FUNCTIONS[name]
