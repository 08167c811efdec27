"""The referee: the clock, the budget, the evaluation data, the verdict."""
