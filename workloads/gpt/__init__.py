"""Decoder-only transformers on sequences of tokens."""
