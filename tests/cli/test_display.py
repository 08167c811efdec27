import io
from pathlib import Path
from typing import Literal

import pytest
from records.synthetic_runs import SyntheticRun
from rich.console import Console
from rich.text import Text

from harness.cli.display import Display, one_sentence, sparkline
from harness.events import Ended, Evaluation
from harness.records.index import ingest
from harness.records.record import RunDetail, summarise
from harness.records.run_directory import run_directories
from harness.referee.observer import Status
from harness.telemetry.reading import Reading

READING = Reading(
    wall_ns=0,
    on_clock=True,
    memory_bytes=300 << 20,
    gpu_utilisation=0.5,
    gpu_power_w=250.0,
    gpu_memory_bytes=2 << 30,
)


def status(reading: Reading | None = READING, *, running: bool = True) -> Status:
    return Status(
        elapsed_ns=2_500_000_000,
        running=running,
        steps=250,
        examples=2500,
        model_passes=7500,
        reading=reading,
    )


def detail(run: SyntheticRun) -> RunDetail:
    return summarise(run.spec(), run.events())


def evaluations(run: SyntheticRun) -> list[Evaluation]:
    return [event for event in run.events() if isinstance(event, Evaluation)]


class Screen:
    """A display on a console that a test can read."""

    def __init__(
        self,
        home: Path,
        *,
        terminal: bool,
        runs: int = 1,
        clock: Literal["cold", "warm"] = "cold",
        environment: dict[str, str] | None = None,
    ) -> None:
        self._file = io.StringIO()
        # rich guesses at terminals by TERM and at colours by NO_COLOR.
        self.console = Console(
            file=self._file,
            width=80,
            force_terminal=terminal,
            highlight=False,
            _environ={"TERM": "xterm-256color", **(environment or {})},
        )
        self.display = Display(self.console, home, clock, runs)

    def text(self) -> str:
        return self._file.getvalue()


def show_whole_run(screen: Screen, run: SyntheticRun) -> None:
    screen.display.preparing(run.spec(), status)
    screen.display.started()
    for evaluation in evaluations(run):
        screen.display.evaluated(evaluation)
    screen.display.finishing(run.outcome, run.reason)
    ended = run.events()[-1]
    assert isinstance(ended, Ended)
    screen.display.ended(ended)
    screen.display.summary(detail(run))


def test_without_a_terminal_each_evaluation_is_one_plain_line(tmp_path: Path) -> None:
    screen = Screen(tmp_path, terminal=False)
    show_whole_run(screen, SyntheticRun(run_id="r", submission="lion"))
    text = screen.text()
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "lion on blobs/two v1, seed 0, to accuracy ≥ 0.9000"
    assert lines[1].split() == ["1", "s", "step", "100", "accuracy", "0.5000"]
    assert lines[3].endswith("accuracy 0.9200 ← target")
    assert "reached in 3 s (300 steps, 3,000 paces)" in text


def test_a_terminal_gets_a_panel_and_no_line_an_evaluation(tmp_path: Path) -> None:
    screen = Screen(tmp_path, terminal=True)
    run = SyntheticRun(run_id="r")
    screen.display.preparing(run.spec(), status)
    screen.display.started()
    for evaluation in evaluations(run):
        screen.display.evaluated(evaluation)
    with screen.console.capture() as captured:
        screen.console.print(screen.display._panel())
    screen.display.close()
    panel = Text.from_ansi(captured.get()).plain
    assert "training" in panel
    assert "0.9300 → 0.9000" in panel
    assert "▁" in panel
    assert "2.5 s, 7.5 s of budget left (25% used)" in panel
    assert "1,000 examples/s, step 250" in panel
    assert "300 MiB" in panel
    assert "GPU" not in panel  # a CPU run has none
    assert "step    100" not in screen.text()


def test_the_panel_says_when_the_clock_stands(tmp_path: Path) -> None:
    screen = Screen(tmp_path, terminal=True)
    screen.display.preparing(SyntheticRun(run_id="r").spec(), lambda: status(running=False))
    screen.display.started()
    with screen.console.capture() as captured:
        screen.console.print(screen.display._panel())
    screen.display.close()
    assert "the clock stands" in captured.get()
    assert "no evaluation yet; target 0.9000" in captured.get()


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (READING, "50% busy, 250 W, 2 GiB"),
        (Reading(wall_ns=0, on_clock=True, memory_bytes=1), "not measurable here"),
    ],
)
def test_a_gpu_row_shows_what_there_is(tmp_path: Path, reading: Reading, words: str) -> None:
    from msgspec.structs import replace

    screen = Screen(tmp_path, terminal=True)
    spec = replace(SyntheticRun(run_id="r").spec(), device="cuda:0")
    screen.display.preparing(spec, lambda: status(reading))
    with screen.console.capture() as captured:
        screen.console.print(screen.display._panel())
    screen.display.close()
    assert words in captured.get()


