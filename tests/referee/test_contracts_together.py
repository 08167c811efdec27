"""Recipes of several submissions, in real runs on quick/blobs."""

import hashlib
import math
import re
from pathlib import Path

import pytest
from referee.quick_runs import EASY_PACE_NS, PLUGINS, QUICKLY, Track, Witness
from safetensors.torch import load_file

from harness.events import Evaluation
from harness.prepared_paths import base_path
from harness.records.record import RunDetail
from harness.run import Request, carry_out, plan

SEVERAL_PLACES = str(PLUGINS / "timetrial_quick" / "several_places.py")
CHANCE_LOSS = math.log(4)  # of logits that are all zero


class EnoughAfter(Witness):
    """Interrupts the run after so many evaluations."""

    def __init__(self, evaluations: int) -> None:
        self._left = evaluations
        super().__init__(on_evaluated=self._count)

    def _count(self, evaluation: Evaluation) -> None:
        self._left -= 1

    def had_enough(self) -> bool:
        return self._left <= 0


def said(track: Track, detail: RunDetail, word: str) -> list[str]:
    """What the submission said behind `word`, in order."""
    return re.findall(rf"^{word} (.*)$", track.directory(detail).output(), re.MULTILINE)


def test_four_submissions_in_one_recipe_reach_the_target(track: Track) -> None:
    detail = track.race("late-growth+backwards+last-few+plain-sgd")
    record = detail.record
    assert record.outcome == "reached", record.reason
    assert said(track, detail, "horizon") == ["6400"]
    sizes = [int(size) for size in said(track, detail, "batch")]
    # A tenth of 4,800 examples is 15 steps of 32; the schedule sees a size one step later.
    assert sizes[:15] == [32] * 15 and set(sizes[15:]) == {64}
    assert record.examples == 32 * 15 + 64 * (record.steps - 15)
    assert record.model_passes == 3 * record.examples
    observed = said(track, detail, "observed")
    assert observed == [f"{step} False" for step in range(len(observed))]  # nothing held out
    assert len(observed) == len(said(track, detail, "trained")) == record.steps


@pytest.mark.slow
def test_an_averages_evaluation_leaves_the_training_as_it_was(track: Track) -> None:
    one = track.race("last-few+adamw", settings=["last-few.window=1"])
    few = track.race("last-few+adamw", settings=["last-few.window=8"])
    shorter = min(one.record.steps, few.record.steps)
    trained = [said(track, detail, "trained") for detail in (one, few)]
    assert shorter >= 20 and trained[0][:shorter] == trained[1][:shorter]
    # Weights and optimizer state are the same to the bit; what is evaluated is not.
    assert said(track, one, "evaluated")[0] != said(track, few, "evaluated")[0]
    assert one.evaluations[0].metrics["loss"] != few.evaluations[0].metrics["loss"]
    assert one.record.outcome == few.record.outcome == "reached"


def test_a_procedure_owns_the_loop_and_trains_by_the_recipe(track: Track) -> None:
    detail = track.race("pilot-first+backwards+plain-sgd")
    record = detail.record
    assert record.outcome == "reached", record.reason
    assert said(track, detail, "pilot") == ["True 0 160"]
    assert record.examples == 32 * (5 + record.steps)
    assert record.model_passes == 3 * record.examples + 200  # and twice the scores of 100


@pytest.mark.slow
def test_a_parameterization_exports_the_models_own_weights(track: Track) -> None:
    halves = track.race("halves+plain-sgd", settings=["plain-sgd.lr=0.25"])
    # A weight's two halves get its gradient each, so at half the rate each step is the same.
    assert halves.record.outcome == "reached", halves.record.reason
    detail = track.race("halves-as-they-are")
    assert detail.record.outcome == "disqualified"
    assert "other weights than the model's: 0.one, 0.other, 0.weight" in detail.record.reason


@pytest.mark.parametrize("submission", ["two-faces", "two-faces+pilot-first"])
def test_an_optimizer_switches_its_weights_around_the_export(track: Track, submission: str) -> None:
    witness = EnoughAfter(3)
    detail = track.race(submission, witness=witness, interrupted=witness.had_enough)
    losses = [evaluation.metrics["loss"] for evaluation in detail.evaluations]
    assert losses == pytest.approx([CHANCE_LOSS] * 3)
    shown, trained = (said(track, detail, word) for word in ("eval", "train"))
    assert len(trained) >= 2 and shown[: len(trained)] == trained  # to the bit
    assert len(set(shown)) == len(shown)  # and it learned between evaluations


def test_places_of_one_file_share_its_module(track: Track) -> None:
    detail = track.race(SEVERAL_PLACES)
    assert detail.record.outcome == "reached", detail.record.reason
    assert track.directory(detail).output().count("the file runs") == 1
    # Ten steps to an evaluation; the optimizer came first, with its learning rate.
    assert said(track, detail, "shared")[:2] == ["11 0.5", "21 0.5"]


def test_a_class_of_another_contract_is_disqualified(track: Track) -> None:
    record = track.race("no-schedule").record
    assert record.outcome == "disqualified"
    assert record.reason == (
        "no-schedule: LastFew is no harness.session.Schedule, which the place `schedule` asks for"
    )


@pytest.mark.slow
def test_every_run_of_a_pretrained_workload_starts_from_the_same_weights(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = tmp_path / "word"
    monkeypatch.setenv("QUICK_PRETRAINING_FILE", str(word))
    request = Request(
        submission="two-faces", workload="quick/pretrained", device="cpu", home=track.home
    )
    chosen = plan(request)
    track.store_pace(chosen, EASY_PACE_NS)
    for seed in (0, 1):
        witness = EnoughAfter(1)
        detail = carry_out(chosen, seed, witness, interrupted=witness.had_enough, patience=QUICKLY)
        base = load_file(base_path(chosen.card))
        # In the order of the roles: matrix, head, bias.
        names = ("0.weight", "2.weight", "0.bias", "2.bias")
        content = b"".join(base[name].numpy().tobytes() for name in names)
        assert said(track, detail, "start") == [hashlib.sha256(content).hexdigest()[:16]]
    assert word.read_text() == "pretrained\n"
