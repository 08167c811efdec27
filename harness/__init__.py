"""Timetrial's harness: the referee, the trainee, the records and the command line."""

__version__ = "0.1.0"
