"""`bench leaderboard`: the rankings of `harness.judging.leaderboard`, for people or programs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from harness import catalogue
from harness.cli import tables
from harness.cli.parameters import WorkloadName, results_option
from harness.cli.scores import Selection, print_scores, score_options
from harness.cli.tables import Column, Format
from harness.errors import UsageError
from harness.home import results_home
from harness.spec import ClockKind
from harness.suites import workloads_named


@click.command()
@click.option("-w", "--workload", type=WorkloadName(), help="Only this workload, or @SUITE.")
@click.option(
    "--clock",
    type=click.Choice(["cold", "warm"]),
    default="cold",
    show_default=True,
    help="Rank by time with compilation (cold) or without it (warm).",
)
@tables.format_option("table", "json", "csv", "md")
@click.option(
    "--from", "files", metavar="GLOB", help="Rank the runs in Parquet files: 'DIR/*.parquet'."
)
@score_options
@results_option
def leaderboard(
    workload: str | None,
    clock: ClockKind,
    form: Format,
    files: str | None,
    results: str | None,
    **chosen: Any,
) -> None:
    """Rank what was measured.

    Results of one workload version, machine class and tuning effort are ranked together,
    others never. Times are Kaplan–Meier medians over the untainted runs.

    With --score, submissions are ranked over all workloads: this home's runs, a table for each
    machine class and tuning effort, and the logs that `bench import` keeps here.
    """
    from harness.judging import leaderboard as judging

    if files is not None and results is not None:
        raise UsageError("--from names the runs' files, --results their folder. Give one.")
    home = results_home(results)
    selection = Selection(**chosen)
    if selection.score is not None:
        names = None if workload is None else workloads_named(workload)
        print_scores(home, selection, form, names=names, clock=clock, files=files)
        return
    selection.refuse_without_score()
    frame = judging.leaderboard(home, None, clock, files)
    rows = [
        row | {"hyperparameters": json.loads(row["hyperparameters"])} for row in frame.to_dicts()
    ]
    if workload is not None:
        names = _full_names(workload, {row["workload"] for row in rows})
        rows = [row for row in rows if row["workload"] in names]
    if form in ("json", "csv"):
        tables.print_rows(rows, [Column(field=name, header=name) for name in frame.columns], form)
    elif not rows:
        click.echo(_nothing_yet(home, workload))
    else:
        for place in dict.fromkeys(_place(row, judging.RANKED_WITHIN) for row in rows):
            group = [row for row in rows if _place(row, judging.RANKED_WITHIN) == place]
            _print_group(group, form, clock)


def _full_names(workload: str, measured: set[str]) -> list[str]:
    """Return the full names; a workload that was measured needs no card to be shown."""
    try:
        return workloads_named(workload)
    except UsageError:
        if workload in measured:
            return [workload]
        raise


def _place(row: Mapping[str, Any], within: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in within)


def _nothing_yet(home: Path, workload: str | None) -> str:
    what = "Nothing" if workload is None else f"Nothing on {workload}"
    name = workload or next(iter(catalogue.workloads()), "WORKLOAD")
    submission = next(iter(catalogue.submissions()), "SUBMISSION")
    return (
        f"{what} is measured in {home} yet. Run\n\n"
        f"    bench run --workload {name} --submission {submission}\n\n"
        f"or name another folder by --results."
    )


def _print_group(group: list[dict[str, Any]], form: Format, clock: ClockKind) -> None:
    first = group[0]
    title = (
        f"{first['workload']} v{first['workload_version']} · tuning effort: "
        f"{first['tuning_effort']} · {first['machine_class']}"
    )
    rows = [_for_people(row, group) for row in group]
    columns = [column for column in _COLUMNS if any(row[column.field] for row in rows)]
    click.echo(f"### {title}\n" if form == "md" else title)
    tables.print_rows(rows, columns, form)
    click.echo(f"\n{_sentence(group, clock)}\n")


def _for_people(row: dict[str, Any], group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    alike = [other for other in group if other["submission"] == row["submission"]]
    # Only what tells one row from its namesakes is worth the width.
    differing = {
        name: value
        for name, value in row["hyperparameters"].items()
        if any(other["hyperparameters"].get(name) != value for other in alike)
    }
    source = row["source_sha256"][:8]
    sources = {other["source_sha256"] for other in alike}
    gpu = row["gpu_peak_memory_bytes"]
    return {
        "rank": "" if row["rank"] is None else str(row["rank"]),
        "submission": row["submission"],
        "differing": tables.point(differing),
        "source": source if len(sources) > 1 else "",
        "reached": f"{row['reached']}/{row['runs']}",
        "time": _time(row),
        "range": _range(row),
        "normalised_time": _figure(tables.significant(row["normalised_time"])),
        "steps": _figure(tables.count(row["steps_to_target"])),
        "passes": _figure(tables.count(row["model_passes_to_target"])),
        "memory": _figure(tables.mebibytes(row["peak_memory_bytes"] if gpu is None else gpu)),
        "energy": _figure(tables.significant(row["energy_j"])),
        "left_out": _left_out(row),
    }


_COLUMNS = [
    Column(field="rank", header="#", number=True),
    Column(field="submission", header="submission"),
    Column(field="differing", header="point"),
    Column(field="source", header="source"),
    Column(field="reached", header="reached", number=True),
    Column(field="time", header="time, s", number=True),
    Column(field="range", header="range, s", number=True, drop=3),
    Column(field="normalised_time", header="paces", number=True, drop=2),
    Column(field="steps", header="steps", number=True, drop=4),
    Column(field="passes", header="passes", number=True, drop=1),
    Column(field="memory", header="MiB", number=True, drop=1),
    Column(field="energy", header="J", number=True, drop=1),
    Column(field="left_out", header="left out"),
]


def _figure(text: str) -> str:
    return "" if text == tables.MISSING else text


def _time(row: Mapping[str, Any]) -> str:
    if row["time_s"] is not None:
        return tables.significant(row["time_s"])
    return f"> {tables.significant(row['budget_s'])}" if row["runs"] else tables.MISSING


def _range(row: Mapping[str, Any]) -> str:
    if row["reached"] < 2:
        return ""
    return f"{tables.significant(row['fastest_s'])}–{tables.significant(row['slowest_s'])}"


def _left_out(row: Mapping[str, Any]) -> str:
    parts = [(row["tainted_left_out"], "tainted"), (row["unfinished_left_out"], "unfinished")]
    return ", ".join(f"{number} {what}" for number, what in parts if number)


def _sentence(group: Sequence[Mapping[str, Any]], clock: ClockKind) -> str:
    ranked = [row for row in group if row["rank"] is not None]
    if not ranked:
        return "No submission's median run reached the target: no rank is given."
    first = ranked[0]
    compiled = "" if clock == "cold" else ", compilation left out"
    sentence = (
        f"{first['submission']} reached the target in {tables.significant(first['time_s'])} s "
        f"(median of {first['runs']}{compiled})"
    )
    others = [row for row in ranked if row["submission"] != first["submission"]]
    if others and others[0]["time_s"] > first["time_s"]:
        ratio = others[0]["time_s"] / first["time_s"]
        sentence += f", {tables.significant(ratio)} times faster than {others[0]['submission']}"
    return f"{sentence}."
