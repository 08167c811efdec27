"""A worker that trains nothing: it answers every task as the submission's name says.

Run as a program, with a folder for its log and its parent's pid as arguments.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import msgspec

from harness.sweeps.worker import Began, Finished, Measured, Refused, Report, Task
from harness.trainee.parent_death import die_with_parent


def first_time(task: Task) -> bool:
    """Return whether no worker was given this task before."""
    try:
        (Path(sys.argv[1]) / f"{task.submission}-{task.seed}.begun").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main() -> None:
    die_with_parent(int(sys.argv[2]))
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
        if task.submission == "dies once" and first_time(task):
            os.kill(os.getpid(), signal.SIGKILL)
        if task.submission == "orphan once" and first_time(task):
            os.kill(os.getppid(), signal.SIGKILL)
        if task.submission == "looks around":
            seen = {
                "cwd": str(Path.cwd()),
                "environment": dict(os.environ),
                "niceness": os.nice(0),
                "blocked signals": list(map(str, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
                "cores": sorted(os.sched_getaffinity(0)),
            }
            log.with_suffix(".json").write_text(json.dumps(seen))
        if task.submission == "babbles":
            sys.stdout.buffer.write(b"what is this?\n")
            sys.stdout.buffer.flush()
        if task.submission == "slow" or (task.submission == "slow once" and first_time(task)):
            deadline = time.monotonic() + 60
            released = Path(sys.argv[1]) / "released"
            while not (asked.is_set() or released.exists() or time.monotonic() > deadline):
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
