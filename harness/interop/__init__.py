"""Reading what other benchmarks wrote, and writing what they read."""
