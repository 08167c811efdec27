"""Measures what a workload's card freezes: target, budget, noise, and what it can tell apart."""
