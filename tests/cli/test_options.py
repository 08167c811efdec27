from collections.abc import Iterator

import click

from harness.cli import COMMANDS, bench

# Every command, option, type and default. A change here is a change to what people's scripts
# rely on: make it on purpose, and say so in the commit.
OPTIONS = {
    "bench": ["--version: flag"],
    "bench run": [
        "-s --submission: submission, required",
        "-w --workload: workload, required",
        "--seed: integer >=0 <=9223372036854775807",
        "--seeds: integer >=1 <=10000",
        "--set: text, repeatable",
        "--device: text = auto",
        "--nproc: integer >=1 <=64 = 1",
        "--data-dir: text",
        "--results: text",
        "--budget: paces",
        "--memory-limit: bytes",
        "--clock: cold|warm = cold",
        "--share: flag",
        "--json: flag",
    ],
    "bench leaderboard": [
        "-w --workload: workload",
        "--clock: cold|warm = cold",
        "--axis: time|normalised|steps|examples|passes|memory|energy",
        "--at-time: moment",
        "--pareto: flag",
        "--format: table|json|csv|md = table",
        "--from: text",
        "--score: suite|algoperf",
        "--rule: documented|as-published",
        "--targets: text",
        "--from-import: text",
        "--exclude: text, repeatable",
        "--relative-to: text",
        "--results: text",
    ],
    "bench import": [],
    "bench import algoperf": [
        "SOURCE: path, required",
        "--targets: text",
        "--name: text",
        "--results: text",
    ],
    "bench report": [
        "-o --output: path",
        "-w --workload: text",
        "-s --submission: text",
        "--clock: cold|warm = cold",
        "--format: html|md|csv|json = html",
        "--table: text",
        "--results: text",
    ],
    "bench plot": [],
    "bench plot curve": [
        "--x: time|steps|examples|passes = time",
        "-o --output: path, required",
        "-w --workload: text",
        "-s --submission: text",
        "--clock: cold|warm = cold",
        "--results: text",
    ],
    "bench plot profile": [
        "-o --output: path, required",
        "-w --workload: text",
        "-s --submission: text",
        "--clock: cold|warm = cold",
        "--results: text",
    ],
    "bench plot pareto": [
        "--y: memory|energy = memory",
        "-o --output: path, required",
        "-w --workload: text",
        "-s --submission: text",
        "--clock: cold|warm = cold",
        "--results: text",
    ],
    "bench plot leaderboard": [
        "-o --output: path, required",
        "-w --workload: text",
        "-s --submission: text",
        "--clock: cold|warm = cold",
        "--results: text",
    ],
    "bench show": [
        "NAME: run, required",
        "--source: flag",
        "--format: table|json = table",
        "--results: text",
    ],
    "bench list": [],
    "bench list submissions": ["--format: table|json = table"],
    "bench list workloads": ["--format: table|json = table"],
    "bench list suites": ["--format: table|json = table"],
    "bench list runs": [
        "--format: table|json = table",
        "--results: text",
        "--limit: integer >=1 = 20",
    ],
    "bench query": [
        "SQL: text",
        "--schema: flag",
        "--format: table|json|csv|md = table",
        "--results: text",
    ],
    "bench export": [],
    "bench export parquet": ["FOLDER: directory, required", "--name: text", "--results: text"],
    "bench db": [],
    "bench db rebuild": ["--results: text"],
    "bench runs": [],
    "bench runs rm": ["NAMES: run, required, repeatable", "--yes: flag", "--results: text"],
    "bench calibrate": [
        "WORKLOAD: workload, required",
        "--seeds: integer >=2 <=1000 = 20",
        "--rival-seeds: integer >=0 <=100 = 3",
        "--margin: float = 3.0",
        "--target: float",
        "--keep-target: flag",
        "--device: text = auto",
        "--write: flag",
        "--restart: flag",
        "--data-dir: text",
        "--results: text",
    ],
    "bench sweep": [
        "PLAN: file",
        "-s --submission: text",
        "-w --workload: text",
        "--seeds: integer >=1 <=10000",
        "--first-seed: integer >=0 <=9223372036854775807",
        "--ruleset: text",
        "--trials: integer >=1 <=10000",
        "--studies: integer >=1 <=1000",
        "--budget: paces",
        "--nproc: integer >=1 <=64",
        "--device: text = auto",
        "--jobs: integer >=1 <=1024",
        "--executor: local|ray = local",
        "--ray-address: text",
        "--ray-nodes: text",
        "--retry-failed: flag",
        "--retry-tainted: flag",
        "--dry-run: flag",
        "--data-dir: text",
        "--results: text",
    ],
    "bench compare": [
        "A: submission, required",
        "B: submission, required",
        "-w --workload: workload, required, repeatable",
        "--pairs: integer >=2 <=10000",
        "--until-decided: flag",
        "--max-pairs: integer >=2 <=1000",
        "--set: text, repeatable",
        "--set-a: text, repeatable",
        "--set-b: text, repeatable",
        "--effect: share = 0.05",
        "--alpha: share = 0.01",
        "--clock: cold|warm = cold",
        "--first-seed: integer >=0 <=9223372036854775807",
        "--budget: paces",
        "--device: text = auto",
        "--retry-failed: flag",
        "--retry-tainted: flag",
        "--dry-run: flag",
        "--format: table|json|csv|md = table",
        "--data-dir: text",
        "--results: text",
    ],
    "bench claims": [],
    "bench claims list": [
        "--format: table|json|csv|md = table",
        "--results: text",
    ],
    "bench claims show": [
        "SUBMISSION: submission, required",
        "--format: table|json = table",
        "--results: text",
    ],
    "bench claims run": [
        "SUBMISSIONS: submission, repeatable",
        "--all: flag",
        "--trials: integer >=1 <=1000 = 5",
        "--pairs: integer >=2 <=1000 = 8",
        "--device: text = auto",
        "--dry-run: flag",
        "--data-dir: text",
        "--results: text",
    ],
    "bench tune": [
        "-s --submission: submission, required",
        "-w --workload: workload, required",
        "--trials: integer >=2 <=10000 = 16",
        "--seeds: integer >=1 <=10000 = 1",
        "--across-workloads: flag",
        "--points-seed: integer >=0 = 0",
        "--nproc: integer >=1 <=64 = 1",
        "--device: text = auto",
        "--jobs: integer >=1 <=1024",
        "--executor: local|ray = local",
        "--ray-address: text",
        "--ray-nodes: text",
        "--write: flag",
        "--dry-run: flag",
        "--data-dir: text",
        "--results: text",
    ],
    "bench sensitivity": [
        "-s --submission: text, required",
        "-w --workload: workload, required",
        "--hyperparameter: text = lr",
        "--decades: float",
        "--low: float",
        "--high: float",
        "--points: integer >=1 <=20 = 2",
        "--seeds: integer >=1 <=10000 = 1",
        "--set: text, repeatable",
        "--device: text = auto",
        "--jobs: integer >=1 <=1024",
        "--plot: file",
        "--format: table|json|csv|md = table",
        "--dry-run: flag",
        "--data-dir: text",
        "--results: text",
    ],
    "bench doctor": ["--device: text = auto", "--format: table|json = table", "--results: text"],
    "bench new": [],
    "bench new submission": [
        "NAME: text, required",
        "--kind: optimizer|schedule|data|zeroth-order|objective|parameterization|averaging|"
        "procedure, required",
        "--directory: text",
    ],
    "bench pace": [
        "-w --workload: workload, required",
        "--device: text = auto",
        "--measure: flag",
        "--format: table|json = table",
        "--data-dir: text",
        "--results: text",
    ],
    "bench data": [],
    "bench data list": ["--format: table|json = table", "--data-dir: text"],
    "bench data get": ["TARGETS: target, required, repeatable", "--data-dir: text"],
    "bench data verify": [
        "TARGETS: target, repeatable",
        "--format: table|json = table",
        "--data-dir: text",
    ],
}


