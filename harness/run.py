"""One run, start to finish: lease, pace, trainee, referee, record, index.

The command line and sweeps both come through here, so there is one way to be timed.
"""

import dataclasses
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from harness import catalogue, home
from harness.cards import WorkloadCard
from harness.catalogue import Entry
from harness.cores import CorePlan, RankCores, pinned, plan_cores
from harness.device import Device, machine_class, resolve_device
from harness.events import Ended, Evaluation
from harness.identity import identity
from harness.lease import Lease, leased
from harness.paces import Pace, load_pace, pace_path, store_pace
from harness.prepared_paths import is_prepared
from harness.rank_support import refuse_undivided
from harness.recipe import Resolved, resolve
from harness.records.environment import describe_environment
from harness.records.record import RunDetail, read_run
from harness.records.run_directory import RunDirectory, RunWriter
from harness.referee.observer import Observer
from harness.referee.referee import Patience, Referee
from harness.referee.trainee_process import TraineeProcess
from harness.seeds import SeedStreams
from harness.spec import ClockKind, DataParallel, RunSpec
from harness.telemetry.gpu_group import GpuGroup
from harness.telemetry.nvml import GpuMonitor, GpuUnavailableError
from harness.telemetry.rapl import RaplCounter
from harness.telemetry.reading import Reading
from harness.telemetry.sampler import Sampler

FIRST_PACE_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What the user asked for, in words; `plan` resolves it."""

    submission: str
    workload: str
    settings: Sequence[str] = ()
    device: str = "auto"
    home: Path
    budget_paces: float | None = None
    memory_limit_bytes: int | None = None
    clock: ClockKind = "cold"
    share: bool = False
    tuned: bool = True  # take points that were tuned on the workload, where there are some
    tuning_effort: str | None = None  # None: what the cards and settings say
    ruleset: str | None = None
    study: int | None = None
    trial: int | None = None
    cores: tuple[int, ...] | None = None  # one of `beside + 1` sets of cores, each with its run
    beside: int = 0
    nproc: int = 1  # processes that train together


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A request resolved against cards and machine; every usage error is behind it."""

    request: Request
    entry: Entry[WorkloadCard]
    resolved: Resolved
    device: Device
    cores: CorePlan
    machine_class: str
    rank_cores: RankCores | None = None  # None: one process

    @property
    def card(self) -> WorkloadCard:
        """The workload's card."""
        return self.entry.card

    @property
    def budget_paces(self) -> float:
        """The budget asked for, else the card's."""
        return self.request.budget_paces or self.card.budget_paces

    @property
    def lease_name(self) -> str:
        """What the run must hold alone."""
        if self.request.cores is None or self.device.gpu is not None:
            return self.device.lease_name
        return "cores-" + "-".join(map(str, self.request.cores))

    def identity(self, seed: int) -> str:
        """What runs have in common that ask the same question (harness.identity)."""
        return identity(
            self.resolved,
            self.card,
            seed,
            self.machine_class,
            budget_paces=self.budget_paces,
            nproc=self.request.nproc,
        )


class Progress(Observer, Protocol):
    """An observer that also hears what happens before the run exists."""

    def say(self, text: str) -> None:
        """Tell the user one thing."""


def plan(request: Request) -> Plan:
    """Resolve a request; nothing is written.

    Raises:
        UsageError: a name, key, value or device that does not exist.
    """
    entry = catalogue.workload(request.workload)
    device = resolve_device(request.device, request.nproc)
    cores = plan_cores(request.cores)
    rank_cores = cores.for_ranks(request.nproc) if request.nproc > 1 else None
    resolved = resolve(request.submission, entry.card, request.settings, tuned=request.tuned)
    if request.nproc > 1:
        refuse_undivided(resolved.recipe, request.nproc)
    if request.tuning_effort is not None:
        resolved = dataclasses.replace(resolved, tuning_effort=request.tuning_effort)
    return Plan(
        request=request,
        entry=entry,
        resolved=resolved,
        device=device,
        cores=cores,
        machine_class=machine_class(
            device,
            cores.threads if rank_cores is None else rank_cores.used,
            request.beside,
            request.nproc,
        ),
        rank_cores=rank_cores,
    )


def carry_out(
    chosen: Plan,
    seed: int,
    progress: Progress,
    *,
    interrupted: Callable[[], bool],
    stopped: Callable[[Evaluation], str | None] = lambda _: None,
    patience: Patience | None = None,
) -> RunDetail:
    """Time one seed of a plan and return what was recorded.

    `stopped` may end the run after an evaluation that settles nothing, by giving a reason.

    Raises:
        KeyboardInterrupt: the user gave up before the run began.
        OSError: the record could not be written (a full disk, say); the trainee is gone.
    """
    lending = leased(
        chosen.lease_name,
        share=chosen.request.share,
        waiting=progress.say,
        interrupted=interrupted,
        further=[gpu.uuid for gpu in chosen.device.further_gpus],
    )
    # Pinned for the run alone: what is planned after it may have all cores.
    with lending as lease, pinned(chosen.cores.referee):
        os.environ["OMP_WAIT_POLICY"] = "passive"  # before torch loads, for the pace too
        pace = ensure_pace(chosen, progress.say)
        if interrupted():
            raise KeyboardInterrupt
        spec = _spec(chosen, seed, pace)
        folder = home.runs_folder(chosen.request.home) / spec.run_id
        writer = RunWriter(folder, spec)
        try:
            _race(chosen, spec, writer, lease, progress, interrupted, stopped, patience)
        finally:
            writer.close()
    return read_run(RunDirectory(folder))


