"""Residual networks on image classification."""
