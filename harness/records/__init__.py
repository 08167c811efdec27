"""What is written down: the run directory (the record) and the DuckDB index over it."""
