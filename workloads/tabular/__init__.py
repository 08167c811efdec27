"""Residual perceptrons on tables: numeric columns and categorical ones."""
