"""A submission that cannot be imported."""

import torch


class NeverSeen(torch.optim.SGD):
    pass


raise RuntimeError("not today")
