"""A third-party package as pip would install it: a folder with cards and its entry points."""

from pathlib import Path

import msgspec
import yaml
from records.synthetic_runs import workload_card

_SUBMISSION = """\
name: steady
title: "Steady: no surprises [ever]"
kind: optimizer
implementation: "steady:Steady"
paper: {title: "On steadiness", authors: "A. Author", year: 2020, url: "https://example.org"}
hyperparameters:
  lr: {default: 0.1, minimum: 0.0}
claim:
  metric: steps
  baseline: adamw
  workload: blobs/two
  ratio: 0.5
  statement: "Half the steps."
  source: "https://example.org"
"""


def install_plugin(folder: Path) -> Path:
    """Make the package below `folder`, which goes on PYTHONPATH, and return `folder`."""
    cards = folder / "steady_plugin"
    (cards / "blobs").mkdir(parents=True)
    (cards / "methods").mkdir()
    for package in (cards, cards / "blobs", cards / "methods"):
        (package / "__init__.py").touch()
    fields = msgspec.to_builtins(workload_card())
    card = {name: value for name, value in fields.items() if value is not None}
    (cards / "blobs" / "two.yaml").write_text(yaml.safe_dump(card))
    (cards / "methods" / "steady.yaml").write_text(_SUBMISSION)
    # Importing it would be a mistake: a list reads cards alone.
    (cards / "methods" / "steady.py").write_text("raise AssertionError('imported')\n")
    metadata = folder / "steady_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: steady-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[timetrial.workloads]\nsteady = steady_plugin.blobs\n"
        "[timetrial.submissions]\nsteady = steady_plugin.methods\n"
    )
    return folder
