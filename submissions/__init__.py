"""Submissions: one readable file and one card each, by the place they fill in the recipe."""
