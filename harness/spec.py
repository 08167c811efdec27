"""The resolved specification of one run: everything the trainee and the record need."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from harness.cards import Closure, Need, Place, Scalar, WorkloadCard
from harness.seeds import SeedStreams

ClockKind = Literal["cold", "warm"]

# A run's time to target on each clock, by its name in the record and in the index.
TIME_FIELDS: Mapping[ClockKind, str] = {
    "cold": "time_to_target_s",
    "warm": "time_without_compile_s",
}


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One submission in its place: where its code is and the point it runs at."""

    name: str
    place: Place
    class_name: str
    hyperparameters: dict[str, Scalar]
    needs: tuple[Need, ...] = ()
    closure: Closure = "none"
    module: str | None = None  # importable name, or
    file: str | None = None  # the path of a file outside any package


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained with: the reference recipe with the submission's parts in place."""

    parts: list[Part]
    batch_size: int
    horizon_examples: int
    warmup_fraction: float
    final_lr_fraction: float
    decay_exempt_roles: tuple[str, ...]
    clip_norm: float | None
    label_smoothing: float

    def part(self, place: Place) -> Part | None:
        """Return the part that fills `place`, None where the reference's own does."""
        return next((part for part in self.parts if part.place == place), None)


class DataParallel(msgspec.Struct, frozen=True, kw_only=True):
    """How several processes, the ranks, train together; rank i has the i-th GPU from the first."""

    cores: list[list[int]]  # of each rank; empty: unpinned
    threads: int  # of each rank
    shared_cores: bool  # the ranks have too few cores to have their own

    @property
    def ranks(self) -> int:
        """How many."""
        return len(self.cores)


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One run, resolved: no default is left open."""

    run_id: str
    submission: str
    source_sha256: str
    recipe: Recipe
    hyperparameters: dict[str, Scalar]
    tuning_effort: str
    workload: WorkloadCard
    workload_module: str
    seed: int
    streams: SeedStreams
    device: str  # "cpu" or "cuda:N", of rank 0
    machine_class: str
    trainee_cores: list[int]
    referee_cores: list[int]
    threads: int
    clock: ClockKind
    pace_ns: int
    budget_paces: float
    memory_limit_bytes: int | None
    shared: bool
    created_unix_ns: int
    identity: str = ""  # equal for runs that ask the same question (harness.identity)
    ruleset: str | None = None
    study: int | None = None
    trial: int | None = None
    data_parallel: DataParallel | None = None  # None: one process

    @property
    def nproc(self) -> int:
        """How many processes train together."""
        return 1 if self.data_parallel is None else self.data_parallel.ranks

    @property
    def training_threads(self) -> int:
        """Compute threads of all processes that train together."""
        parallel = self.data_parallel
        return self.threads if parallel is None else parallel.threads * parallel.ranks

    def device_of(self, rank: int) -> str:
        """Return the device of a rank; the run's own is rank 0's."""
        kind, colon, index = self.device.partition(":")
        return f"{kind}:{int(index) + rank}" if colon else kind

    @property
    def budget_ns(self) -> int:
        """The budget on this machine's clock."""
        return round(self.budget_paces * self.pace_ns)

    @property
    def reference_interval_ns(self) -> int:
        """Clock time between two grid points at the reference's pace."""
        steps = self.workload.grid_model_passes / self.workload.passes_per_reference_step
        return max(1, round(steps * self.pace_ns))
