"""`bench doctor`: what can be measured here, and what makes timing untrustworthy."""

import dataclasses
from collections.abc import Sequence

import click

from harness.cli import EXIT_OK, tables
from harness.cli.parameters import results_option
from harness.cli.tables import Format
from harness.doctor.finding import Finding
from harness.home import results_home
from harness.table_text import Column


@click.command()
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (the processor and every GPU), cpu, cuda or cuda:N.",
)
@tables.format_option("table", "json")
@results_option
def doctor(device: str, form: Format, results: str | None) -> int:
    """Say what can be measured here and what makes timing untrustworthy.

    It looks for a second, changes nothing, and exits 0 whatever it finds.
    """
    from harness.doctor.examination import examine

    examination = examine(device, results_home(results))
    if form == "json":
        tables.print_json(dataclasses.asdict(examination))
        return EXIT_OK
    click.echo(f"{examination.machine_class}\n")
    click.echo("What can be measured here\n")
    _print_findings(examination.measurable, form)
    click.echo("\nWhat makes timing untrustworthy here\n")
    _print_findings(examination.disturbances, form)
    click.echo(f"\n{examination.verdict}")
    return EXIT_OK


def _print_findings(findings: Sequence[Finding], form: Format) -> None:
    columns = [
        Column(field="check", header="check"),
        Column(field="status", header="status", whole=True),
        Column(field="found", header="found"),
        Column(field="advice", header="what to do", text=lambda advice: advice or ""),
    ]
    tables.print_rows([dataclasses.asdict(finding) for finding in findings], columns, form)
