"""`bench data`: the official files that workloads of the tier `real` are prepared from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.shell_completion import CompletionItem

from harness import catalogue, data_files, wording
from harness.cards import DataFile, WorkloadCard
from harness.cli import EXIT_FAILED_CHECK, EXIT_OK, tables
from harness.cli.parameters import CommandGroup, WorkloadName, data_dir_option
from harness.cli.tables import Format
from harness.errors import UsageError, one_of
from harness.suites import MARK, workloads_named
from harness.table_text import Column

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

MB = 1e6

_format_option = tables.format_option("table", "json")


class FileOrWorkload(WorkloadName):
    """A workload's name, a suite's after @, or a data file's; completes all three."""

    name = "target"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the matching names."""
        names = super().shell_complete(ctx, param, incomplete)
        try:
            files = data_files.known_files()
        except UsageError:
            return names
        return names + [CompletionItem(name) for name in files if name.startswith(incomplete)]


@click.group(cls=CommandGroup)
def data() -> None:
    """List, get and verify the data files of real workloads.

    Nothing is downloaded but by `bench data get`. Files lie in --data-dir, else
    $BENCH_DATA_DIR, else the cache, under the names that `bench data list` shows.
    """


@data.command("list")
@_format_option
@data_dir_option
def list_files(form: Format) -> None:
    """List the workloads that need files, and which of these are here.

    `present` files have the right size; `bench data verify` hashes them.
    """
    rows = [_row(card) for card in _cards_with_files()]
    columns = [
        Column(field="workload", header="workload", whole=True),
        Column(field="files", header="files", text=_how_many, number=True),
        Column(field="bytes", header="MB", text=_megabytes, number=True),
        Column(field="here", header="state", whole=True),
        Column(field="licence", header="licence", drop=1),
        Column(field="source", header="source", drop=2),
    ]
    if form == "table" and not rows:
        click.echo("No workload needs files.")
        return
    if form == "table":
        for row in rows:
            row["here"] = _state_in_words(row)
    tables.print_rows(rows, columns, form)
    if form == "table":
        click.echo(f"The files' folder: {data_files.data_folder()}")


@data.command()
@click.argument(
    "targets", metavar="WORKLOAD|@SUITE|FILE...", nargs=-1, required=True, type=FileOrWorkload()
)
@data_dir_option
def get(targets: tuple[str, ...]) -> int:
    """Download the files of workloads or suites, or single files, and check them.

    Files that are here and right are left alone, so the same command goes on after a failure.

    \b
    Examples:
      bench data get resnet/fashion
      bench data get @real --data-dir /scratch/data

    Exit codes: 0 all files are here and right; 1 one is not, and why; 2 usage;
    130 interrupted.
    """  # noqa: D301 - click reads the backspace
    files = _files_named(targets)
    if not files:
        click.echo("These workloads need no files.", err=True)
        return EXIT_OK
    wanted = [file for file in files if data_files.state(file, again=True) != "verified"]
    failures = _download(wanted) if wanted else []
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)
    click.echo(
        f"{len(files) - len(failures)} of {len(files)} files are in {data_files.data_folder()}, "
        f"verified ({len(wanted) - len(failures)} downloaded).",
        err=True,
    )
    return EXIT_FAILED_CHECK if failures else EXIT_OK


@data.command()
@click.argument("targets", metavar="[WORKLOAD|@SUITE|FILE...]", nargs=-1, type=FileOrWorkload())
@_format_option
@data_dir_option
def verify(targets: tuple[str, ...], form: Format) -> int:
    """Hash the files again: of these workloads, or all.

    Exit codes: 0 all are here and right; 1 one is missing or damaged; 2 usage.
    """
    files = _files_named(targets) if targets else list(data_files.known_files().values())
    rows = [_file_row(file, again=True) for file in files]
    columns = [
        Column(field="name", header="file", whole=True),
        Column(field="bytes", header="MB", text=_megabytes, number=True),
        Column(field="state", header="state", whole=True),
    ]
    tables.print_rows(rows, columns, form)
    wrong = [row for row in rows if row["state"] != "verified"]
    if wrong and form == "table":
        click.echo(
            f"{len(wrong)} of {len(rows)} files are missing or damaged in "
            f"{data_files.data_folder()}. `bench data get` downloads and replaces them."
        )
    return EXIT_FAILED_CHECK if wrong else EXIT_OK


def _cards_with_files() -> list[WorkloadCard]:
    cards = [entry.card for entry in catalogue.workloads().values()]
    return [card for card in cards if card.data.files]


def _files_named(targets: Iterable[str]) -> list[DataFile]:
    """Return the files behind names of workloads, suites and files, each once."""
    known = data_files.known_files()
    names: dict[str, DataFile] = {}
    for target in targets:
        if target in known:
            names[target] = known[target]
            continue
        for file in _files_of(target, known):
            names[file.name] = file
    return list(names.values())


def _files_of(target: str, known: Mapping[str, DataFile]) -> list[DataFile]:
    if not target.startswith(MARK):
        workloads = catalogue.workloads()
        families = {entry.card.family for entry in workloads.values()}
        if target not in workloads.keys() | families:
            raise one_of(
                "The workload or file",
                target,
                [card.name for card in _cards_with_files()] + list(known),
                "See `bench data list`.",
            )
    cards = [catalogue.workload(name).card for name in workloads_named(target)]
    return [file for card in cards for file in card.data.files]


def _row(card: WorkloadCard) -> dict[str, Any]:
    from harness.prepared_paths import is_prepared

    files = [_file_row(file) for file in card.data.files]
    states = {row["state"] for row in files}
    return {
        "workload": card.name,
        "files": files,
        "bytes": sum(file.bytes for file in card.data.files),
        "state": next(state for state in data_files.STATES if state in states),
        "prepared": is_prepared(card),
        "licence": card.data.licence,
        "source": card.data.source,
    }


def _file_row(file: DataFile, *, again: bool = False) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(file),
        "path": str(data_files.local_path(file)),
        "state": data_files.state(file, again=again),
    }


def _state_in_words(row: Mapping[str, Any]) -> str:
    state, files = row["state"], row["files"]
    n = sum(file["state"] == state for file in files)
    words = state if n == len(files) else f"{state} ({n} of {len(files)})"
    return f"{words}, prepared" if row["prepared"] else str(words)


def _how_many(files: Sequence[object]) -> str:
    return str(len(files))


def _megabytes(size: int) -> str:
    return wording.significant(size / MB)


def _download(files: Sequence[DataFile]) -> list[str]:
    """Download the files one by one; return what went wrong."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    failures = []
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(file=sys.stderr),
    ) as progress:
        for file in files:
            task = progress.add_task(file.name, total=file.bytes)
            try:
                data_files.fetch(file, _Bar(progress, task))
            except data_files.DownloadFailedError as error:
                progress.remove_task(task)
                failures.append(str(error))
    return failures


class _Bar:
    """A bar of rich with tqdm's methods, which pooch calls."""

    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress = progress
        self._task = task
        self.total = 0  # what the server announces; the card knows better

    def update(self, n: int) -> None:
        """Advance by `n` bytes."""
        self._progress.advance(self._task, n)

    def reset(self) -> None:
        """Begin anew: pooch does before it reports the whole."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Leave the full bar."""
