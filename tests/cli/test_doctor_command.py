import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.doctor import examination as examination_module
from harness.doctor.examination import Examination
from harness.doctor.finding import Finding

SICK = Examination(
    device="cpu",
    machine_class="A CPU, 1 training core",
    measurable=[
        Finding(check="clock", status="ok", found="monotonic, steps of 40 ns"),
        Finding(check="processor energy", status="missing", found="no RAPL", advice="None."),
    ],
    disturbances=[
        Finding(
            check="battery",
            status="warning",
            found="the machine runs on it",
            advice="Plug it in.",
            effect="spread",
        )
    ],
    verdict="Timing on cpu is trustworthy for some things.",
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What the doctor was asked for; it finds what stands above."""
    calls: list[tuple[Any, ...]] = []

    def examine(*arguments: Any) -> Examination:
        calls.append(arguments)
        return SICK

    monkeypatch.setattr(examination_module, "examine", examine)
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    return calls


def bench(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_table_ends_with_the_verdict(
    asked: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert bench("doctor") == 0  # whatever it finds
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == SICK.machine_class
    assert lines[-1] == SICK.verdict
    (battery,) = (line for line in lines if line.startswith("battery"))
    assert "warning" in battery
    assert "the machine runs on it" in battery
    assert "Plug it in." in battery
    assert lines.index("What can be measured here") < lines.index(
        "What makes timing untrustworthy here"
    )
    assert asked == [("auto", tmp_path)]


def test_the_device_and_the_results_are_passed_on(
    asked: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    assert bench("doctor", "--device", "cuda:1", "--results", str(tmp_path / "r")) == 0
    assert asked == [("cuda:1", tmp_path / "r")]


@pytest.mark.usefixtures("asked")
def test_json_carries_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("doctor", "--format", "json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["verdict"] == SICK.verdict
    assert content["disturbances"] == [
        {
            "check": "battery",
            "status": "warning",
            "found": "the machine runs on it",
            "advice": "Plug it in.",
            "effect": "spread",
            "device": None,
        }
    ]
    assert content["measurable"][0]["advice"] is None


@pytest.mark.parametrize("arguments", [("--device", "gpu"), ("--format", "csv"), ("more",)])
def test_a_mistake_exits_2(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert bench("doctor", "--results", str(tmp_path), *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error: " in captured.err


_REPORT = """
import sys
from harness.cli import main
try:
    main(["doctor", "--format", "json"])
except SystemExit as ended:
    assert ended.code == 0, ended.code
print("\\n".join(sys.modules), file=sys.stderr)
"""


def test_the_doctor_himself_loads_no_tensor_library(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", _REPORT],
        capture_output=True,
        cwd=tmp_path,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout)["verdict"]
    loaded = set(result.stderr.splitlines())
    assert loaded.isdisjoint({"torch", "numpy", "scipy", "sklearn", "polars", "duckdb"})
    assert list(tmp_path.iterdir()) == []
