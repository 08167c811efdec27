"""Logistic regression: convex problems."""
