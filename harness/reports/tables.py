"""The tables of a report, for every format: fields as they are, and columns for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.judging.axes import counted
from harness.judging.leaderboard import RANKED_WITHIN
from harness.reports.gathering import Gathered, Row, Section
from harness.reports.leaderboard_rows import COLUMNS, for_people
from harness.reports.provenance import environments, origin
from harness.reports.suite import scores
from harness.table_text import Column, filled


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A named table: `rows` carry every field, unrounded, in the units of its name."""

    name: str
    title: str
    rows: Sequence[Mapping[str, Any]]
    fields: Sequence[str]  # for a file without rows


def tables(gathered: Gathered) -> list[Table]:
    """Return every table as data, in the order in which a reader wants them."""
    made: list[tuple[str, str, list[Any]]] = [
        ("leaderboard", "Leaderboard", leaderboard_rows(gathered)),
        ("suite", "Score over the workloads", list(scores(gathered).rows)),
        ("pareto", "Time, memory and energy", pareto_rows(gathered)),
        ("runs", "Runs", run_rows(gathered)),
        ("provenance", "Provenance", provenance_rows(gathered)),
        ("environment", "Environment", environment_rows(gathered)),
    ]
    return [
        Table(name=name, title=title, rows=rows, fields=list(rows[0]) if rows else [])
        for name, title, rows in made
    ]


TABLES = ("leaderboard", "suite", "pareto", "runs", "provenance", "environment")


def leaderboard_rows(gathered: Gathered) -> list[dict[str, Any]]:
    """Return the leaderboard's rows with the submissions' kinds."""
    return [
        {**row.figures, "hyperparameters": row.point, "kinds": list(row.kinds)}
        for row in gathered.rows
    ]


def group_cells(rows: Sequence[Row], most: int | None = None) -> list[dict[str, Any]]:
    """Return the cells, for people, of the first rows of those that are ranked together."""
    group = [{**row.figures, "hyperparameters": row.point} for row in rows]
    return [for_people(row, group) for row in group[:most]]


def shown_columns(cells: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the leaderboard's columns that have something in them."""
    return [column for column in filled(COLUMNS, cells) if column.field != "front"]


def pareto_rows(gathered: Gathered) -> list[dict[str, Any]]:
    """Return time, memory and energy of the rows that are ranked, and who is on the front."""
    return [
        {name: row.figures[name] for name in (*RANKED_WITHIN, "submission", "source_sha256")}
        | {
            "hyperparameters": row.point,
            "time_s": row.figures["time_s"],
            "memory_bytes": row.figures["memory_bytes"],
            "energy_j": row.figures["energy_j"],
            "pareto_front": row.figures["pareto_front"],
            "pareto_axes": row.figures["pareto_axes"],
        }
        for row in gathered.rows
        if row.figures["rank"] is not None
    ]


def run_rows(gathered: Gathered) -> list[dict[str, Any]]:
    """Return every run, with whether it counts and why not."""
    return [
        {
            "workload": section.workload,
            "workload_version": section.version,
            "machine_class": section.machine_class,
            "tuning_effort": row.effort,
            "submission": row.submission,
            "hyperparameters": row.point,
            "counts": bool(counted([run])),
            **{name: value for name, value in run.items() if name in _OF_A_RUN},
        }
        for section in gathered.sections
        for row in section.rows
        for run in row.runs
    ]


_OF_A_RUN = (
    *("run_id", "seed", "outcome", "reason", "tainted", "time_to_target_s"),
    *("time_without_compile_s", "submission_time_s", "best_metric", "created_at", "git_commit"),
)


def provenance_rows(gathered: Gathered) -> list[dict[str, Any]]:
    """Return for each row its source and the command that makes it again."""
    return [_provenance(section, row) for section in gathered.sections for row in section.rows]


def _provenance(section: Section, row: Row) -> dict[str, Any]:
    found = origin(section, row)
    return {
        "workload": section.workload,
        "workload_version": section.version,
        "machine_class": section.machine_class,
        "tuning_effort": row.effort,
        "submission": row.submission,
        "hyperparameters": row.point,
        "source_sha256": row.figures["source_sha256"],
        "command": found.command,
        "remark": found.remark,
        "runs": [run["run_id"] for run in row.runs],
    }


def environment_rows(gathered: Gathered) -> list[dict[str, Any]]:
    """Return names and values of each machine class's environment."""
    rows = []
    for environment in environments(gathered):
        named = [("run", environment.run_id), *environment.fields]
        named += [(f"packages.{name}", value) for name, value in environment.packages.items()]
        named += [(f"commits.{name}", f"{n} runs") for name, n in environment.commits.items()]
        rows += [
            {"machine_class": environment.machine_class, "name": name, "value": value}
            for name, value in named
        ]
    return rows
