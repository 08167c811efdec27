"""A worker that trains nothing: it answers every task as the submission's name says.

Run as a program, with a folder for its log and its parent's pid as arguments.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import msgspec

from harness.sweeps.worker import Began, Finished, Measured, Refused, Report, Task


def main() -> None:
    log = Path(sys.argv[1]) / f"{os.getpid()}.log"
    asked = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        asked.set()

    signal.signal(signal.SIGINT, interrupt)

    def tell(report: Report) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
        sys.stdout.buffer.flush()

    for line in sys.stdin.buffer:
        task = msgspec.json.decode(line, type=Task)
        with log.open("a") as file:
            file.write(f"{task.submission} {task.seed} {task.device} {task.cores}\n")
        tell(Began(run_id=f"run-{task.seed}"))
        if task.submission == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if task.submission == "babbles":
            sys.stdout.buffer.write(b"what is this?\n")
            sys.stdout.buffer.flush()
        if task.submission == "slow":
            deadline = time.monotonic() + 60
            while not asked.is_set() and time.monotonic() < deadline:
                time.sleep(0.01)
        tell(Measured(elapsed_s=1.0, value=0.5))
        if asked.is_set():
            tell(Refused(reason="interrupted", interrupted=True))
            return
        tell(
            Finished(
                run_id=f"run-{task.seed}",
                outcome="reached",
                reason="",
                tainted=False,
                time_to_target_s=1.0,
                best_metric=0.9,
            )
        )


if __name__ == "__main__":
    main()
