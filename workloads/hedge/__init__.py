"""Recurrent hedges of options on simulated markets."""
