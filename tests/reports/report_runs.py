"""A small home for reports: two workloads, three submissions, what misses and what is tainted."""

import dataclasses
from pathlib import Path

from records.synthetic_runs import SyntheticRun, workload_card

from harness.home import runs_folder
from harness.records.run_directory import RunDirectory
from harness.telemetry.reading import Reading

CARDS = (workload_card("blobs/two"), workload_card("blobs/three"))
HOSTILE = "</script><script>globalThis.stolen = 1</script><img src=x onerror=stolen=2>"


def make_home(home: Path, seeds: int = 5) -> Path:
    home.mkdir(parents=True)
    for number, card in enumerate(CARDS):
        for seed in range(seeds):
            fast = SyntheticRun(
                run_id=f"20240101-{number}-adamw-{seed}",
                seed=seed,
                workload=card,
                interval_s=1.0 + seed / 50,
                energy_j=100.0 + seed,
            )
            slow = dataclasses.replace(
                fast,
                run_id=f"20240101-{number}-lion-{seed}",
                submission="lion",
                source_sha256="b" * 64,
                interval_s=2.0 + seed / 50,
                peak_memory_bytes=200 << 20,
            )
            fast.write(home)
            slow.write(home)
    missed = SyntheticRun(
        run_id="20240102-missed",
        submission="sgd",
        values=(0.5, 0.6, 0.7),
        outcome="budget",
        reason="the budget was used up",
    )
    missed.write(home)
    tainted = dataclasses.replace(
        missed, run_id="20240102-tainted", seed=1, taints=["the pace drifted by 20 %"]
    )
    tainted.write(home)
    return home


def add_hostile(home: Path) -> None:
    """Add a run whose every text is an attack."""
    SyntheticRun(
        run_id="20240103-hostile",
        submission=HOSTILE,
        tuning_effort=f"{HOSTILE} trials",
        hyperparameters={HOSTILE: HOSTILE},
        workload=workload_card("blobs/three"),
        outcome="crashed",
        reason=HOSTILE,
        taints=[HOSTILE],
        traceback=HOSTILE,
        values=(0.5, 0.6),
        machine_class=HOSTILE,
    ).write(home)


def add_telemetry(directory: RunDirectory, readings: int = 200) -> None:
    """Put a GPU's readings, ten a second, in place of the run's own."""
    import msgspec

    lines = [
        msgspec.json.encode(
            Reading(
                wall_ns=number * 100_000_000,
                on_clock=number % 20 != 0,
                memory_bytes=(300 + number % 7) << 20,
                cpu_utilisation=1.0,
                gpu_memory_bytes=(1000 + number) << 20,
                gpu_utilisation=0.5 + 0.4 * (number % 2),
                gpu_power_w=300.0 + number % 50,
            )
        )
        for number in range(readings)
    ]
    (directory.folder / "telemetry.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def run_directory(home: Path, run_id: str) -> RunDirectory:
    return RunDirectory(runs_folder(home) / run_id)
