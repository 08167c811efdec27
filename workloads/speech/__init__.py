"""Small conformers that write down what is said (connectionist temporal classification)."""
