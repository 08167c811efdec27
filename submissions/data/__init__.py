"""Data policies: which examples are trained on, in which order and with which weights."""
