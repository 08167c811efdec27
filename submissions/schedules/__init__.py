"""Schedules, and methods whose main part is one: file and card side by side."""
