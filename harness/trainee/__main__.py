"""Entry point of the trainee process: `python -m harness.trainee`, started by the referee."""

import argparse
import faulthandler
import os
import socket
import sys

from harness.cores import pin
from harness.messages import RefereeGoneError, TraineeEnd
from harness.trainee.parent_death import die_with_parent
from harness.trainee.rank_processes import fork_ranks


def main() -> None:
    """Tie this process to its parent, pin it, and hand over to the run."""
    parser = argparse.ArgumentParser(prog="python -m harness.trainee")
    for name in ("pipe", "counters", "weights", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--cores", default="", help="1,2;3,4: a list a rank")
    options = parser.parse_args()
    cores = [[int(core) for core in own.split(",") if core] for own in options.cores.split(";")]

    die_with_parent(options.parent)
    faulthandler.enable()
    # A program that the submission starts has no business with them, and the referee would take
    # a pipe that such a program holds open for a trainee that lives.
    for descriptor in (options.pipe, options.counters, options.weights):
        os.set_inheritable(descriptor, False)
    pipe = TraineeEnd(socket.socket(fileno=options.pipe))
    process = None if len(cores) == 1 else fork_ranks(len(cores), pipe, options.counters)
    # Before torch is imported: its threads inherit the mask.
    pin(cores[0 if process is None else process.rank])

    from harness.trainee.run import run

    try:
        code = run(process.pipe if process else pipe, options.counters, options.weights, process)
    except RefereeGoneError:
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
