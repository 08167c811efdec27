"""Classification of long-tailed training data with wrong labels."""
