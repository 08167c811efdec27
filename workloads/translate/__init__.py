"""Encoder–decoder transformers on translation."""
