"""Selective-Backprop against the sampling of Jiang et al. 2019, in plain Python."""

import inspect
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.cards import SubmissionCard, read_card
from submissions.data import selective_backprop
from submissions.data.selective_backprop import SelectiveBackprop

MODEL = nn.Linear(1, 1)


class Host:
    """A session whose example i has the loss `losses[i]`; it remembers what was scored."""

    def __init__(self, losses: list[float], batch_size: int = 4, seed: int = 0) -> None:
        self.device = torch.device("cpu")
        self.training_ids = torch.arange(len(losses))
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)
        self.losses = torch.tensor(losses)
        self.scored: list[list[int]] = []

    def score(self, model: nn.Module, ids: Tensor) -> Tensor:
        assert model is MODEL
        self.scored.append(ids.tolist())
        return self.losses[ids]


class Falling(Host):
    """Its losses fall from scoring to scoring, so that hardly any stands out from the history."""

    def score(self, model: nn.Module, ids: Tensor) -> Tensor:
        return super().score(model, ids) / len(self.scored)


def policy(host: Any, **hyperparameters: Any) -> SelectiveBackprop:
    return SelectiveBackprop(session=host, model=MODEL, **hyperparameters)


def take(chosen: SelectiveBackprop, count: int) -> list[list[int]]:
    selections = list(itertools.islice(chosen.batches(), count))
    assert all(s.weights is None for s in selections)
    return [s.ids.tolist() for s in selections]


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 3.0])
def test_probabilities_are_a_power_of_the_distribution_function(beta: float) -> None:
    chosen = policy(Host([0.0]), beta=beta, history=10)
    generator = torch.Generator().manual_seed(1)
    history: list[float] = []
    for n in (4, 4, 4, 7, 1):
        # few values, so that there are ties
        losses = torch.randint(6, (n,), generator=generator).double() / 4
        history = (history + losses.tolist())[-10:]
        by_hand = [
            (sum(past <= loss for past in history) / len(history)) ** beta
            for loss in losses.tolist()
        ]
        assert chosen.probabilities(losses).tolist() == pytest.approx(by_hand)


def test_batches_by_hand() -> None:
    losses = [0.1, 0.9, 0.4, 0.7, 0.2, 0.3, 0.8, 0.6, 0.5, 1.0]
    batches = take(policy(Host(losses), beta=2.0, history=6, primed_epochs=0), 12)
    twin = torch.Generator().manual_seed(0)
    walk: list[int] = []
    history: list[float] = []
    kept: list[int] = []
    for batch in batches:
        while len(kept) < 4:
            while len(walk) < 4:
                walk += torch.randperm(10, generator=twin).tolist()
            candidates, walk = walk[:4], walk[4:]
            scores = torch.tensor([losses[i] for i in candidates]).tolist()
            history = (history + scores)[-6:]
            draws = torch.rand(4, generator=twin).tolist()
            for i, score, draw in zip(candidates, scores, draws, strict=True):
                if draw < (sum(past <= score for past in history) / len(history)) ** 2:
                    kept.append(i)
        assert batch == kept[:4]
        kept = kept[4:]


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_high_losses_are_trained_on_in_proportion(beta: float) -> None:
    n, batches = 100, 600
    host = Host([i / n for i in range(n)], batch_size=20)
    ids = [i for b in take(policy(host, beta=beta, primed_epochs=0), batches) for i in b]
    scored = [i for b in host.scored for i in b]
    # 1 / (β + 1) of the candidates are kept
    assert len(scored) / len(ids) == pytest.approx(beta + 1, rel=0.05)
    for low, high in ((0, 25), (25, 50), (50, 75), (75, 100)):
        kept = sum(low <= i < high for i in ids) / sum(low <= i < high for i in scored)
        expected = (high ** (beta + 1) - low ** (beta + 1)) / (beta + 1) / 25 / n**beta
        assert kept == pytest.approx(expected, abs=0.03)


def test_equal_losses_are_all_kept() -> None:
    host = Host([0.5] * 10)
    batches = take(policy(host, beta=3.0, primed_epochs=0), 20)
    assert batches == host.scored


