"""Transformers that learn a task from the examples in their context."""
