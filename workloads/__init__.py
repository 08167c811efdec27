"""Workloads: one folder a family, with its models, its data and its cards."""