def commands(
    command: click.Command, name: str, context: click.Context
) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from commands(found, f"{name} {below}", context)


def described(parameter: click.Parameter, context: click.Context) -> str:
    name = " ".join(parameter.opts + parameter.secondary_opts)
    if isinstance(parameter, click.Argument):
        name = name.upper()
    assert parameter.envvar is None
    if isinstance(parameter, click.Option) and parameter.is_flag:
        assert parameter.get_default(context) is not True
        return f"{name}: flag"
    kind = parameter.type
    if isinstance(kind, click.Choice):
        text = "|".join(kind.choices)
    elif isinstance(kind, click.IntRange | click.FloatRange):
        assert (kind.clamp, kind.max_open) == (False, False)
        text = kind.name.removesuffix(" range")
        text += "" if kind.min is None else f" >{'' if kind.min_open else '='}{kind.min}"
        text += "" if kind.max is None else f" <={kind.max}"
    else:
        text = kind.name
    text += ", required" if parameter.required else ""
    text += ", repeatable" if parameter.multiple or parameter.nargs == -1 else ""
    default = parameter.get_default(context)
    given = isinstance(default, str | int | float)  # click has a mark of its own for none
    return f"{name}: {text}" + (f" = {default}" if given else "")


def test_the_command_line_is_this_table() -> None:
    context = click.Context(bench)
    found = {
        name: [described(parameter, context) for parameter in command.params]
        for name, command in commands(bench, "bench", context)
    }
    assert found == OPTIONS


def test_every_command_and_option_says_what_it_is_for() -> None:
    context = click.Context(bench)
    for name, command in commands(bench, "bench", context):
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts[0]}"


def test_one_option_means_the_same_everywhere() -> None:
    context = click.Context(bench)
    names: dict[str, set[str | None]] = {}
    for _, command in commands(bench, "bench", context):
        for parameter in command.params:
            for option in parameter.opts:
                names.setdefault(option, set()).add(parameter.name)
    assert {option for option, meanings in names.items() if len(meanings) > 1} == set()


def test_the_help_lists_every_command_without_importing_it() -> None:
    context = click.Context(bench)
    text = bench.get_help(context)
    for name, (_, _, line) in COMMANDS.items():
        assert f"  {name} " in text
        assert line in text
