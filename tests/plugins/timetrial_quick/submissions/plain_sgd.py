"""θ ← θ - lr g."""

import torch


class PlainSGD(torch.optim.SGD):
    def __init__(self, params: object, lr: float = 0.5) -> None:
        super().__init__(params, lr=lr)
