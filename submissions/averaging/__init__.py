"""Averaging: what is evaluated in place of the trained weights; file and card side by side."""
