"""Objectives: training losses; file and card side by side."""
