"""A calibration's figures written onto a card: these lines change, the others stay to the byte."""

import dataclasses
import difflib
import re
from pathlib import Path

import msgspec
import pytest

from harness import catalogue
from harness.calibration.card_text import as_text, card_lines, with_lines
from harness.calibration.figures import Figures
from harness.calibration.protocol import Outcome
from harness.cards import WorkloadCard, parse_card, read_card
from harness.cli.calibrate import write_card
from harness.errors import UsageError

FIGURES = Figures(
    runs=20,
    untainted=17,
    reached=19,
    best_median=0.9801,
    metric_sigma=0.00217,
    margin_sigmas=3.0,
    target=0.9735,
    seconds_mean=7.126,
    seconds_sd=0.51,
    paces_mean=612.4,
    time_cv=0.0812,
    passes_mean=118_432.0,
    passes_cv=0.0466,
    evaluations_mean=22.03,
    evaluation_share=0.3951,
    quantisation=0.0454,
    false_reach_chance=0.05,
    budget_paces=1900.0,
    rival_budget_paces=1100.0,
)
ENTRY = catalogue.workload("resnet/digits")
TEXT = ENTRY.path.read_text()


def test_the_card_has_the_figures_and_all_else_to_the_byte() -> None:
    new = with_lines(TEXT, card_lines(FIGURES, ENTRY.card), "x.yaml")
    card = parse_card(new, WorkloadCard, "x.yaml")
    assert card.metric.target == 0.9735
    assert card.budget_paces == 2400  # the card's own is larger
    assert msgspec.to_builtins(card.noise) == {
        "runs": 20,
        "reached": 19,
        "metric_sigma": 0.0022,
        "time_cv": 0.081,
        "passes_cv": 0.047,
        "false_reach_chance": 0.05,
        "evaluation_share": 0.4,
    }
    assert card.reference_seconds == 7.13
    assert "0.9801 (n=20), backed off by 3.0 sd" in card.evidence["target"]
    assert "17 of 20 untainted" in card.evidence["reference_seconds"]
    changed = {
        line[2:].split(":")[0].strip()
        for line in difflib.ndiff(TEXT.splitlines(), new.splitlines())
        if line[0] in "+-"
    }
    assert changed <= {
        *("metric", "reached", "metric_sigma", "time_cv", "passes_cv", "false_reach_chance"),
        *("evaluation_share", "reference_seconds", "target", "grid", "budget", "noise"),
    }
    assert with_lines(new, card_lines(FIGURES, card), "x.yaml") == new


def test_a_larger_budget_replaces_the_cards() -> None:
    figures = msgspec.convert(msgspec.to_builtins(FIGURES) | {"budget_paces": 2600.0}, type=Figures)
    new = with_lines(TEXT, card_lines(figures, ENTRY.card), "x.yaml")
    assert parse_card(new, WorkloadCard, "x.yaml").budget_paces == 2600


def test_an_entry_over_several_lines_is_replaced_whole() -> None:
    folded = re.sub(r'(?m)^  grid: "(\w+) (.*)"$', r"  grid: >-\n    \1\n    \2", TEXT)
    assert folded != TEXT
    lines = card_lines(FIGURES, ENTRY.card)
    assert with_lines(folded, lines, "x.yaml") == with_lines(TEXT, lines, "x.yaml")


def test_a_card_in_another_style_is_left_to_its_author() -> None:
    block = TEXT.replace("metric: {name: accuracy", "metric: {\n  name: accuracy")
    with pytest.raises(UsageError, match=r"x\.yaml has no line 'target' in the usual form"):
        with_lines(block, card_lines(FIGURES, ENTRY.card), "x.yaml")


def test_every_bundled_card_can_be_written() -> None:
    for entry in catalogue.workloads().values():
        lines = card_lines(FIGURES, entry.card)
        new = with_lines(Path(entry.path).read_text(), lines, str(entry.path))
        assert new.count(lines["evidence.noise"]) == 1
        assert f"target: {FIGURES.target}" in new


def test_the_lines_are_shown_as_they_would_stand() -> None:
    shown = as_text(card_lines(FIGURES, ENTRY.card))
    for line in ("metric: {…, target: 0.9735}", "budget_paces: 2400", "  passes_cv: 0.047"):
        assert line in shown.splitlines()


def test_the_command_writes_the_card_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "digits.yaml"
    path.write_text(TEXT)
    entry = dataclasses.replace(ENTRY, path=path)
    monkeypatch.setattr(catalogue, "workload", lambda name: entry)
    outcome = Outcome(card=ENTRY.card, path=tmp_path / "e.json", figures=FIGURES, separations=[])
    assert write_card(outcome) == path
    assert read_card(path, WorkloadCard).metric.target == 0.9735
    assert list(tmp_path.iterdir()) == [path]
    path.write_text(TEXT.replace("tier: embedded", "tier: imbedded"))
    with pytest.raises(UsageError, match="field `tier`"):
        write_card(outcome)
    assert "imbedded" in path.read_text() and list(tmp_path.iterdir()) == [path]
    monkeypatch.setattr(
        catalogue, "workload", lambda name: dataclasses.replace(entry, path=tmp_path)
    )
    with pytest.raises(UsageError, match="cannot be written"):
        write_card(outcome)
