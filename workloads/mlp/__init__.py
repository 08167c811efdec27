"""Multilayer perceptrons on flat inputs."""
