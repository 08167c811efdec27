"""Writes run directories as a referee would, without training anything."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import msgspec

from harness.cards import (
    FIGURES_WITH_EVIDENCE,
    DataDescription,
    Metric,
    Noise,
    ReferenceRecipe,
    Scalar,
    WorkloadCard,
)
from harness.events import Ended, Evaluation, Event, NoteTaken, Outcome, Started
from harness.home import runs_folder
from harness.records.run_directory import Owner, RunDirectory, RunWriter
from harness.seeds import SeedStreams
from harness.spec import Part, Recipe, RunSpec
from harness.telemetry.reading import Reading

PACE_NS = 1_000_000
BUDGET_S = 10.0
MACHINE = "a CPU, 1 of 2 cores, torch 2.13.0"
SECOND = 1_000_000_000


def workload_card(name: str = "blobs/two", version: int = 1, target: float = 0.9) -> WorkloadCard:
    return WorkloadCard(
        name=name,
        version=version,
        title="Two blobs",
        implementation="blobs:Blobs",
        tier="embedded",
        modality="image",
        metric=Metric(name="accuracy", direction="maximise", target=target),
        data=DataDescription(
            source="a generator",
            sha256={"training": "0" * 64, "evaluation": "1" * 64, "test": "2" * 64},
            training_examples=1000,
            evaluation_examples=500,
            test_examples=500,
        ),
        batch_size=10,
        precision="float32",
        grid_model_passes=3000,
        horizon_examples=10_000,
        budget_paces=BUDGET_S * SECOND / PACE_NS,
        drift_bound=0.1,
        recipe=ReferenceRecipe(
            optimizer="adamw",
            hyperparameters={"lr": 0.001},
            warmup_fraction=0.1,
            final_lr_fraction=0.0,
        ),
        noise=Noise(
            runs=10,
            reached=10,
            metric_sigma=0.01,
            time_cv=0.05,
            passes_cv=0.05,
            false_reach_chance=0.01,
            evaluation_share=0.05,
        ),
        parameters=1234,
        reference_seconds=3.0,
        evidence=dict.fromkeys(FIGURES_WITH_EVIDENCE, "a measurement"),
    )


@dataclasses.dataclass(kw_only=True)
class SyntheticRun:
    """A run to be written; each evaluation is 1 s of clock and 100 steps after the last."""

    run_id: str
    submission: str = "adamw"
    source_sha256: str = "a" * 64
    hyperparameters: dict[str, Scalar] = dataclasses.field(
        default_factory=lambda: {"optimizer.lr": 0.001}
    )
    tuning_effort: str = "defaults"
    workload: WorkloadCard = dataclasses.field(default_factory=workload_card)
    machine_class: str = MACHINE
    seed: int = 0
    values: Sequence[float | None] = (0.5, 0.8, 0.92, 0.93)
    outcome: Outcome = "reached"
    reason: str = "the target was met and confirmed"
    credited: int | None = 2
    interval_s: float = 1.0
    compile_s: float = 0.0
    taints: Sequence[str] = ()
    peak_memory_bytes: int | None = 300 << 20
    energy_j: float | None = None
    traceback: str | None = None
    output: str = ""
    created_unix_ns: int = 1_700_000_000 * SECOND
    identity: str = ""
    ruleset: str | None = None
    study: int | None = None
    trial: int | None = None

    def spec(self) -> RunSpec:
        return RunSpec(
            run_id=self.run_id,
            submission=self.submission,
            source_sha256=self.source_sha256,
            recipe=Recipe(
                parts=[
                    Part(
                        name=self.submission,
                        place="optimizer",
                        class_name="AdamW",
                        hyperparameters={"lr": 0.001},
                        module="torch.optim",
                    )
                ],
                batch_size=self.workload.batch_size,
                horizon_examples=self.workload.horizon_examples,
                warmup_fraction=0.1,
                final_lr_fraction=0.0,
                decay_exempt_roles=(),
                clip_norm=None,
                label_smoothing=0.0,
            ),
            hyperparameters=self.hyperparameters,
            tuning_effort=self.tuning_effort,
            workload=self.workload,
            workload_module="blobs.blobs",
            seed=self.seed,
            streams=SeedStreams.from_seed(self.seed),
            device="cpu",
            machine_class=self.machine_class,
            trainee_cores=[0],
            referee_cores=[1],
            threads=1,
            clock="cold",
            pace_ns=PACE_NS,
            budget_paces=self.workload.budget_paces,
            memory_limit_bytes=None,
            shared=False,
            created_unix_ns=self.created_unix_ns,
            identity=self.identity,
            ruleset=self.ruleset,
            study=self.study,
            trial=self.trial,
        )

    def events(self) -> list[Event]:
        evaluations = [self._evaluation(index, value) for index, value in enumerate(self.values)]
        meeting = [evaluation.index for evaluation in evaluations if evaluation.meets]
        last = evaluations[-1] if evaluations else None
        telemetry: dict[str, float | int | str | None] = {
            "peak_memory_bytes": self.peak_memory_bytes,
            "peak_memory_source": "vmhwm",
            "energy_j": self.energy_j,
            "samples": 40,
        }
        return [
            Started(unix_ns=self.created_unix_ns + SECOND, import_ns=SECOND // 100),
            NoteTaken(elapsed_ns=SECOND // 2, key="warm-up", value="done"),
            *evaluations,
            Ended(
                outcome=self.outcome,
                reason=self.reason,
                traceback=self.traceback,
                elapsed_ns=last.elapsed_ns if last else 0,
                compile_ns=last.compile_ns if last else 0,
                steps=last.steps if last else 0,
                examples=last.examples if last else 0,
                model_passes=last.model_passes if last else 0,
                credited=self.credited if self.outcome == "reached" else None,
                first_crossing=meeting[0] if meeting else None,
                interpolated_crossing_ns=None,
                taints=list(self.taints),
                pace_after_ns=round(1.02 * PACE_NS),
                telemetry=telemetry,
            ),
        ]

    def _evaluation(self, index: int, value: float | None) -> Evaluation:
        steps = 100 * (index + 1)
        return Evaluation(
            index=index,
            elapsed_ns=round((index + 1) * self.interval_s * SECOND),
            compile_ns=round(self.compile_s * SECOND),
            steps=steps,
            examples=10 * steps,
            model_passes=30 * steps,
            value=value,
            metrics={"accuracy": value, "loss": 0.1},
            meets=value is not None and self.workload.metric.meets(value),
            off_grid=False,
            test_value=None,
            export_ns=SECOND // 1000,
            evaluation_ns=SECOND // 100,
            gpu_peak_allocated_bytes=None,
        )

    def start(self, home: Path) -> RunWriter:
        """Write what stands before the end; the run is this process's and lives."""
        writer = RunWriter(runs_folder(home) / self.run_id, self.spec())
        packages = {"torch": "2.13.0", "numpy": "2.4.6"}
        writer.add_environment(
            {"packages": packages, "git": {"commit": "c0ffee", "dirty": False}, "gpu": None}
        )
        source = home / "method.py"
        source.write_text("class AdamW:\n    pass  # [brackets]\n")
        writer.add_sources({"method.py": source})
        writer.output_path.write_text(self.output)
        for event in self.events()[:-1]:
            writer.event(event)
        writer.reading(Reading(wall_ns=0, on_clock=True, memory_bytes=100 << 20))
        return writer

    def write(self, home: Path) -> RunDirectory:
        """Write the whole run."""
        writer = self.start(home)
        writer.event(self.events()[-1])
        writer.close()
        return RunDirectory(writer.folder)

    def abandon(self, home: Path) -> RunDirectory:
        """Write a run whose referee was killed."""
        writer = self.start(home)
        writer.close()
        folder = writer.folder
        (folder / "heartbeat").touch()
        set_owner(folder, pid=2**22 + 1)  # above the largest pid Linux gives
        return RunDirectory(folder)


def set_owner(folder: Path, **changes: object) -> None:
    """Put another referee into process.json."""
    owner = msgspec.structs.replace(Owner.current(), **changes)
    (folder / "process.json").write_bytes(msgspec.json.encode(owner))
