"""Optimizers: `torch.optim.Optimizer` classes, each beside its card."""
