"""Suites: who is in them, and what `@NAME` stands for."""

import json
from pathlib import Path

import msgspec
import pytest
from cli.test_bad_input import bench
from records.synthetic_runs import workload_card

from harness import catalogue
from harness.catalogue import Entry
from harness.errors import UsageError
from harness.suites import suites, workloads_named


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [
        msgspec.structs.replace(workload_card("a/quick"), suites=("smoke", "core")),
        msgspec.structs.replace(workload_card("b/quick"), suites=("core",), reference_seconds=4.0),
        msgspec.structs.replace(workload_card("c/long"), tier="embedded-slow"),
    ]
    entries = {card.name: Entry(card=card, path=Path("x.yaml"), module="x") for card in cards}
    monkeypatch.setattr(catalogue, "workloads", lambda: entries)


@pytest.mark.usefixtures("known")
def test_cards_choose_and_tiers_follow() -> None:
    members = {name: [card.name for card in suite.workloads] for name, suite in suites().items()}
    assert members == {
        "smoke": ["a/quick"],
        "core": ["a/quick", "b/quick"],
        "embedded": ["a/quick", "b/quick", "c/long"],
        "real": [],
    }
    assert suites()["core"].reference_seconds == 7.0


@pytest.mark.usefixtures("known")
def test_a_name_stands_for_one_and_a_suite_for_its_members() -> None:
    assert workloads_named("a") == workloads_named("a/quick") == ["a/quick"]
    assert workloads_named("@core") == ["a/quick", "b/quick"]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@cor", "The suite 'cor' does not exist. Did you mean 'core'.*`bench list suites`"),
        ("@", "The suite '' does not exist"),
        ("@real", "The suite @real has no workloads yet"),
        ("core", "The workload 'core' does not exist"),
    ],
)
def test_what_is_no_suite_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        workloads_named(text)


def test_the_bundled_suites() -> None:
    names = {name: [card.name for card in suite.workloads] for name, suite in suites().items()}
    assert set(names["smoke"]) < set(names["core"]) <= set(names["embedded"])
    assert suites()["smoke"].reference_seconds < 10
    assert suites()["core"].reference_seconds <= 300


def test_the_list_of_suites_is_for_programs_too() -> None:
    code, out, _ = bench("list", "suites", "--format", "json")
    rows = {row["suite"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["core"]["workloads"] == workloads_named("@core")
    assert rows["core"]["reference_seconds"] == suites()["core"].reference_seconds
