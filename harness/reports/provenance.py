"""Where figures come from: the environment of runs, and the command that makes a row again."""

import functools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import catalogue
from harness.cards import Scalar
from harness.errors import UsageError
from harness.home import runs_folder
from harness.recipe import resolve
from harness.records.run_directory import RunDirectory
from harness.reports.gathering import Gathered, Row, Section
from harness.wording import plain, size


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """What a machine class stands for, from its newest run; the packages stand apart."""

    machine_class: str
    run_id: str
    fields: Sequence[tuple[str, str]]
    packages: Mapping[str, str]
    commits: Mapping[str, int]  # runs by revision of the harness


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Of a row: its source, the command, and whether that command still means the same."""

    row: Row
    command: str
    remark: str


def environments(gathered: Gathered) -> list[Environment]:
    """Return one environment for each machine class."""
    by_class: dict[str, list[Mapping[str, Any]]] = {}
    for section in gathered.sections:
        runs = [run for row in section.rows for run in row.runs]
        by_class.setdefault(section.machine_class, []).extend(runs)
    return [_environment(gathered, name, runs) for name, runs in by_class.items()]


def _environment(
    gathered: Gathered, machine_class: str, runs: Sequence[Mapping[str, Any]]
) -> Environment:
    newest = max(runs, key=lambda run: (run["created_at"], run["run_id"]))
    content = RunDirectory(runs_folder(gathered.home) / newest["run_id"]).environment()
    packages = content.pop("packages", None)
    commits: dict[str, int] = {}
    for run in runs:
        commit = run["git_commit"] or "not from a checkout"
        commits[commit] = commits.get(commit, 0) + 1
    return Environment(
        machine_class=machine_class,
        run_id=newest["run_id"],
        fields=_flat(content),
        packages={str(name): str(version) for name, version in packages.items()}
        if isinstance(packages, dict)
        else {},
        commits=dict(sorted(commits.items(), key=lambda item: -item[1])),
    )


def _flat(content: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    for name, value in content.items():
        if isinstance(value, dict):
            fields += _flat(value, f"{prefix}{name}.")
        elif value in (None, [], ""):
            continue
        elif name.endswith("_bytes") and isinstance(value, int | float):
            fields.append((f"{prefix}{name.removesuffix('_bytes')}", size(value)))
        else:
            fields.append((f"{prefix}{name}", plain(value)))
    return fields


def origin(section: Section, row: Row) -> Origin:
    """Return the command that makes a row's runs again, as the cards stand today."""
    submission, workload = row.submission, section.workload
    plainly = _today(submission, workload)
    point = row.point
    if plainly is None:
        differing, remark = point, "the submission or the workload is not in the catalogue"
    else:
        today, source, version = plainly
        differing = {
            name: value
            for name, value in point.items()
            if name not in today or today[name] != value
        }
        remarks = []
        if version != section.version:
            remarks.append(f"the workload's card is at version {version} today")
        if source != row.figures["source_sha256"]:
            remarks.append("the submission's source has changed since")
        remark = "; ".join(remarks)
    return Origin(row=row, command=_command(section, row, differing), remark=remark)


@functools.cache
def _today(submission: str, workload: str) -> tuple[dict[str, Scalar], str, int] | None:
    """Return the point, the source's hash and the card's version that a plain command has."""
    try:
        card = catalogue.workload(workload).card
        resolved = resolve(submission, card, [])
    except UsageError:
        return None
    return resolved.hyperparameters, resolved.source_sha256, card.version


def _command(section: Section, row: Row, settings: Mapping[str, Any]) -> str:
    words = ["bench", "run", "-s", row.submission, "-w", section.workload]
    for name, value in settings.items():
        words += ["--set", f"{name}={value!r}" if isinstance(value, float) else f"{name}={value}"]
    seeds = sorted({int(run["seed"]) for run in row.runs})
    if seeds == list(range(len(seeds))) and len(seeds) > 1:
        words += ["--seeds", str(len(seeds))]
    elif len(seeds) == 1 and seeds[0]:
        words += ["--seed", str(seeds[0])]
    return shlex.join(words)
