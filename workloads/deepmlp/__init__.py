"""Deep fully connected networks that start badly."""
