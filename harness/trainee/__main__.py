"""Entry point of the trainee process: `python -m harness.trainee`, started by the referee."""

import argparse
import faulthandler
import os
import socket
import sys

from harness.cores import pin
from harness.messages import RefereeGoneError, TraineeEnd
from harness.trainee.parent_death import die_with_parent


def main() -> None:
    """Tie this process to its parent, pin it, and hand over to the run."""
    parser = argparse.ArgumentParser(prog="python -m harness.trainee")
    for name in ("pipe", "counters", "weights", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--cores", default="")
    options = parser.parse_args()

    die_with_parent(options.parent)
    faulthandler.enable()
    # A program that the submission starts has no business with them, and the referee would take
    # a pipe that such a program holds open for a trainee that lives.
    for descriptor in (options.pipe, options.counters, options.weights):
        os.set_inheritable(descriptor, False)
    # Before torch is imported: its threads inherit the mask.
    pin([int(core) for core in options.cores.split(",") if core])

    from harness.trainee.run import run

    pipe = TraineeEnd(socket.socket(fileno=options.pipe))
    try:
        code = run(pipe, options.counters, options.weights)
    except RefereeGoneError:
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
