"""InfoBatch against the rule of Qin et al. 2024, and the traps of its public code."""

import inspect
import itertools
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.cards import SubmissionCard, read_card
from submissions.data import infobatch
from submissions.data.infobatch import InfoBatch


def session(examples: int = 20, batch_size: int = 4, horizon: int = 10**9, seed: int = 0) -> Any:
    return SimpleNamespace(
        device=torch.device("cpu"),
        training_examples=examples,
        training_ids=torch.arange(examples),
        batch_size=batch_size,
        horizon_examples=horizon,
        generator=torch.Generator().manual_seed(seed),
    )


def scored(host: Any, losses: list[float], **hyperparameters: float) -> InfoBatch:
    policy = InfoBatch(session=host, **hyperparameters)
    policy.observe(torch.arange(len(losses)), torch.tensor(losses))
    return policy


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.75])
def test_an_epoch_drops_a_share_of_the_examples_below_the_mean(ratio: float) -> None:
    losses = [0.1, 5.0, 0.2, 0.3, 4.0, 0.4, 0.5, 0.6, 3.0, 0.7, 0.8]
    mean = sum(losses) / len(losses)
    low = {i for i, loss in enumerate(losses) if loss < mean}
    high = set(range(len(losses))) - low
    assert (len(low), len(high)) == (8, 3)
    policy = scored(session(len(losses)), losses, prune_ratio=ratio)
    left = set()
    for _ in range(30):
        ids, weights = (t.tolist() for t in policy.epoch(prune=True))
        assert len(set(ids)) == len(ids)
        assert high < set(ids)
        assert len(set(ids) & low) == 8 - 8 * ratio
        for i, w in zip(ids, weights, strict=True):
            assert w == pytest.approx(1 / (1 - ratio) if i in low else 1)
        assert sum(weights) == pytest.approx(len(losses))  # an epoch stands for all
        left |= set(ids)
    assert left == low | high  # which ones sit out is drawn anew


def test_an_example_at_the_mean_stays() -> None:
    policy = scored(session(4), [1.0, 1.0, 1.0, 1.0])
    assert policy.epoch(prune=True)[1].tolist() == [1.0] * 4


def test_the_weighted_sum_is_unbiased() -> None:
    losses = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]  # mean 1.05, four below it
    policy = scored(session(6), losses)
    values = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, -6.0])  # a gradient, say
    sums = torch.zeros(6)
    for _ in range(1000):
        ids, weights = policy.epoch(prune=True)
        sums[ids] += weights * values[ids]
    # each low example's mean weight is 1, with sd 1 an epoch
    torch.testing.assert_close(sums / 1000, values, rtol=4 / 1000**0.5, atol=0)


def test_the_first_epoch_has_no_scores_and_takes_all() -> None:
    ids, weights = InfoBatch(session=session(9)).epoch(prune=True)
    assert sorted(ids.tolist()) == list(range(9))
    assert weights.tolist() == [1.0] * 9


def test_an_example_without_a_score_is_neither_dropped_nor_in_the_mean() -> None:
    policy = InfoBatch(session=session(5), prune_ratio=0.9)
    policy.observe(torch.tensor([0, 2, 3]), torch.tensor([1.0, 1.0, 4.0]))
    for _ in range(20):
        ids, weights = policy.epoch(prune=True)
        assert {1, 3, 4} <= set(ids.tolist())
        assert dict(zip(ids.tolist(), weights.tolist(), strict=True))[1] == 1.0


def test_the_last_loss_is_the_score() -> None:
    policy = scored(session(3), [9.0, 1.0, 1.0], prune_ratio=0.99)
    policy.observe(torch.tensor([0, 1]), torch.tensor([0.0, 9.0], dtype=torch.float64))
    for _ in range(10):
        ids, weights = policy.epoch(prune=True)
        assert dict(zip(ids.tolist(), weights.tolist(), strict=True))[1] == 1.0


