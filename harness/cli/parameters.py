"""Options and parameter types that several commands share, with shell completion."""

import click
from click.shell_completion import CompletionItem

from harness import catalogue
from harness.cards import SubmissionCard, WorkloadCard
from harness.errors import UsageError


class WorkloadName(click.ParamType):
    """The name of a workload or of a family; completes from the catalogue."""

    name = "workload"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the matching families and full names."""
        cards = [entry.card for entry in _quietly(catalogue.workloads)]
        names = {card.family: "" for card in cards if isinstance(card, WorkloadCard)}
        names |= {card.name: card.title for card in cards if isinstance(card, WorkloadCard)}
        return _matching(names, incomplete)


class SubmissionName(click.ParamType):
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
        cards = [entry.card for entry in _quietly(catalogue.submissions)]
        names = {card.name: card.title for card in cards if isinstance(card, SubmissionCard)}
        return _matching(names, incomplete)


def _quietly(entries):  # type: ignore[no-untyped-def]
    try:
        return entries().values()
    except UsageError:  # a broken card must not print into somebody's prompt
        return ()


def _matching(names: dict[str, str], incomplete: str) -> list[CompletionItem]:
    return [
        CompletionItem(name, help=text)
        for name, text in names.items()
        if name.startswith(incomplete)
    ]


results_option = click.option(
    "--results",
    metavar="DIR",
    help="Where results live. [default: $BENCH_RESULTS, else ./results]",
)
