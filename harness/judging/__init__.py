"""Judging: from the records of runs to rankings and verdicts."""
