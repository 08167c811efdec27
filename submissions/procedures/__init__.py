"""Procedures: methods that own the training loop."""
