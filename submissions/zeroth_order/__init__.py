"""Zeroth-order optimizers: they see losses and no gradients."""
