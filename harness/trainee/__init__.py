"""The trainee: a fresh process a run, with the model, the training data and the submission."""
