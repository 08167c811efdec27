"""AlgoPerf's logs and targets: read, kept in the results home, scored by its rule."""
