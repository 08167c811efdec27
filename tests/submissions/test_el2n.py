"""EL2N against the score of Paul et al. 2021, and the work of its pilots."""

import inspect
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.cards import SubmissionCard, read_card
from submissions.data import el2n
from submissions.data.el2n import EL2N, el2n_scores


def score_by_hand(logits: list[float], target: int) -> float:
    top = max(logits)
    powers = [math.exp(x - top) for x in logits]
    errors = [power / sum(powers) - (1.0 if i == target else 0.0) for i, power in enumerate(powers)]
    return math.sqrt(sum(e * e for e in errors))


def test_the_score_is_the_distance_of_probabilities_from_the_class() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(9, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(5, (9,), generator=generator)
    by_hand = [score_by_hand(x, y) for x, y in zip(logits.tolist(), targets.tolist(), strict=True)]
    assert el2n_scores(logits, targets).tolist() == pytest.approx(by_hand, rel=1e-12)


def test_the_score_runs_from_right_to_surely_wrong() -> None:
    logits = torch.tensor([[100.0, 0.0], [0.0, 0.0], [0.0, 100.0]])
    scores = el2n_scores(logits, torch.zeros(3, dtype=torch.int64)).tolist()
    assert scores == pytest.approx([0.0, math.sqrt(0.5), math.sqrt(2)])


def test_a_sequence_scores_the_mean_over_the_tokens_that_count() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(6, (3, 4), generator=generator)
    targets[0, :3] = -100
    targets[1] = -100  # nothing counts: nothing to learn
    by_hand = []
    for rows, classes in zip(logits.tolist(), targets.tolist(), strict=True):
        parts = [score_by_hand(x, y) for x, y in zip(rows, classes, strict=True) if y != -100]
        by_hand.append(sum(parts) / max(1, len(parts)))
    assert el2n_scores(logits, targets).tolist() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(3, 2), torch.zeros(3)),  # a regression
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 4, 2), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(3, 2)),  # soft labels
    ],
)
def test_outputs_without_classes_are_refused(outputs: Tensor, targets: Tensor) -> None:
    with pytest.raises(ValueError, match=r"EL2N: needs logits \[B, C\] with classes \[B\]"):
        el2n_scores(outputs, targets)