def _race(
    chosen: Plan,
    spec: RunSpec,
    writer: RunWriter,
    lease: Lease,
    progress: Observer,
    interrupted: Callable[[], bool],
    stopped: Callable[[Evaluation], str | None],
    patience: Patience | None,
) -> Ended:
    ranks = chosen.rank_cores
    trainee = TraineeProcess.spawn(
        cores=[chosen.cores.trainee] if ranks is None else ranks.cores,
        threads=chosen.cores.threads if ranks is None else ranks.threads,
        output=writer.output_path,
    )
    try:
        # While the trainee imports torch: the slow parts of the paperwork.
        writer.add_sources(chosen.resolved.files)
        writer.add_environment(describe_environment(chosen.device))
        recorder = _LeasedRecorder(writer, lease)
        return Referee(
            spec=spec,
            trainee=trainee,
            recorder=recorder,
            observer=progress,
            make_sampler=lambda pid, sink: _sampler(chosen.device, pid, sink),
            interrupted=interrupted,
            device_taints=lambda: _device_taints(chosen, lease),
            stopped=stopped,
            patience=patience,
        ).run()
    finally:
        trainee.close()


class _LeasedRecorder:
    """The run directory's writer, whose heartbeat also keeps the mark of a shared lease."""

    def __init__(self, writer: RunWriter, lease: Lease) -> None:
        self.event = writer.event
        self._writer = writer
        self._lease = lease

    def reading(self, reading: Reading) -> None:
        self._writer.reading(reading)
        self.beat()  # readings come during a long evaluation, too

    def beat(self) -> None:
        self._writer.beat()
        self._lease.beat()


def ensure_pace(chosen: Plan, say: Callable[[str], None], *, again: bool = False) -> Pace:
    """Return the stored pace, measuring and storing it first where there is none.

    Also prepares the workload's data if the cache lacks it. Imports torch only if it must.
    """
    path = pace_path(home.paces_folder(chosen.request.home), chosen.card, chosen.machine_class)
    pace = None if again else load_pace(path)
    if pace is not None and is_prepared(chosen.card):
        return pace
    import torch

    from harness.prepared_data import prepare
    from harness.referee.pace_measurement import sample_pace
    from harness.reference_step import ReferenceStep
    from harness.workload import load_workload

    torch.set_num_threads(1)
    workload = load_workload(chosen.entry.module, chosen.card)
    if not is_prepared(chosen.card):
        say(f"Preparing the data of {chosen.card.name} (once) …")
        prepare(workload)
    if pace is None:
        say(f"Measuring this machine's pace on {chosen.card.name} (once) …")
        step = ReferenceStep(workload, torch.device(chosen.device.name))
        sample_ns = sample_pace(step, chosen.cores.trainee, chosen.cores.threads, FIRST_PACE_S)
        pace = store_pace(path, chosen.card, chosen.machine_class, sample_ns)
    return pace


def _spec(chosen: Plan, seed: int, pace: Pace) -> RunSpec:
    resolved, card, request = chosen.resolved, chosen.card, chosen.request
    created_unix_ns = time.time_ns()
    return RunSpec(
        run_id=_run_id(resolved.name, card.name, seed, created_unix_ns),
        submission=resolved.name,
        source_sha256=resolved.source_sha256,
        recipe=resolved.recipe,
        hyperparameters=resolved.hyperparameters,
        tuning_effort=resolved.tuning_effort,
        workload=card,
        workload_module=chosen.entry.module,
        seed=seed,
        streams=SeedStreams.from_seed(seed),
        device=chosen.device.name,
        machine_class=chosen.machine_class,
        trainee_cores=chosen.cores.trainee,
        referee_cores=chosen.cores.referee,
        threads=chosen.cores.threads,
        clock=request.clock,
        pace_ns=pace.pace_ns,
        budget_paces=chosen.budget_paces,
        memory_limit_bytes=request.memory_limit_bytes,
        shared=request.share,
        created_unix_ns=created_unix_ns,
        identity=chosen.identity(seed),
        ruleset=request.ruleset,
        study=request.study,
        trial=request.trial,
        data_parallel=_data_parallel(chosen.rank_cores),
    )


def _data_parallel(ranks: RankCores | None) -> DataParallel | None:
    if ranks is None:
        return None
    return DataParallel(cores=ranks.cores, threads=ranks.threads, shared_cores=ranks.shared)


def _run_id(submission: str, workload: str, seed: int, created_unix_ns: int) -> str:
    when = datetime.fromtimestamp(created_unix_ns / 1e9, tz=UTC).strftime("%Y%m%d-%H%M%S")
    words = "".join(c if c.isalnum() or c in "+-_." else "-" for c in f"{submission}-{workload}")
    return f"{when}-{words}-s{seed}-{secrets.token_hex(2)}"


def _sampler(device: Device, pid: int, sink: Callable[[Reading], None]) -> Sampler:
    gpu: GpuMonitor | GpuGroup | None = None
    if device.gpu is not None:
        import pynvml

        try:
            monitors = [GpuMonitor(pynvml, one.uuid) for one in device.gpus]
            gpu = monitors[0] if len(monitors) == 1 else GpuGroup(monitors)
        except GpuUnavailableError:
            gpu = None
    return Sampler(pid, gpu, RaplCounter(), sink, evaluates_on_gpu=device.gpu is not None)


def _device_taints(chosen: Plan, lease: Lease) -> list[str]:
    taints = lease.taints
    if chosen.cores.single_core:
        taints.append("trainee and referee share a single core")
    ranks = chosen.rank_cores
    if ranks is not None and ranks.shared:
        taints.append(
            f"{len(ranks.cores)} processes shared {ranks.used} training "
            f"core{'s' if ranks.used > 1 else ''}"
        )
    return taints
