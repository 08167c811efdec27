"""Physics-informed networks: trained on a differential equation, not on its solution."""
