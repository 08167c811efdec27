"""Suites: who is in them, and what `@NAME` stands for."""

import json
from collections import Counter
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
        *(
            msgspec.structs.replace(workload_card(f"{of}-{change}"), variant_of=of)
            for of in ("a/quick", "b/quick")
            for change in ("gelu", "tanh", "wide")
        ),
    ]
    entries = {card.name: Entry(card=card, path=Path("x.yaml"), module="x") for card in cards}
    monkeypatch.setattr(catalogue, "workloads", lambda: entries)


@pytest.mark.usefixtures("known")
def test_several_names_and_suites_stand_with_commas_between_them() -> None:
    assert workloads_named("c/long, @core,a/quick") == ["c/long", "a/quick", "b/quick"]
    with pytest.raises(UsageError, match="No workload is named"):
        workloads_named(" , ")


@pytest.mark.usefixtures("known")
def test_cards_choose_and_tiers_follow() -> None:
    members = {name: [card.name for card in suite.workloads] for name, suite in suites().items()}
    assert members == {
        "smoke": ["a/quick"],
        "core": ["a/quick", "b/quick"],
        "embedded": ["a/quick", "b/quick", "c/long"],
        "real": [],
        "held-out": [
            *("a/quick-gelu", "a/quick-tanh", "a/quick-wide"),
            *("b/quick-gelu", "b/quick-tanh", "b/quick-wide"),
        ],
    }
    assert suites()["core"].reference_seconds == 7.0


@pytest.mark.usefixtures("known")
def test_a_name_stands_for_one_and_a_suite_for_its_members() -> None:
    assert workloads_named("a") == workloads_named("a/quick") == ["a/quick"]
    assert workloads_named("@core") == ["a/quick", "b/quick"]


@pytest.mark.usefixtures("known")
def test_a_seed_draws_one_variant_of_each() -> None:
    draws = [workloads_named(f"@held-out:{seed}") for seed in range(200)]
    assert draws == [workloads_named(f"@held-out:{seed}") for seed in range(200)]
    for first, second in draws:
        assert first.startswith("a/quick-") and second.startswith("b/quick-")
    # Every pair comes up, about equally often: 200 ÷ 9 = 22 (binomial sd 4.4).
    pairs = Counter(tuple(draw) for draw in draws)
    assert len(pairs) == 9 and min(pairs.values()) >= 8


@pytest.mark.usefixtures("known")
def test_a_draw_does_not_depend_on_other_workloads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = workloads_named("@held-out:7")
    fewer = {name: entry for name, entry in catalogue.workloads().items() if name[0] == "b"}
    monkeypatch.setattr(catalogue, "workloads", lambda: fewer)
    assert workloads_named("@held-out:7") == before[1:]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@cor", "The suite 'cor' does not exist. Did you mean 'core'.*`bench list suites`"),
        ("@", "The suite '' does not exist"),
        ("@real", "The suite @real has no workloads yet"),
        ("@core:3", "Only @held-out is drawn by a seed"),
        ("@held-out:", "lacks its seed"),
        ("core", "The workload 'core' does not exist"),
    ],
)
def test_what_is_no_suite_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        workloads_named(text)


def test_the_bundled_suites() -> None:
    names = {name: [card.name for card in suite.workloads] for name, suite in suites().items()}
    assert set(names["smoke"]) <= set(names["embedded"])
    assert len(names["core"]) == 8 and set(names["core"]) <= set(names["embedded"])
    assert not set(names["embedded"]) & set(names["held-out"])
    assert suites()["smoke"].reference_seconds < 10
    assert suites()["core"].reference_seconds <= 300


def test_the_list_of_suites_is_for_programs_too() -> None:
    code, out, _ = bench("list", "suites", "--format", "json")
    rows = {row["suite"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["core"]["workloads"] == workloads_named("@core")
    assert rows["core"]["reference_seconds"] == suites()["core"].reference_seconds
