"""Which runs a calibration makes, what it keeps of them, and how it goes on after an end."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from records.synthetic_runs import SyntheticRun

from harness.calibration import protocol
from harness.calibration.protocol import (
    Calibration,
    Outcome,
    RunFailedError,
    Settings,
    shortcomings,
)
from harness.errors import UsageError
from harness.events import Evaluation
from harness.records.record import RunDetail, summarise
from harness.run import Plan

CURVE = (0.2, 0.6, 0.9, 0.96, 0.97, 0.975, 0.98, 0.98, 0.98, 0.98)


@dataclass
class Track:
    """Stands in for `carry_out`: remembers what was asked for and answers at once."""

    asked: list[tuple[str, str, int, float, float | None]] = field(default_factory=list)
    interrupt_after: int | None = None
    rivals_reach: bool = False
    crash: bool = False

    def __call__(
        self,
        chosen: Plan,
        seed: int,
        progress: Any,
        *,
        interrupted: Callable[[], bool],
        stopped: Callable[[Evaluation], str | None] = lambda _: None,
    ) -> RunDetail:
        if self.interrupt_after is not None and len(self.asked) >= self.interrupt_after:
            raise KeyboardInterrupt
        resolved, card, request = chosen.resolved, chosen.card, chosen.request
        settings = " ".join(request.settings)
        target = card.metric.target
        self.asked.append((resolved.name, settings, seed, target, request.budget_paces))
        curve = not settings
        # A grid of 5,376 passes and a horizon of 144,000: 36 points are a quarter beyond it.
        values = [value - 0.001 * seed for value in CURVE for _ in range(4)]
        reaches = not curve and self.rivals_reach
        run = SyntheticRun(
            run_id="a",
            submission=resolved.name,
            workload=card,
            seed=seed,
            machine_class=chosen.machine_class,
            values=values if curve else [0.99, 0.99] if reaches else [0.5, 0.5],
            outcome="crashed"
            if self.crash
            else "stopped"
            if curve
            else "reached"
            if reaches
            else "budget",
            credited=0 if reaches else None,
        )
        detail = summarise(run.spec(), run.events())
        if not curve:
            return detail
        kept = []
        for n, evaluation in enumerate(detail.evaluations, start=1):
            kept.append(msgspec.structs.replace(evaluation, model_passes=n * 5376))
            if stopped(kept[-1]) is not None:
                break
        return msgspec.structs.replace(detail, evaluations=kept)


class Silent:
    def say(self, text: str) -> None: ...


@pytest.fixture
def track(monkeypatch: pytest.MonkeyPatch) -> Track:
    made = Track()
    monkeypatch.setattr(protocol, "carry_out", made)
    return made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        workload="resnet",
        seeds=4,
        rival_seeds=2,
        margin_sigmas=3.0,
        target=None,
        device="cpu",
        home=tmp_path / "runs",
        evidence=tmp_path,
        restart=False,
    )


def run(settings: Settings) -> Outcome:
    silent: Any = Silent()
    return Calibration(settings).run(silent, lambda: False)


def test_curves_first_then_rivals_at_the_target_they_gave(track: Track, settings: Settings) -> None:
    outcome = run(settings)
    curves, rivals = track.asked[:4], track.asked[4:]
    assert [seed for _, _, seed, _, _ in curves] == [0, 1, 2, 3]
    assert all((name, given) == ("adamw", "") for name, given, *_ in curves)
    assert all(target > 1 and budget == 1e9 for *_, target, budget in curves)
    assert [(given, seed) for _, given, seed, _, _ in rivals] == [
        (f"lr={lr}", seed)
        for lr in ("0.001", "0.1", "0.005", "0.02", "0.01", "0.1", "1")
        for seed in (0, 1)
    ]
    assert {name for name, *_ in rivals[8:]} == {"torch.optim:SGD"}
    figures = outcome.figures
    assert {(target, budget) for *_, target, budget in rivals} == {
        (figures.target, figures.rival_budget_paces)
    }
    # Best values 0.98, 0.979, 0.978, 0.977: their median, less three spreads of the same levels.
    assert figures.best_median == pytest.approx(0.9785)
    assert figures.metric_sigma == pytest.approx(0.00129, abs=1e-5)
    assert figures.target == pytest.approx(0.9746)
    assert all(found.told_apart for found in outcome.separations)


def test_a_curve_ends_a_quarter_beyond_the_horizon(track: Track, settings: Settings) -> None:
    run(settings)
    evidence = json.loads((settings.evidence / "resnet-digits-v1.json").read_bytes())
    for curve in evidence["curves"]:
        passes = [point[0] for point in curve["points"]]
        assert passes[-1] >= 1.25 * 144_000 > passes[-2]


def test_an_interrupted_calibration_goes_on_where_it_was(track: Track, settings: Settings) -> None:
    for after, left in ((2, 16), (7, 11)):
        track.interrupt_after = after
        with pytest.raises(KeyboardInterrupt):
            run(settings)
        assert Calibration(settings).runs_left == left
    track.interrupt_after = None
    whole = run(settings)
    assert len(track.asked) == len(set(track.asked)) == 18
    assert Calibration(settings).runs_left == 0
    assert run(settings) == whole and len(track.asked) == 18


def test_more_seeds_add_to_what_is_there(track: Track, settings: Settings) -> None:
    run(settings)
    more = replace(settings, seeds=6, target=0.97)
    # Two curves, and every rival anew: they ran to another target.
    assert Calibration(more).runs_left == 16
    outcome = run(more)
    assert outcome.figures.runs == 6
    assert {target for *_, target, _ in track.asked[-14:]} == {0.97}
    assert [found.runs for found in outcome.separations] == [2] * 7


def test_a_crash_is_no_evidence(track: Track, settings: Settings) -> None:
    track.crash = True
    with pytest.raises(RunFailedError, match="adamw with seed 0 ended as crashed"):
        run(settings)
    track.crash = False
    assert Calibration(settings).runs_left == 18
    run(settings)
    assert len(track.asked) == 19


def test_a_given_target_is_judged(track: Track, settings: Settings) -> None:
    assert run(replace(settings, target=0.95)).figures.target == 0.95
    assert {target for *_, target, _ in track.asked[4:]} == {0.95}


def test_the_restart_forgets(track: Track, settings: Settings) -> None:
    run(settings)
    assert Calibration(replace(settings, restart=True)).runs_left == 18


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("fingerprint", "another recipe, optimizer, grid"),
        ("source_sha256", "another recipe, optimizer, grid"),
        ("machine_class", "another machine class"),
    ],
)
def test_evidence_of_something_else_is_not_added_to(
    key: str, said: str, track: Track, settings: Settings
) -> None:
    run(settings)
    path = settings.evidence / "resnet-digits-v1.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | {key: "other"}))
    with pytest.raises(UsageError, match=f"{said}.*--restart"):
        Calibration(settings)
    path.write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        Calibration(settings)


def test_what_the_card_cannot_promise_is_named(track: Track, settings: Settings) -> None:
    track.rivals_reach = True
    outcome = run(settings)
    found = "; ".join(shortcomings(outcome.figures, outcome.separations))
    for name in ("lr ÷ 10", "lr × 10", "plain SGD, lr 0.01", "plain SGD, lr 1"):
        assert f"{name} is not told apart" in found
    assert "lr × 2 is not told apart" not in found  # a neighbour may be as good
    assert [s.name for s in outcome.separations if s.neighbour] == ["lr ÷ 2", "lr × 2"]
    better = replace(outcome.separations[3], slowdown=0.8, low=0.7, high=0.9)
    assert better.name == "lr × 2" and better.faster
    [found] = shortcomings(outcome.figures, [better])[-1:]
    assert found.startswith("lr × 2 is faster than the reference (0.80, 95 % 0.70 to 0.90)")
    bad = replace(
        outcome.figures, reached=3, passes_cv=0.2, quantisation=0.06, false_reach_chance=0.5
    )
    found = "; ".join(shortcomings(bad, []))
    for words in ("3 of 4 runs", "varies by 20.0%", "the grid is 6.0%", "50% of runs"):
        assert words in found
    good = replace(bad, reached=4, passes_cv=0.05, quantisation=0.04, false_reach_chance=0.0)
    assert shortcomings(good, []) == []
