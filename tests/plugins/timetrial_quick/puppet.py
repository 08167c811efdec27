"""A trainee without a model: it plays a script, so that a test knows every moment of a run.

`python -m timetrial_quick.puppet` takes the trainee's options. QUICK_SCRIPT holds the script, a
JSON list of [method of `Puppet`, arguments …]; QUICK_WEIGHTS names the folder of the weights
that it can show.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from harness import counters, messages
from harness.trainee.parent_death import die_with_parent

SCRIPT, WEIGHTS = "QUICK_SCRIPT", "QUICK_WEIGHTS"
BATCH = 32  # of quick/blobs


class Puppet:
    def __init__(self, pipe: int, shared: int, weights: int) -> None:
        self.socket = socket.socket(fileno=pipe)
        self.pipe = messages.TraineeEnd(self.socket)
        self.words = counters.Counters(shared).words
        self.weights = weights

    def start(self) -> None:
        assert isinstance(self.pipe.receive(), messages.Prepare)
        self.pipe.send(messages.Ready(import_ns=1))
        self.go_on()

    def go_on(self) -> None:
        if isinstance(self.pipe.receive(), messages.Stop):
            sys.exit(0)

    def steps(self, n: int) -> None:
        self.words[counters.STEPS] += n
        self.words[counters.EXAMPLES] += n * BATCH
        self.words[counters.MODEL_PASSES] += 3 * n * BATCH

    def show(self, name: str, compile_ns: int = 0) -> None:
        self.announce(compile_ns)
        self.export(name)
        self.go_on()
        self.words[counters.EVALUATE_NOW] = 0

    def announce(self, compile_ns: int = 0) -> None:
        self.pipe.send(messages.Evaluate(compile_ns=compile_ns, gpu_peak_allocated_bytes=None))

    def export(self, name: str) -> None:
        content = (Path(os.environ[WEIGHTS]) / name).read_bytes()
        os.ftruncate(self.weights, len(content))
        os.pwrite(self.weights, content, 0)
        self.pipe.send(messages.Exported(size=len(content)))

    def export_size(self, size: int) -> None:
        self.pipe.send(messages.Exported(size=size))

    def await_force(self) -> None:
        while not self.words[counters.EVALUATE_NOW]:
            time.sleep(0.01)

    def lose(self) -> None:
        self.words[counters.NOT_FINITE] = 1

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def note(self, key: str, value: str) -> None:
        self.pipe.send(messages.Note(key=key, value=value))

    def long_note(self, characters: int) -> None:
        self.note("long", "x" * characters)

    def chatter(self) -> None:
        while True:
            self.note("still", "here")

    def finish(self, compile_ns: int = 0) -> None:
        self.pipe.send(messages.Finished(reason="it had enough", compile_ns=compile_ns))

    def write(self, text: str) -> None:
        self.socket.sendall(bytes.fromhex(text))

    def send_python(self, text: str) -> None:
        """Send `text`, framed as a message but not in its encoding."""
        content = msgspec.msgpack.encode(text)
        self.socket.sendall(len(content).to_bytes(4, "big") + content)

    def close(self) -> None:
        self.socket.close()

    def close_and_sleep(self) -> None:
        self.close()
        time.sleep(1000)

    def exit(self, code: int) -> None:
        os._exit(code)

    def ready_again(self) -> None:
        self.pipe.send(messages.Ready(import_ns=1))

    def start_program(self) -> None:
        subprocess.Popen(["sleep", "1000"], start_new_session=True)

    def fork(self) -> None:
        if os.fork() == 0:
            signal.pause()
            os._exit(0)

    def kill_itself(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def leave_the_pipe_to_a_child(self) -> None:
        """End, while a process that the kernel does not tie to us holds the pipe open."""
        if os.fork() == 0:
            os.setsid()
            signal.pause()
        os._exit(7)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("pipe", "counters", "weights", "parent"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--cores")
    options = parser.parse_args()
    if not os.environ.get("QUICK_UNTIED"):
        die_with_parent(options.parent)
    puppet = Puppet(options.pipe, options.counters, options.weights)
    for method, *arguments in json.loads(os.environ[SCRIPT]):
        getattr(puppet, method)(*arguments)
    time.sleep(1000)


if __name__ == "__main__":
    main()
