"""Fine-tuning: every run starts from the same pre-trained weights, on a shifted task."""
