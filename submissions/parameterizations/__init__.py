"""Parameterizations: other parameters than the model's own."""
