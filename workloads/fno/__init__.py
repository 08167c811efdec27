"""Neural operators: from functions to functions, on periodic grids."""
