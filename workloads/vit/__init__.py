"""Vision transformers on image classification."""
