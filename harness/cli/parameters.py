"""Options and parameter types that several commands share, with shell completion."""

import os
from collections.abc import Callable, Mapping

import click
from click.shell_completion import CompletionItem

from harness import catalogue
from harness.cards import C
from harness.catalogue import Entry
from harness.counters import MAX_RANKS
from harness.data_files import FOLDER_VARIABLE, data_folder
from harness.errors import UsageError, one_of
from harness.suites import MARK, Suite, suites


class CommandGroup(click.Group):
    """A group that names its commands where one is asked for that it has not."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command, as click does."""
        known = self.commands
        if not ctx.resilient_parsing and args[0] not in known and not args[0].startswith("-"):
            raise one_of(f"After `{ctx.command_path}`, the command", args[0], known)
        return super().resolve_command(ctx, args)


class WorkloadName(click.ParamType[str]):
    """The name of a workload, of a family, or of a suite after @; completes from the catalogue."""

    name = "workload"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the matching families, full names and suites."""
        if incomplete.startswith(MARK):
            return _matching(
                {MARK + name: suite.title for name, suite in _suites().items()}, incomplete
            )
        cards = _cards(catalogue.workloads)
        names = {card.family: "" for card in cards} | {card.name: card.title for card in cards}
        return _matching(names, incomplete)


class SubmissionName(click.ParamType[str]):
    """The name of a submission, or a file; completes from the catalogue."""

    name = "submission"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the matching names; a path is completed by the shell."""
        if incomplete.startswith((".", "/", "~")):
            return [CompletionItem(incomplete, type="file")]
        before, plus, last = incomplete.rpartition("+")
        names = {card.name: card.title for card in _cards(catalogue.submissions)}
        return _matching(names, last, before + plus)


def _suites() -> dict[str, Suite]:
    try:
        return suites()
    except UsageError:
        return {}


def _cards(entries: Callable[[], Mapping[str, Entry[C]]]) -> list[C]:
    try:
        return [entry.card for entry in entries().values()]
    except UsageError:  # a broken card must not print into somebody's prompt
        return []


def _matching(names: Mapping[str, str], incomplete: str, before: str = "") -> list[CompletionItem]:
    return [
        CompletionItem(before + name, help=text)
        for name, text in names.items()
        if name.startswith(incomplete)
    ]


def names_in(text: str | None) -> list[str]:
    """Return the names in a list with commas."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


results_option = click.option(
    "--results",
    metavar="DIR",
    help="Where results live. [default: $BENCH_RESULTS, else ./results]",
)


nproc_option = click.option(
    "--nproc",
    type=click.IntRange(1, MAX_RANKS),
    default=1,
    show_default=True,
    metavar="N",
    help="Train in N processes that divide each batch: on N GPUs, or on the cores.",
)


def _use_data_folder(ctx: click.Context, param: click.Parameter, value: str | None) -> None:  # noqa: ARG001 - click's signature
    """Tell this process and its children, by the variable; put back when the command ends."""
    if not value or ctx.resilient_parsing:  # completing a half-typed line
        return
    before = os.environ.get(FOLDER_VARIABLE)
    os.environ[FOLDER_VARIABLE] = value
    os.environ[FOLDER_VARIABLE] = str(data_folder())  # children may work elsewhere
    ctx.call_on_close(lambda: _restore(before))


def _restore(before: str | None) -> None:
    if before is None:
        del os.environ[FOLDER_VARIABLE]
    else:
        os.environ[FOLDER_VARIABLE] = before


data_dir_option = click.option(
    "--data-dir",
    metavar="DIR",
    expose_value=False,
    callback=_use_data_folder,
    help="Where data files lie, see `bench data`. [default: $BENCH_DATA_DIR, else the cache]",
)
