"""Sweeps: many runs, planned, interleaved, resumable. Executors hand them out and time nothing."""
