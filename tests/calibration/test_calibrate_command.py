"""`bench calibrate` on the quick workload, for real: the report, the evidence, the exit code."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from harness.calibration.evidence import Evidence

PLUGINS = Path(__file__).parents[1] / "plugins"

pytestmark = pytest.mark.slow


def calibrate(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(PLUGINS), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", "calibrate", "quick/blobs", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "BENCH_RESULTS": str(home),
            "TMPDIR": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "COLUMNS": "80",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_calibration_from_start_to_report(tmp_path: Path) -> None:
    done = calibrate(tmp_path, "--seeds", "2", "--rival-seeds", "1")
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1)
    path = tmp_path / "calibration" / "quick-blobs-v1.json"
    evidence = msgspec.json.decode(path.read_bytes(), type=Evidence)
    assert [curve.seed for curve in evidence.curves] == [0, 1]
    assert all(curve.ended == "stopped" for curve in evidence.curves)
    assert len(evidence.rivals) == 7
    for words in ("for the card", "metric_sigma", "told apart", "lr ÷ 10", "plain SGD, lr 0.1"):
        assert words in done.stdout
    assert ("•" in done.stdout) == (done.returncode == 1)

    runs = len(list((tmp_path / "calibration" / "runs").iterdir()))
    assert runs == 9
    again = calibrate(tmp_path, "--seeds", "2", "--rival-seeds", "1")
    assert again.stdout == done.stdout and again.returncode == done.returncode
    assert len(list((tmp_path / "calibration" / "runs").iterdir())) == runs
