"""`bench query`: the index in SQL."""

import click

from harness.cli import tables
from harness.cli.parameters import results_option
from harness.cli.tables import Format
from harness.errors import UsageError
from harness.home import results_home
from harness.table_text import Column


@click.command(
    epilog='For instance: bench query "SELECT submission, median(steps) FROM runs GROUP BY ALL"'
)
@click.argument("sql", required=False)
@click.option("--schema", is_flag=True, help="Print the tables and what their columns mean.")
@tables.format_option("table", "json", "csv", "md")
@results_option
def query(sql: str | None, schema: bool, form: Format, results: str | None) -> None:
    """Ask the index in one reading SQL statement."""
    from harness.records import index

    if schema:
        _print_schema(form)
        return
    if sql is None:
        raise UsageError(
            "No SQL is given. Write a statement, as in "
            '`bench query "SELECT run_id, outcome FROM runs"`, or see `bench query --schema`.'
        )
    frame = index.query(results_home(results), sql)
    tables.print_frame(frame.to_dicts(), frame.columns, form)


def _print_schema(form: Format) -> None:
    from harness.records import schema

    columns = [
        Column(field="column", header="column", whole=True),
        Column(field="type", header="type", whole=True),
        Column(field="comment", header="meaning"),
    ]
    rows = schema.schema_rows()
    if form == "md":
        click.echo(schema.schema_text())
    elif form == "table":
        for table in schema.TABLES:
            click.echo(f"{table.name}: {table.comment}\n")
            tables.print_rows([row for row in rows if row["table"] == table.name], columns, form)
            click.echo()
    else:
        tables.print_rows(rows, columns, form)
