"""A third-party package: one quick workload, submissions that misbehave, a scripted trainee."""
