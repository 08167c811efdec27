"""`bench report`: what was measured, as one page or as tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from harness.cli.parameters import names_in, results_option
from harness.errors import UsageError, one_of
from harness.home import results_home
from harness.spec import ClockKind

if TYPE_CHECKING:
    from harness.reports.gathering import Gathered

ReportFormat = Literal["html", "md", "csv", "json"]
DEFAULT_PAGE = "report.html"


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="PATH",
    help="The file, or the folder of several CSV files; an older one is replaced. "
    f"[default: {DEFAULT_PAGE}; md and json: stdout]",
)  # fmt: skip
@click.option("-w", "--workload", metavar="W,@SUITE,…", help="Only these. [default: all]")
@click.option("-s", "--submission", metavar="A,B,…", help="Only these. [default: all]")
@click.option(
    "--clock",
    type=click.Choice(["cold", "warm"]),
    default="cold",
    show_default=True,
    help="Rank by time with compilation (cold) or without it (warm).",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(ReportFormat)),
    default="html",
    show_default=True,
    help="A page with figures, or its tables: csv and json carry every field, unrounded.",
)
@click.option("--table", metavar="NAME", help="Only this table, with csv, json or md.")
@results_option
def report(
    output: Path | None,
    workload: str | None,
    submission: str | None,
    clock: ClockKind,
    form: ReportFormat,
    table: str | None,
    results: str | None,
) -> None:
    """Write what was measured as one page that opens offline, or as tables.

    The page has the leaderboards, performance profiles, learning curves, the Pareto plot,
    telemetry, environment and provenance. Choosing workloads or submissions says what is shown:
    ranks stay those among all that was measured.

    \b
    Examples:
      bench report -o report.html
      bench report -w @core -s adamw,lion --format md
      bench report --format csv -o tables/
      bench report --format csv --table runs
    """  # noqa: D301 - click reads the backspace
    from harness.reports.gathering import gather
    from harness.reports.tables import TABLES

    if table is not None and form == "html":
        raise UsageError("--table goes with --format csv, json or md: the page has all tables.")
    if table is not None and table not in TABLES:
        raise one_of("The table", table, TABLES)
    several_files = form == "csv" and table is None
    if several_files and output is None:
        raise UsageError(
            "CSV is a file a table: name a folder, -o tables/, or one table, --table "
            f"{'|'.join(TABLES)}."
        )
    if form == "html":
        output = output or Path(DEFAULT_PAGE)
    _check(output, several_files)
    home = results_home(results)
    gathered = gather(home, names_in(workload), names_in(submission), clock)
    _deliver(gathered, form, table, output)


def _check(output: Path | None, folder: bool) -> None:
    """Find out before the work whether its result can be kept."""
    from harness.reports.writing import check_writable

    if output is None:
        return
    if not folder:
        check_writable(output)
    elif output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file: --format csv writes a folder of several.")


def _deliver(
    gathered: "Gathered", form: ReportFormat, table: str | None, output: Path | None
) -> None:
    import datetime

    from harness.reports import documents
    from harness.reports.tables import tables
    from harness.reports.writing import write_whole

    if form == "html":
        from harness.reports.page import page

        text = page(gathered, datetime.datetime.now(datetime.UTC))
    elif form == "csv" and table is None:
        assert output is not None
        _write_folder(documents.csv_files(tables(gathered)), output)
        return
    else:
        text = documents.document(gathered, form, table)
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    write_whole(output, text.encode("utf-8", "backslashreplace"))
    click.echo(f"Written to {output}: {_summary(gathered)}.", err=True)


def _write_folder(files: dict[str, str], folder: Path) -> None:
    from harness.reports.writing import write_whole

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {folder} cannot be made: {error}.") from None
    for name, text in files.items():
        write_whole(folder / name, text.encode("utf-8", "backslashreplace"))
    click.echo(f"Written to {folder}: {', '.join(files)}.", err=True)


def _summary(gathered: "Gathered") -> str:
    from harness.wording import counted

    runs = sum(len(row.runs) for row in gathered.rows)
    workloads = len({section.workload for section in gathered.sections})
    return f"{counted(runs, 'run')} on {counted(workloads, 'workload')}"
