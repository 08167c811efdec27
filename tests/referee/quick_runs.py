"""Runs on quick/blobs, as `bench run` would carry them out, with the referee in this process."""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from harness.events import Ended, Evaluation
from harness.home import paces_folder
from harness.paces import pace_path, store_pace
from harness.records.record import RunDetail
from harness.records.run_directory import RunDirectory
from harness.referee import trainee_process
from harness.referee.guardian import RUN_MARK
from harness.referee.observer import Status
from harness.referee.referee import Patience
from harness.run import Plan, Request, carry_out, plan
from harness.spec import RunSpec

PLUGINS = Path(__file__).parents[1] / "plugins"
FAULTY = PLUGINS / "timetrial_quick" / "faulty.py"
GRID_STEPS = 10
# Much longer than a step takes, so that a busy machine makes no evaluation late: the grid's
# interval stands for 1 s and an evaluation is forced after 4 s.
EASY_PACE_NS = 100_000_000
QUICKLY = Patience(
    poll_s=0.02,
    prepare_s=100.0,
    silence_floor_s=60.0,
    export_s=60.0,
    farewell_s=10.0,
    pace_after_s=0.0,
)


def processes_of_runs(weights: Path) -> list[psutil.Process]:
    """Return what lives of the runs that can show this folder of weights; not their referees."""
    from timetrial_quick.puppet import WEIGHTS

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(WEIGHTS) == str(weights) and RUN_MARK in environment:
                found.append(process)
    return found


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that ended and awaits its parent does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Return once `condition` holds; fail after the time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@dataclass(kw_only=True)
class Witness:
    """An observer that remembers, and acts where a test asks it to."""

    on_started: Callable[[RunSpec], None] = lambda spec: None
    on_evaluated: Callable[[Evaluation], None] = lambda evaluation: None
    said: list[str] = field(default_factory=list)
    specs: list[RunSpec] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    status: Callable[[], Status] | None = None

    def say(self, text: str) -> None:
        self.said.append(text)

    def preparing(self, spec: RunSpec, status: Callable[[], Status]) -> None:
        self.specs.append(spec)
        self.status = status

    def started(self) -> None:
        self.on_started(self.specs[-1])

    def evaluated(self, evaluation: Evaluation) -> None:
        self.on_evaluated(evaluation)

    def finishing(self, outcome: str, reason: str) -> None:
        self.finished.append(outcome)

    def ended(self, ended: Ended) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Track:
    """A results folder, and runs on it."""

    home: Path
    monkeypatch: pytest.MonkeyPatch

    def race(
        self,
        submission: str,
        *,
        seed: int = 0,
        pace_ns: int | None = EASY_PACE_NS,
        budget_paces: float | None = None,
        memory_limit_bytes: int | None = None,
        settings: Sequence[str] = (),
        share: bool = False,
        nproc: int = 1,
        patience: Patience = QUICKLY,
        witness: Witness | None = None,
        interrupted: Callable[[], bool] = lambda: False,
        stopped: Callable[[Evaluation], str | None] = lambda evaluation: None,
        change: Callable[[Plan], Plan] = lambda chosen: chosen,
    ) -> RunDetail:
        """Run a submission; a bare class name is one of the faulty ones. No pace: measured."""
        if submission[0].isupper():
            submission = f"{FAULTY}:{submission}"
        chosen = plan(
            Request(
                submission=submission,
                workload="quick/blobs",
                settings=settings,
                device="cpu",
                home=self.home,
                budget_paces=budget_paces,
                memory_limit_bytes=memory_limit_bytes,
                share=share,
                nproc=nproc,
            )
        )
        if pace_ns is not None:
            self.store_pace(chosen, pace_ns)
        return carry_out(
            change(chosen),
            seed,
            witness or Witness(),
            interrupted=interrupted,
            stopped=stopped,
            patience=patience,
        )

    def store_pace(self, chosen: Plan, pace_ns: int) -> None:
        path = pace_path(paces_folder(self.home), chosen.card, chosen.machine_class)
        store_pace(path, chosen.card, chosen.machine_class, [pace_ns])

    def perform(
        self,
        *script: Sequence[object],
        starts: bool = True,
        pace_ns: int | None = EASY_PACE_NS,
        budget_paces: float | None = None,
        share: bool = False,
        patience: Patience = QUICKLY,
        witness: Witness | None = None,
        interrupted: Callable[[], bool] = lambda: False,
        stopped: Callable[[Evaluation], str | None] = lambda evaluation: None,
        change: Callable[[Plan], Plan] = lambda chosen: chosen,
    ) -> RunDetail:
        """Run a trainee that plays `script` once it has started: see timetrial_quick.puppet."""
        from timetrial_quick.puppet import SCRIPT

        beginning = [["start"]] if starts else []
        with self.monkeypatch.context() as patch:
            patch.setattr(trainee_process, "TRAINEE_MODULE", "timetrial_quick.puppet")
            patch.setenv(SCRIPT, json.dumps([*beginning, *script]))
            return self.race(
                "plain-sgd",
                pace_ns=pace_ns,
                budget_paces=budget_paces,
                share=share,
                patience=patience,
                witness=witness,
                interrupted=interrupted,
                stopped=stopped,
                change=change,
            )

    def directory(self, detail: RunDetail) -> RunDirectory:
        return RunDirectory(self.home / "runs" / detail.record.run_id)
