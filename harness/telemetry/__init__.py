"""Telemetry: what the referee measures beside the clock.

`sampler` reads the trainee's memory, its processor use and the GPU twenty times a second and
sums them up over the on-clock spans of a run. A figure that could not be measured is None,
never 0.
"""