def run(policy: InfoBatch, host: Any, count: int, losses: torch.Tensor) -> list[Any]:
    """Take batches as the harness does: yield, train, report the losses."""
    selections = []
    for selection in itertools.islice(policy.batches(), count):
        policy.observe(selection.ids, losses[selection.ids])
        selections.append((selection.ids.tolist(), selection.weights.tolist()))
    return selections


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 8, 10, 16, 30, 12.3])
def test_annealing_starts_at_delta_whatever_the_number_of_epochs(epochs: float) -> None:
    n, batch = 40, 4
    host = session(n, batch, horizon=round(epochs * n))
    policy = InfoBatch(session=host)
    losses = torch.linspace(0.1, 1.0, n) ** 3
    selections = run(policy, host, round(1.2 * epochs * n / batch) + 20, losses)
    stood_for = 0.0
    first = None
    for k, (_, weights) in enumerate(selections):
        if stood_for >= 0.875 * round(epochs * n):
            first = k if first is None else first
            assert weights == [1.0] * batch
        stood_for += sum(weights)
    assert first is not None
    if epochs > 2:
        assert any(2.0 in weights for _, weights in selections[:first])
    full = [i for ids, _ in selections[first:] for i in ids]
    epoch = full[:n]
    if len(epoch) == n:
        assert Counter(epoch) == Counter(range(n))


def test_progress_runs_as_if_every_epoch_had_all_examples() -> None:
    n, batch, epochs = 40, 4, 12
    host = session(n, batch, horizon=epochs * n)
    policy = InfoBatch(session=host)
    losses = torch.linspace(0.1, 1.0, n) ** 3
    trained = stood_for = 0
    for selection in policy.batches():
        policy.observe(selection.ids, losses[selection.ids])
        trained += len(selection.ids)
        stood_for += float(selection.weights.sum())
        assert trained / host.horizon_examples == pytest.approx(
            stood_for / (epochs * n), abs=0.51 / host.horizon_examples
        )
        if trained >= host.horizon_examples:
            break
    # one epoch of 40, then 24 losses below the mean, so that 12 sit out, then all again from
    # 10.5 of 12 epochs on
    assert trained == pytest.approx(40 + 9.5 * 28 + 1.5 * 40, abs=10)


def test_batches_are_whole_and_an_epoch_comes_in_full() -> None:
    host = session(10, 4)
    selections = run(InfoBatch(session=host), host, 30, torch.ones(10))
    assert all(len(ids) == 4 for ids, _ in selections)
    stream = [i for ids, _ in selections for i in ids]
    for epoch in range(12):
        assert sorted(stream[10 * epoch : 10 * epoch + 10]) == list(range(10))


def test_the_batch_size_may_change_between_steps() -> None:
    host = session()
    batches = InfoBatch(session=host).batches()
    for size in (4, 1, 7, 50):
        host.batch_size = size
        assert len(next(batches).ids) == size


def test_no_global_generator_is_touched_and_the_run_seed_decides() -> None:
    random.seed(3)
    np.random.seed(3)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    losses = torch.linspace(0.1, 1.0, 20) ** 3
    runs = []
    for seed in (1, 1, 2):
        host = session(seed=seed)
        runs.append(run(InfoBatch(session=host), host, 40, losses))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_examples_held_out_are_never_drawn() -> None:
    host = session()
    policy = InfoBatch(session=host)
    host.training_ids = torch.tensor([1, 3, 5, 7, 9])
    selections = run(policy, host, 40, torch.arange(20.0))
    assert {i for ids, _ in selections for i in ids} == {1, 3, 5, 7, 9}


@pytest.mark.parametrize("anneal_start", [0.0, 0.875])
@pytest.mark.parametrize("batch_size", [4, 50])
def test_a_holdout_within_an_epoch_is_never_drawn_again(
    anneal_start: float, batch_size: int
) -> None:
    host = session(batch_size=batch_size)
    policy = InfoBatch(session=host, anneal_start=anneal_start)
    policy.observe(torch.arange(20), torch.arange(20.0))
    batches = policy.batches()
    for left in ([1, 3, 5, 7, 9, 11], [3, 7, 11]):
        for _ in range(2):
            next(batches)
        host.training_ids = torch.tensor(left)
        after = [s.ids.tolist() for s in itertools.islice(batches, 50)]
        assert {len(batch) for batch in after} == {batch_size}
        assert {i for batch in after for i in batch} == set(left)


def test_illegal_hyperparameters_are_refused() -> None:
    for ratio in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"prune_ratio must be in \[0, 1\), not"):
            InfoBatch(session=session(), prune_ratio=ratio)
    for start in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"anneal_start must be in \[0, 1\], not"):
            InfoBatch(session=session(), anneal_start=start)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(infobatch.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(InfoBatch).parameters
    assert {name: h.convert(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default for name, argument in arguments.items() if name != "session"
    }
    assert (card.kind, card.implementation) == ("data", "infobatch:InfoBatch")
    assert list(card.needs) == ["session"]
