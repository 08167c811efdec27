import contextlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from example_cards import SUBMISSION, changed
from hypothesis import given, settings
from hypothesis import strategies as st

import harness.run
from harness import catalogue
from harness.cli import COMMANDS, main


@pytest.fixture(scope="module", autouse=True)
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that stays empty: results, cache, leases and the working directory are in it."""
    before = Path.cwd()
    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.delenv("BENCH_RESULTS", raising=False)
        patch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # put back after --device cuda
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(harness.run, "carry_out", _must_not_start)
        patch.setattr(harness.run, "ensure_pace", _must_not_start)
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def _must_not_start(*arguments: object, **options: object) -> None:
    raise AssertionError("something was started")


def bench(*arguments: str) -> tuple[object, str, str]:
    """Call the command line; return exit code, standard output and standard error."""
    outputs = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(raw, "utf-8", "backslashreplace") for raw in outputs)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code
    out.flush()
    err.flush()
    return code, outputs[0].getvalue().decode(), outputs[1].getvalue().decode()


def refusal(empty: Path, *arguments: str) -> str:
    """Return the one message with which the command line refuses `arguments`."""
    code, out, err = bench(*arguments)
    assert (code, out) == (2, ""), (code, out, err)
    assert "Traceback" not in err
    assert err.count("Error: ") == 1 or not arguments  # alone, `bench` prints its help
    assert list(empty.iterdir()) == []
    return err


RUN = ("run", "-s", "lion", "-w", "resnet")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["rnu"], ["The command 'rnu' does not exist. Did you mean 'run'", "leaderboard"]),
        (["--rnu"], ["No such option '--rnu'"]),
        (["run"], ["Missing option '-s' / '--submission'"]),
        ([*RUN, "--nproc", "0"], ["Invalid value for '--nproc'", "1<=x<=64"]),
        (
            ["run", "-s", "sophia", "-w", "gpt", "--nproc", "2"],
            ["'sophia' does not train in several processes", "Leave --nproc out."],
        ),
        (
            [*RUN, "--nproc", "8", "--set", "recipe.batch_size=4"],
            ["recipe.batch_size is 4. Use --nproc 4 or fewer"],
        ),
        (["calibrate", "resnte"], ["The workload 'resnte' does not exist. Did you mean 'resnet'"]),
        (["calibrate", "resnet", "--margin", "nan"], ["--margin takes a number of sigmas"]),
        (["calibrate", "resnet", "--margin", "-1"], ["--margin takes a number of sigmas"]),
        (["calibrate", "resnet", "--target", "inf"], ["--target takes a finite value"]),
        (["calibrate", "resnet", "--target", "1", "--keep-target"], ["Give one"]),
        (["calibrate", "resnet", "--seeds", "1"], ["1 is not in the range 2<=x<=1000"]),
        (["run", "-s", "lion"], ["Missing option '-w' / '--workload'"]),
        ([*RUN, "-s"], ["Option '-s' requires an argument"]),
        ([*RUN, "more"], ["Got unexpected extra argument (more)"]),
        ([*RUN, "--sed", "1"], ["No such option '--sed'", "--seed"]),
        ([*RUN, "-s", "lyon"], ["The submission 'lyon'", "'lion'", "adamw", "./my_method.py"]),
        ([*RUN, "-s", "lion+sgd"], ["'lion' and 'sgd' both fill the place `optimizer`"]),
        ([*RUN, "-s", "./none.py"], ["none.py does not exist"]),
        ([*RUN, "-s", "~nobody-of-that-name/a.py"], ["cannot be found"]),
        ([*RUN, "-w", "resnt"], ["The workload 'resnt'", "'resnet'", "`bench list workloads`"]),
        ([*RUN, "--device", "cuda:99"], ["--device cpu", "Legal: auto, cpu"]),
        ([*RUN, "--device", "gpu"], ["The device 'gpu' does not exist", "auto, cpu, cuda, cuda:N"]),
        ([*RUN, "--set", "rl=1"], ["the hyperparameter 'rl'", "'lr'", "beta1, beta2"]),
        ([*RUN, "--set", "lr=fast"], ["lr takes a number, not 'fast'. Default: 1.0e-4"]),
        ([*RUN, "--set", "lr"], ["--set takes KEY=VALUE, not 'lr'. Example: --set lr=1e-3"]),
        ([*RUN, "--set", "recipe.batch_size=1e9"], ["more than the 997 training examples"]),
        ([*RUN, "--seed", "-1"], ["'--seed': -1 is not in the range 0<=x<="]),
        ([*RUN, "--seed", "one"], ["'--seed': 'one' is not a valid integer"]),
        ([*RUN, "--seeds", "0"], ["'--seeds': 0 is not in the range 1<=x<=10000"]),
        ([*RUN, "--seed", "1", "--seeds", "2"], ["--seed names one seed, --seeds counts several"]),
        ([*RUN, "--budget", "0"], ["'0' is no budget. Legal: a number in (0, 1e+09]"]),
        ([*RUN, "--budget", "nan"], ["'nan' is no budget"]),
        ([*RUN, "--budget", "inf"], ["'inf' is no budget"]),
        ([*RUN, "--seed", str(2**64)], ["is not in the range 0<=x<="]),
        ([*RUN, "--memory-limit", "9" * 40 + "TB"], ["is no size"]),
        ([*RUN, "--seeds", str(10**12)], ["is not in the range 1<=x<=10000"]),
        ([*RUN, "--memory-limit", "8 apples"], ["'8 apples' is no size. Examples: 800MB, 2GiB"]),
        ([*RUN, "--memory-limit", "0"], ["'0' is no size"]),
        ([*RUN, "--clock", "hot"], ["'hot' is not one of 'cold', 'warm'"]),
        ([*RUN, "--results", "/dev/null"], ["/dev/null", "is a file", "--results"]),
        ([*RUN, "--results", "/dev/null/x"], ["/dev/null/x", "--results"]),
        ([*RUN, "--results", "x" * 300], ["File name too long", "--results"]),
        (["pace", "-w", "nope"], ["The workload 'nope' does not exist"]),
        (["pace", "-w", "resnet", "--device", "tpu"], ["The device 'tpu' does not exist"]),
        (["leaderboard", "-w", "nope"], ["The workload 'nope' does not exist"]),
        (["leaderboard", "--format", "xml"], ["'xml' is not one of 'table', 'json', 'csv', 'md'"]),
        (["show"], ["Missing argument 'RUN'"]),
        (["show", "last"], ["There are no runs in ", "--results DIR"]),
        (["list", "things"], ["After `bench list`, the command 'things' does not exist", "runs"]),
        (["list", "runs", "--limit", "0"], ["0 is not in the range x>=1"]),
        (["list", "runs", "--results", "/dev/null"], ["is a file"]),
        (["query"], ["No SQL is given", "--schema"]),
        (["runs", "rm", "last", "--yes"], ["There are no runs in "]),
        (["db", "rebuild", "--results", "/dev/null"], ["is a file"]),
    ],
)
def test_a_mistake_gets_one_message_that_helps(
    empty: Path, arguments: Sequence[str], parts: Sequence[str]
) -> None:
    message = refusal(empty, *arguments)
    if "cuda:99" in arguments:  # what is wrong with it depends on the machine
        assert any(part in message for part in parts)
    else:
        assert [part for part in parts if part not in message] == []


# `doctor` needs nothing more, and tries the lease: tests/cli/test_doctor_command.py has it.
@pytest.mark.parametrize("command", ["", *(name for name in COMMANDS if name != "doctor")])
def test_a_command_alone_shows_its_help_or_says_what_is_missing(empty: Path, command: str) -> None:
    code, out, err = bench(*filter(None, [command]))
    assert "Traceback" not in out + err
    assert list(empty.iterdir()) == []
    assert code == (0 if command == "leaderboard" else 2)


def test_a_broken_card_stops_everything_that_needs_the_catalogue(
    tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "broken_cards"
    package.mkdir()
    (package / "__init__.py").touch()
    wrong = changed(SUBMISSION, "hyperparameters|lr|search|low", "2")
    (package / "steady.yaml").write_text(yaml.safe_dump(wrong))
    metadata = tmp_path / "broken_cards-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-cards\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[timetrial.submissions]\nany = broken_cards\n")
    monkeypatch.syspath_prepend(tmp_path)
    catalogue.submissions.cache_clear()
    try:
        for arguments in (RUN, ("list", "submissions"), ("pace", "-w", "resnet")):
            message = refusal(empty, *arguments)
            assert (
                f"The card {package / 'steady.yaml'} is invalid, field `hyperparameters.lr."
                in message
            )
            assert "low (2.0) must be less than high (1.0)" in message
    finally:
        catalogue.submissions.cache_clear()


# Laws: whatever else stands on the command line, one invalid piece is enough.

_TEXT = st.text(max_size=12) | st.sampled_from(["", " ", "nan", "-1", "é", "\udcff", "%s", "{}"])

_VALID = st.sampled_from(
    [
        ["--seed", "3"],
        ["--set", "lr=1e-3"],
        ["--set", "recipe.batch_size=32"],
        ["--device", "cpu"],
        ["--budget", "1e3"],
        ["--memory-limit", "2GiB"],
        ["--clock", "warm"],
        ["--share"],
        ["--json"],
        ["--results", "elsewhere"],
    ]
)


def _no_integer(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return True
    return False


_INVALID = st.one_of(
    _TEXT.filter(lambda text: text not in catalogue.submissions()).map(lambda text: ["-s", text]),
    _TEXT.filter(lambda text: text != "resnet").map(lambda text: ["-w", text]),
    _TEXT.map(lambda text: ["--device", f"x{text}"]),
    _TEXT.filter(lambda text: "=" not in text).map(lambda text: ["--set", text]),
    _TEXT.map(lambda text: ["--set", f"{text}.lr={text}"]),
    _TEXT.map(lambda text: ["--set", f"recipe.{text}=1"]),
    st.floats(min_value=1.0).map(lambda value: ["--set", f"beta1={value}"]),
    st.floats(max_value=-1e-9).map(lambda value: ["--set", f"beta1={value}"]),
    st.integers(max_value=-1).map(lambda seed: ["--seed", str(seed)]),
    _TEXT.filter(_no_integer).map(lambda text: ["--seed", text]),
    st.integers(max_value=0).map(lambda number: ["--seeds", str(number)]),
    st.floats(max_value=0.0).map(lambda budget: ["--budget", str(budget)]),
    _TEXT.filter(lambda text: not any(c.isdecimal() for c in text)).map(
        lambda text: ["--memory-limit", text]
    ),
    _TEXT.map(lambda text: ["--clock", f"x{text}"]),
    _TEXT.map(lambda text: [f"extra{text}"]),
    st.sampled_from(
        [["--frobnicate"], ["--json=1"], ["-x"], ["--set"], ["--results", "/dev/null"]]
    ),
)


@settings(max_examples=400, deadline=5000)
@given(
    before=st.lists(_VALID, max_size=3), invalid=_INVALID, flags=st.sampled_from([[], ["--json"]])
)
def test_any_invalid_piece_of_a_run_is_refused(
    empty: Path, before: list[list[str]], invalid: list[str], flags: list[str]
) -> None:
    refusal(empty, *RUN, *(word for piece in before for word in piece), *flags, *invalid)


_COMMANDS = st.sampled_from(
    [
        ["show"],
        ["list", "runs"],
        ["list", "submissions"],
        ["list", "workloads"],
        ["pace", "-w", "resnet"],
        ["runs", "rm"],
        ["db", "rebuild"],
        ["query", "SELECT 1"],
        ["leaderboard"],
        ["list"],
        [],
    ]
)


@settings(max_examples=200, deadline=5000)
@given(command=_COMMANDS, text=_TEXT, option=st.sampled_from(["--format", "--no-such", ""]))
def test_any_command_refuses_what_it_does_not_know(
    empty: Path, command: list[str], text: str, option: str
) -> None:
    refusal(empty, *command, *([f"{option}=x{text}"] if option else ["--", f"x{text}", "y"]))
