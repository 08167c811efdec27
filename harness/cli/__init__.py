"""The `bench` command. Subcommands load when they are called, so `--help` stays quick."""

import importlib
import sys
from collections.abc import Sequence

import click

from harness import __version__
from harness.errors import UsageError, one_of

EXIT_OK = 0
EXIT_FAILED_CHECK = 1
EXIT_USAGE = 2
EXIT_RUN_ENDED_OTHERWISE = 4
EXIT_INTERRUPTED = 130

# name: (module in harness.cli, attribute, the line in --help)
COMMANDS = {
    "run": ("run", "run", "Time a submission on a workload to its target."),
    "leaderboard": ("leaderboard", "leaderboard", "Rank what was measured on this machine class."),
    "report": ("report", "report", "Write one page, or tables, of what was measured."),
    "plot": ("plot", "plot", "Draw curves, profiles, Pareto plots as PNG or SVG."),
    "show": ("show", "show", "Show one run: curve, telemetry, environment, source."),
    "list": ("listing", "listing", "List submissions, workloads, suites or runs."),
    "sweep": (
        "sweep",
        "sweep",
        "Run many submissions on many workloads, resumably.",
    ),
    "compare": ("compare", "compare", "Say whether A is faster than B, from interleaved pairs."),
    "claims": ("claims", "claims", "List and measure what papers claim."),
    "tune": ("tune", "tune", "Find a submission's hyperparameters on workloads."),
    "sensitivity": (
        "sensitivity",
        "sensitivity",
        "Show how a result depends on the learning rate.",
    ),
    "query": ("query", "query", "Ask the index in SQL."),
    "export": ("export", "export", "Write the runs as Parquet, for other places."),
    "import": ("importing", "import_group", "Import other benchmarks' logs, to be scored here."),
    "db": ("db", "db", "Look after the index of the runs."),
    "runs": ("runs", "runs", "Look after the run directories."),
    "pace": ("pace", "pace", "Show or measure the pace of a workload on this machine."),
    "calibrate": ("calibrate", "calibrate", "Measure what a workload's card freezes."),
    "data": ("data", "data", "List, get and verify the data files of real workloads."),
    "doctor": ("doctor", "doctor", "Say what can be measured here, and what spoils timing."),
    "new": ("new", "new", "Start a submission: file, card and test."),
}


class LazyGroup(click.Group):
    """Imports a subcommand's module only when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table above."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command; where there is none of that name, name the nearest."""
        if cmd_name not in COMMANDS:
            if ctx.resilient_parsing:  # completing a half-typed line, not running it
                return None
            raise one_of("The command", cmd_name, COMMANDS)
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"harness.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands' lines without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="timetrial")
def bench() -> None:
    """Put claims about faster training against the clock."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the process's exit code says how it went (see CONTRIBUTING)."""
    try:
        code = bench.main(args=arguments, prog_name="bench", standalone_mode=False)
    except UsageError as error:
        click.echo(f"Error: {error}", err=True)
        code = EXIT_USAGE
    except click.ClickException as error:
        error.show()
        code = EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        code = EXIT_OK
    sys.exit(code if isinstance(code, int) else EXIT_OK)