def test_no_color_is_honoured(tmp_path: Path) -> None:
    coloured = Screen(tmp_path, terminal=True)
    coloured.display.summary(detail(SyntheticRun(run_id="r")))
    plain = Screen(tmp_path, terminal=True, environment={"NO_COLOR": "1"})
    plain.display.summary(detail(SyntheticRun(run_id="r")))
    assert "\x1b[32m" in coloured.text()
    assert "\x1b[32m" not in plain.text()


def test_a_run_that_missed_says_why_and_its_best() -> None:
    run = SyntheticRun(
        run_id="r", outcome="timeout", reason="no step for 60 s after step 400", credited=None
    )
    assert one_sentence(detail(run), "cold") == (
        "adamw on blobs/two: hung after 4 s and 400 steps (best accuracy 0.9300): "
        "no step for 60 s after step 400."
    )


def test_the_warm_clock_leaves_compilation_out() -> None:
    run = SyntheticRun(run_id="r", compile_s=0.5)
    assert "reached in 3 s" in one_sentence(detail(run), "cold")
    assert "reached in 2.5 s" in one_sentence(detail(run), "warm")


def test_a_crash_shows_its_last_line_and_where_the_rest_is(tmp_path: Path) -> None:
    screen = Screen(tmp_path, terminal=False)
    trace = "Traceback (most recent call last):\n  …\nValueError: no\n"
    run = SyntheticRun(run_id="r", outcome="crashed", credited=None, traceback=trace)
    screen.display.summary(detail(run))
    assert "ValueError: no" in screen.text()
    assert "`bench show r`" in screen.text()


def test_several_seeds_end_in_mean_and_spread(tmp_path: Path) -> None:
    screen = Screen(tmp_path, terminal=False, runs=3)
    runs = [
        SyntheticRun(run_id="a", interval_s=1.0),
        SyntheticRun(run_id="b", interval_s=2.0, seed=1),
        SyntheticRun(run_id="c", outcome="budget", credited=None, seed=2),
    ]
    screen.display.conclusion([detail(run) for run in runs])
    # 3 s and 6 s: mean 4.5, standard deviation 2.12.
    assert "2 of 3 runs reached the target, in 4.5 ± 2.1 s (mean ± sd)" in screen.text()
    screen.display.conclusion([detail(run) for run in runs[1:]])
    assert "1 of 2 runs reached the target, in 6 s." in screen.text()


def test_a_submission_is_compared_with_the_references_stored_runs(tmp_path: Path) -> None:
    for seed in range(3):
        SyntheticRun(
            run_id=f"reference-{seed}", seed=seed, tuning_effort="reference", interval_s=2.0
        ).write(tmp_path)
    SyntheticRun(
        run_id="tainted", tuning_effort="reference", interval_s=9.0, taints=["drift"]
    ).write(tmp_path)
    ingest(tmp_path, run_directories(tmp_path / "runs"))
    faster = Screen(tmp_path, terminal=False)
    faster.display.conclusion([detail(SyntheticRun(run_id="x", submission="lion"))])
    text = " ".join(faster.text().split())
    assert "lion: 3 s, 2.00 times faster than the reference adamw's 6 s in 3 stored runs" in text
    assert "too few runs" in text
    slower = Screen(tmp_path, terminal=False)
    slow = SyntheticRun(run_id="y", submission="lion", interval_s=3.0)
    slower.display.conclusion([detail(slow)])
    assert "1.50 times slower" in " ".join(slower.text().split())


def test_without_stored_reference_runs_it_says_how_to_get_one(tmp_path: Path) -> None:
    screen = Screen(tmp_path, terminal=False)
    screen.display.conclusion([detail(SyntheticRun(run_id="x", submission="lion"))])
    assert "bench run -s adamw -w blobs/two" in " ".join(screen.text().split())


def test_the_sparkline_spans_from_the_lowest_value_to_the_target() -> None:
    assert sparkline([0.0, 0.5, None, 1.0], target=1.0, width=10) == "▁▅×█"
    assert sparkline([0.0, 0.5], target=1.0, width=10) == "▁▅"
    assert sparkline([1.0] * 30, target=1.0, width=8) == "▁" * 8
    assert sparkline([None], target=1.0, width=8) == ""