def test_a_batch_comes_to_an_end_whatever_the_losses() -> None:
    host = Host([math.nan] * 10)
    assert all(len(b) == 4 for b in take(policy(host, primed_epochs=0), 10))
    host = Falling([1.0] * 1000, batch_size=8)
    batches = policy(host, beta=20.0, primed_epochs=0).batches()
    for count in range(1, 6):
        assert len(next(batches).ids) == 8
        assert len(host.scored) <= count * 84  # 4 (β + 1)
    assert len(host.scored) > 84


def test_places_left_go_to_the_likeliest_of_the_last_candidates() -> None:
    host = Host([0.0] * 8)
    chosen = policy(host, beta=20.0, history=1000, primed_epochs=0)
    chosen.probabilities(torch.full((1000,), 9.0))  # no candidate comes near these
    host.losses = torch.arange(8.0)
    batch = take(chosen, 1)[0]
    assert len(host.scored) == 84
    assert batch == sorted(host.scored[-1], reverse=True)


def test_the_first_epoch_trains_on_everything_unscored() -> None:
    host = Host([0.1 * i for i in range(10)], batch_size=4)
    batches = policy(host).batches()
    first = [i for _ in range(3) for i in next(batches).ids.tolist()]
    assert sorted(first[:10]) == list(range(10))
    assert not host.scored
    next(batches)
    assert host.scored


def test_the_batch_size_may_change_between_steps() -> None:
    host = Host([0.1 * i for i in range(50)])
    batches = policy(host, primed_epochs=0).batches()
    for size in (4, 1, 16, 3):
        host.batch_size = size
        assert len(next(batches).ids) == size


def test_examples_held_out_are_never_drawn_and_the_global_generator_is_left_alone() -> None:
    host = Host([0.1 * i for i in range(20)])
    chosen = policy(host)
    host.training_ids = torch.tensor([1, 3, 5, 7, 9])
    state = torch.get_rng_state()
    assert {i for b in take(chosen, 50) for i in b} <= {1, 3, 5, 7, 9}
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("primed_epochs", [0, 1, 100])
@pytest.mark.parametrize("batch_size", [4, 50])
def test_a_holdout_within_an_epoch_is_never_drawn_again(
    primed_epochs: int, batch_size: int
) -> None:
    host = Host([0.1 * i for i in range(20)], batch_size=batch_size)
    batches = policy(host, beta=0.5, primed_epochs=primed_epochs).batches()
    for left in ([1, 3, 5, 7, 9, 11], [3, 7, 11]):
        for _ in range(2):
            next(batches)
        host.training_ids = torch.tensor(left)
        host.scored.clear()
        after = [s.ids.tolist() for s in itertools.islice(batches, 50)]
        assert {len(batch) for batch in after} == {batch_size}
        assert {i for batch in after for i in batch} == set(left)
        assert {i for batch in host.scored for i in batch} <= set(left)


def test_examples_kept_beyond_a_batch_are_forgotten_where_a_holdout_took_them() -> None:
    host = Host([0.5] * 20, batch_size=8)  # equal losses are all kept
    batches = policy(host, primed_epochs=0).batches()
    next(batches)
    host.batch_size = 2
    next(batches)  # of eight that were scored
    host.training_ids = torch.tensor([0, 1])
    assert {i for s in itertools.islice(batches, 20) for i in s.ids.tolist()} == {0, 1}


def test_a_holdout_shortens_the_unscored_epoch() -> None:
    host = Host([0.1 * i for i in range(20)])
    batches = policy(host).batches()
    next(batches)
    host.training_ids = torch.arange(6)
    next(batches)  # eight examples: more than one epoch of six
    assert not host.scored
    next(batches)
    assert host.scored


def test_illegal_hyperparameters_are_refused() -> None:
    for beta in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"beta must be in \[0, inf\), not"):
            policy(Host([0.0]), beta=beta)
    with pytest.raises(ValueError, match="history must be at least 1, not 0"):
        policy(Host([0.0]), history=0)
    with pytest.raises(ValueError, match="primed_epochs must be at least 0, not -1"):
        policy(Host([0.0]), primed_epochs=-1)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(selective_backprop.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(SelectiveBackprop).parameters
    assert {name: h.convert(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default
        for name, argument in arguments.items()
        if name not in ("session", "model")
    }
    assert card.kind == "data"
    assert card.implementation == "selective_backprop:SelectiveBackprop"
    assert list(card.needs) == ["session", "model"]
