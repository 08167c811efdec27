"""`bench run`: time a submission on a workload."""

import itertools
import math
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

import click
import msgspec
import psutil

from harness.cli import EXIT_INTERRUPTED, EXIT_OK, EXIT_RUN_ENDED_OTHERWISE
from harness.cli.parameters import (
    SubmissionName,
    WorkloadName,
    data_dir_option,
    nproc_option,
    results_option,
)
from harness.errors import UsageError
from harness.home import results_home

if TYPE_CHECKING:
    from harness.records.record import RunDetail

_BYTE_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


MAX_BYTES = 2**60
MAX_PACES = 1e9  # at a microsecond a pace still a quarter of an hour, at a second 30 years
MAX_SEED = 2**63 - 1


class Paces(click.ParamType[float]):
    """A positive number of reference steps; click's own float range lets NaN through."""

    name = "paces"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not 0 < number <= MAX_PACES:
            self.fail(f"{value!r} is no budget. Legal: a number in (0, {MAX_PACES:g}].", param, ctx)
        return number


class Bytes(click.ParamType[int]):
    """A size: a number of bytes, or one with a unit."""

    name = "bytes"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the bytes that `value` stands for."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
        unit = _BYTE_UNITS.get(match[2]) if match else None
        size = float(match[1]) * unit if match and unit else 0.0
        if not 1 <= size <= MAX_BYTES:
            self.fail(f"{value!r} is no size. Examples: 800MB, 2GiB, 1500000000.", param, ctx)
        return int(size)


@click.command()
@click.option(
    "-s",
    "--submission",
    type=SubmissionName(),
    required=True,
    help="A name (see `bench list submissions`), several joined by +, or ./file.py[:Class].",
)
@click.option(
    "-w",
    "--workload",
    type=WorkloadName(),
    required=True,
    metavar="W,@SUITE,…",
    help="See `bench list workloads` and `suites`.",
)
@click.option("--seed", type=click.IntRange(0, MAX_SEED), help="The run's seed. [default: 0]")
@click.option("--seeds", type=click.IntRange(1, 10_000), metavar="K", help="K runs, seeds 0 … K-1.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set a hyperparameter; repeat."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@nproc_option
@data_dir_option
@results_option
@click.option(
    "--budget",
    type=Paces(),
    metavar="PACES",
    help="Give up after so many reference steps' time. [default: the workload's]",
)
@click.option(
    "--memory-limit",
    type=Bytes(),
    metavar="BYTES",
    help="End the run over so much memory; processes share it equally.",
)
@click.option(
    "--clock",
    type=click.Choice(["cold", "warm"]),
    default="cold",
    show_default=True,
    help="Report time with (cold) or without (warm) compilation.",
)
@click.option("--share", is_flag=True, help="Run beside another run on the device, tainted.")
@click.option("--json", "as_json", is_flag=True, help="Print the record on stdout as JSON.")
def run(
    submission: str,
    workload: str,
    seed: int | None,
    seeds: int | None,
    settings: tuple[str, ...],
    device: str,
    nproc: int,
    results: str | None,
    budget: float | None,
    memory_limit: int | None,
    clock: Literal["cold", "warm"],
    share: bool,
    as_json: bool,
) -> int:
    """Time a submission on a workload until it reaches the target.

    \b
    Examples:
      bench run -s lion -w resnet
      bench run -s lion -w resnet --seeds 5 --set lr=3e-4
      bench run -s lion -w @core
      bench run -s ./my_method.py:MyOptimizer -w resnet --json
      bench run -s muon -w gpt --nproc 2

    Exit codes: 0 every run reached the target; 2 usage; 4 a run ended otherwise;
    130 interrupted.
    """  # noqa: D301 - click reads the backspace
    if seed is not None and seeds is not None:
        raise UsageError("--seed names one seed, --seeds counts several. Give one of them.")

    from harness.cli.display import make_display
    from harness.data_files import require
    from harness.run import Request, carry_out, plan
    from harness.suites import may_be_several, workloads_named

    home = results_home(results)
    check_writable(home)
    plans = [
        plan(
            Request(
                submission=submission,
                workload=name,
                settings=settings,
                device=device,
                home=home,
                budget_paces=budget,
                memory_limit_bytes=memory_limit,
                clock=clock,
                share=share,
                nproc=nproc,
            )
        )
        for name in workloads_named(workload)
    ]
    require(chosen.card for chosen in plans)
    several = seeds is not None or may_be_several(workload)
    chosen_seeds = range(seeds) if seeds is not None else [seed or 0]
    display = make_display(home, clock, runs=len(plans) * len(chosen_seeds))
    warnings = (text for one in plans for text in (*one.resolved.warnings, *one.card.warnings))
    for warning in dict.fromkeys(warnings):
        display.say(f"Warning: {warning}")
    details: list[RunDetail] = []
    with orderly_interrupt() as interrupt:
        for chosen, number in itertools.product(plans, chosen_seeds):
            try:
                detail = carry_out(chosen, number, display, interrupted=interrupt.asked)
            except KeyboardInterrupt:  # before this seed's run began
                break
            except UsageError:
                display.close()
                raise
            except OSError as error:
                display.close()
                click.echo(
                    f"Error: the run's record cannot be written: {error}. The run was stopped; "
                    f"make room or choose another folder with --results.",
                    err=True,
                )
                return EXIT_RUN_ENDED_OTHERWISE
            details.append(detail)
            display.summary(detail)
            if interrupt.asked():
                break
        display.close()
        _ingest(home, details)
    for _, runs in itertools.groupby(details, key=lambda detail: detail.record.workload):
        display.conclusion(list(runs))
    if as_json and (details or several):
        records = [detail.record for detail in details]
        content: object = records if several else records[0]
        click.echo(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())
    if interrupt.asked():
        return EXIT_INTERRUPTED
    reached = all(detail.record.outcome == "reached" for detail in details)
    return EXIT_OK if reached else EXIT_RUN_ENDED_OTHERWISE


class _Interrupt:
    """The first Ctrl-C asks for an orderly end; the second ends at once."""

    def __init__(self) -> None:
        self._asked = False

    def asked(self) -> bool:
        """Return whether the user pressed Ctrl-C."""
        return self._asked

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler
        if self._asked:
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    child.kill()
            os.write(sys.stderr.fileno(), b"\nInterrupted at once.\n")
            os._exit(EXIT_INTERRUPTED)
        self._asked = True


@contextmanager
def orderly_interrupt() -> Iterator[_Interrupt]:
    interrupt = _Interrupt()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_writable(home: Path) -> None:
    """Refuse a results folder that cannot be one, before anything is started or written."""
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not existing.is_dir():
        raise UsageError(f"The results folder {home} cannot be made: {existing} is a file.")
    if not os.access(existing, os.W_OK):
        raise UsageError(f"The results folder {home} cannot be written. Choose another: --results.")


def _ingest(home: Path, details: "list[RunDetail]") -> None:
    from harness.home import runs_folder
    from harness.records.index import ingest
    from harness.records.run_directory import RunDirectory

    folders = [runs_folder(home) / detail.record.run_id for detail in details]
    try:
        ingest(home, [RunDirectory(folder) for folder in folders])
    except (OSError, UsageError) as error:
        click.echo(
            f"Warning: the runs are recorded but not yet in the index ({error}); "
            "the next command that reads it takes them in.",
            err=True,
        )
