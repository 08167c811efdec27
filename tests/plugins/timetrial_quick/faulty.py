"""Submissions that misbehave, one a class; `faulty.py:NAME` runs one."""

import ctypes
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Where a submission leaves word for the test, which cannot see into its process.
NOTES_FILE = "QUICK_NOTES_FILE"


class Watched(torch.optim.AdamW):
    """AdamW with something done after a step; the base of the others."""

    def __init__(self, params: object, lr: float = 0.01) -> None:
        super().__init__(params, lr=lr)
        self.steps = 0

    def step(self, closure: Callable[[], float] | None = None) -> None:
        self.before()
        super().step()
        self.steps += 1
        self.after()

    def before(self) -> None:
        pass

    def after(self) -> None:
        pass

    def parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]


def leave_word(text: str) -> None:
    with Path(os.environ[NOTES_FILE]).open("a") as file:
        file.write(f"{text}\n")


class RaisesInStep(Watched):
    def after(self) -> None:
        if self.steps == 5:
            raise KeyError("no such moment")


class RaisesEndOfFile(Watched):
    """Raises what a closed pipe raises, too."""

    def after(self) -> None:
        raise EOFError("a file was cut short")


class Exits(Watched):
    def after(self) -> None:
        os._exit(3)


class SaysGoodbye(Watched):
    def after(self) -> None:
        sys.exit("enough")


class Segfaults(Watched):
    def after(self) -> None:
        if self.steps == 5:
            ctypes.string_at(0)


class Hangs(Watched):
    def after(self) -> None:
        if self.steps == 5:
            time.sleep(1000)


class Explodes(Watched):
    """Weights that are infinite after some steps."""

    def after(self) -> None:
        for p in self.parameters():
            p.data.mul_(1e10)


class StumblesOnce(Watched):
    """One loss is NaN; the weights are sound again at the next evaluation."""

    def before(self) -> None:
        if self.steps == 4:
            for p, kept in zip(self.parameters(), self._kept, strict=True):
                p.data.copy_(kept)
                p.grad = torch.zeros_like(p)

    def after(self) -> None:
        if self.steps == 4:
            self._kept = [p.detach().clone() for p in self.parameters()]
            self.parameters()[0].data.fill_(float("nan"))


class Wavers(Watched):
    """Shows what it learned at every other evaluation only, so the target is never confirmed."""

    def before(self) -> None:
        if self.steps and self.steps % 20 == 0:
            for p, kept in zip(self.parameters(), self._kept, strict=True):
                p.data.copy_(kept)

    def after(self) -> None:
        if self.steps % 20 == 0:
            self._kept = [p.detach().clone() for p in self.parameters()]
            for p in self.parameters():
                p.data.zero_()


class Hoards(Watched):
    """Allocates without end; memory that is never touched counts too."""

    def __init__(self, params: object) -> None:
        super().__init__(params)
        self._hoard: list[Tensor] = []

    def after(self) -> None:
        self._hoard.append(torch.empty(16 << 20))  # 64 MiB


class WritesDoubles(Watched):
    def after(self) -> None:
        p = self.parameters()[0]
        p.grad = None
        p.data = p.data.double()
        if self.steps % 10:  # or the next forward fails before anybody sees the weights
            p.data = p.data.float()


class WritesAnotherShape(Watched):
    def after(self) -> None:
        if self.steps % 10 == 0:
            p = self.parameters()[0]
            p.data = p.data[:1].clone()


class IsNoOptimizer:
    def __init__(self, params: object) -> None:
        pass


class BreaksTheProtocol(Watched):
    """Finds the pipe and says something of its own on it."""

    def after(self) -> None:
        pipe = int(sys.argv[sys.argv.index("--pipe") + 1])
        os.write(pipe, b"\x00\x00\x00\x05hello")


class ForksAndHangs(Watched):
    """Leaves word of its own process, a forked one, and a program in a session of its own."""

    def after(self) -> None:
        if self.steps == 5:
            start_sleepers()
            time.sleep(1000)


class ForksAndTrains(Watched):
    """Says what cores and threads it was given, and is not alone from its fifth step on."""

    def __init__(self, params: object) -> None:
        super().__init__(params)
        cores, threads = sorted(os.sched_getaffinity(0)), torch.get_num_threads()
        print(f"cores {cores} threads {threads}")  # noqa: T201

    def after(self) -> None:
        if self.steps == 5:
            start_sleepers()


class ForksAndDies(Watched):
    def after(self) -> None:
        if self.steps == 5:
            start_sleepers()
            os.kill(os.getpid(), signal.SIGKILL)


def start_sleepers() -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    program = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    leave_word(f"{os.getpid()} {child} {program.pid}")


class SlowToBuild(Watched):
    """Slow at its steps, too."""

    def __init__(self, params: object) -> None:
        super().__init__(params)
        time.sleep(0.6)

    def after(self) -> None:
        time.sleep(0.1)


class Compiles(Watched):
    """Compiles a function in its first step."""

    def before(self) -> None:
        if self.steps == 0:
            doubled = torch.compile(lambda x: (x * 2).sin(), backend="eager")
            doubled(torch.ones(3))


class StandsStill(torch.optim.SGD):
    """Learns nothing; leaves word of the weights it starts from and the gradients it sees."""

    def __init__(self, params: object, lr: float = 0.0) -> None:
        super().__init__(params, lr=0.0)
        self._steps = 0
        print("hello from the constructor")  # noqa: T201
        self.tell([p for group in self.param_groups for p in group["params"]])

    def step(self, closure: Callable[[], float] | None = None) -> None:
        self._steps += 1
        if self._steps <= 20:
            self.tell([p.grad for group in self.param_groups for p in group["params"]])

    def tell(self, tensors: list[Any]) -> None:
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor.detach().numpy().tobytes())
        print(f"seen {digest.hexdigest()[:16]}", flush=True)  # noqa: T201


class StandsStillToo(StandsStill):
    """Another submission, which uses the generator that is its own."""

    def step(self, closure: Callable[[], float] | None = None) -> None:
        torch.randn(7)
        super().step()