class Host:
    """A session over `inputs` [N, 2] and `labels` [N], which counts the work."""

    def __init__(self, inputs: Tensor, labels: Tensor, batch_size: int = 8) -> None:
        self.device = torch.device("cpu")
        self.inputs, self.labels = inputs, labels
        self.training_ids = torch.arange(len(labels))
        self.batch_size = batch_size
        self.horizon_examples = 4000
        self.generator = torch.Generator().manual_seed(0)
        self.forwarded = self.backwarded = 0
        self.models: list[nn.Module] = []

    def build_model(self) -> nn.Module:
        self.models.append(nn.Linear(2, 2))
        return self.models[-1]

    def examples_of(self, selection: Any) -> Any:
        ids = selection.ids
        return SimpleNamespace(
            ids=ids, inputs=self.inputs[ids], targets=self.labels[ids], size=len(ids)
        )

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        self.forwarded += batch.size
        return model(batch.inputs)

    def per_example_loss(self, outputs: Tensor, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(outputs, batch.targets, reduction="none")

    def backward(self, loss: Tensor, examples: int) -> None:
        loss.backward()
        self.backwarded += examples


def blobs(n: int = 60, mislabelled: int = 6) -> Host:
    """Two classes far apart; the first few labels are wrong."""
    torch.manual_seed(0)
    labels = torch.arange(n) % 2
    inputs = torch.randn(n, 2) * 0.3 + (labels[:, None] * 4.0 - 2.0)
    labels[:mislabelled] = 1 - labels[:mislabelled]
    return Host(inputs, labels)


def test_pilots_find_what_is_hard() -> None:
    host = blobs()
    chosen = EL2N(session=host, keep_fraction=0.1, pilots=2, pilot_fraction=0.3, pilot_lr=0.03)
    scores = chosen.scores(host.training_ids)
    assert scores[:6].min() > 1.0 > scores[6:].max()
    assert set(chosen.kept(host.training_ids, scores).tolist()) == set(range(6))


def test_scores_are_the_mean_over_pilots() -> None:
    host = blobs()
    scores = EL2N(session=host, pilots=3, pilot_fraction=0.01).scores(host.training_ids)
    assert len(host.models) == 3
    with torch.no_grad():
        by_pilot = [el2n_scores(m(host.inputs), host.labels) for m in host.models]
    torch.testing.assert_close(scores, torch.stack(by_pilot).mean(dim=0))
    assert not torch.equal(by_pilot[0], by_pilot[1])
    assert not any(m.training for m in host.models)


def test_the_work_of_the_pilots_is_counted() -> None:
    host = blobs()
    next(EL2N(session=host, pilots=2, pilot_fraction=0.021).batches())
    steps = 11  # ⌈0.021 × 4000 ÷ 8⌉
    assert host.backwarded == 2 * steps * 8
    assert host.forwarded == 2 * (steps * 8 + 60)


def test_pilots_run_once_and_before_the_first_batch() -> None:
    host = blobs()
    chosen = EL2N(session=host)
    assert not host.models
    batches = chosen.batches()
    next(batches)
    work = host.forwarded
    for _ in range(30):
        next(batches)
    assert (len(host.models), host.forwarded) == (1, work)


@pytest.mark.parametrize(
    ("keep", "offset", "expected"),
    [
        (0.5, 0.0, [9, 7, 5, 3, 1]),
        (0.5, 0.2, [5, 3, 1, 8, 6]),
        (0.3, 0.1, [7, 5, 3]),
        (1.0, 0.0, [9, 7, 5, 3, 1, 8, 6, 4, 2, 0]),
        (0.01, 0.0, [9]),
    ],
)
def test_the_hardest_are_kept_after_the_offset(
    keep: float, offset: float, expected: list[int]
) -> None:
    ids = torch.arange(100, 110)
    scores = torch.tensor([0.0, 0.5, 0.1, 0.6, 0.2, 0.7, 0.3, 0.8, 0.4, 0.9])
    chosen = EL2N(session=blobs(), keep_fraction=keep, offset=offset)
    assert (chosen.kept(ids, scores) - 100).tolist() == expected


def test_the_kept_examples_are_trained_on_evenly() -> None:
    host = blobs()
    chosen = EL2N(session=host, keep_fraction=0.5)
    batches = [s.ids.tolist() for s in itertools.islice(chosen.batches(), 15)]
    assert all(len(b) == 8 for b in batches)
    stream = [i for b in batches for i in b]
    kept = set(stream)
    assert len(kept) == 30
    for epoch in range(4):
        assert set(stream[30 * epoch : 30 * epoch + 30]) == kept
    assert stream[:30] != stream[30:60]


def test_fewer_examples_than_a_batch_may_be_kept() -> None:
    host = blobs()
    batches = EL2N(session=host, keep_fraction=0.05).batches()
    ids = next(batches).ids.tolist()
    assert (len(ids), len(set(ids))) == (8, 3)


def test_examples_held_out_are_neither_scored_nor_drawn() -> None:
    host = blobs()
    chosen = EL2N(session=host, keep_fraction=1.0)
    host.training_ids = torch.arange(10, 30)
    seen = {i for s in itertools.islice(chosen.batches(), 20) for i in s.ids.tolist()}
    assert seen == set(range(10, 30))


@pytest.mark.parametrize("batch_size", [8, 50])
def test_a_holdout_within_an_epoch_is_never_drawn_again(batch_size: int) -> None:
    host = blobs()
    host.batch_size = batch_size
    batches = EL2N(session=host, keep_fraction=0.5, pilot_fraction=0.01).batches()
    kept = {i for s in itertools.islice(batches, 20) for i in s.ids.tolist()}
    assert len(kept) == 30
    for step in (2, 4):  # the kept ones among the rest stay
        next(batches)
        host.training_ids = torch.arange(0, 60, step)
        after = [s.ids.tolist() for s in itertools.islice(batches, 50)]
        assert {len(batch) for batch in after} == {batch_size}
        assert {i for batch in after for i in batch} == kept & set(range(0, 60, step))
    assert len(host.models) == 1  # no pilot was trained again


def test_a_holdout_of_all_that_was_kept_is_refused() -> None:
    host = blobs()
    batches = EL2N(session=host, keep_fraction=0.01, pilot_fraction=0.01).batches()
    (kept,) = set(next(batches).ids.tolist())
    host.training_ids = torch.tensor([i for i in range(60) if i != kept])
    with pytest.raises(ValueError, match="EL2N: a holdout took every example that was kept"):
        next(batches)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep_fraction": 0.0}, r"keep_fraction must be in \(0, 1\], not 0\.0"),
        ({"keep_fraction": 1.5}, r"keep_fraction must be in \(0, 1\], not 1\.5"),
        ({"offset": 0.6}, r"offset must be in \[0, 1 - keep_fraction = 0\.5\], not 0\.6"),
        ({"offset": -0.1}, r"offset must be in"),
        ({"pilots": 0}, r"pilots must be at least 1, not 0"),
        ({"pilot_fraction": 0.0}, r"pilot_fraction must be in \(0, 1\], not 0\.0"),
        ({"pilot_lr": 0.0}, r"pilot_lr must be in \(0, inf\), not 0\.0"),
        ({"pilot_lr": math.nan}, r"pilot_lr must be in \(0, inf\), not nan"),
    ],
)
def test_illegal_hyperparameters_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EL2N(session=blobs(), **arguments)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(el2n.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(EL2N).parameters
    assert {name: h.convert(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default for name, argument in arguments.items() if name != "session"
    }
    assert (card.kind, card.implementation) == ("data", "el2n:EL2N")
    assert list(card.needs) == ["session"]
