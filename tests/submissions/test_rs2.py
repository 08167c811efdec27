"""RS2 against the sampling of Okanovic et al. 2024, written out in plain Python."""

import inspect
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.cards import SubmissionCard, read_card
from submissions.data import rs2
from submissions.data.rs2 import RS2


def session(examples: int = 20, batch_size: int = 4, seed: int = 0) -> Any:
    return SimpleNamespace(
        device=torch.device("cpu"),
        training_ids=torch.arange(examples),
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(seed),
    )


def take(policy: RS2, count: int) -> list[list[int]]:
    return [s.ids.tolist() for s in itertools.islice(policy.batches(), count)]


@pytest.mark.parametrize(("examples", "fraction"), [(20, 0.25), (20, 0.3), (7, 0.5), (5, 1.0)])
def test_without_replacement_walks_permutations_in_chunks(examples: int, fraction: float) -> None:
    size = round(fraction * examples)
    policy = RS2(session=session(examples), fraction=fraction)
    twin = torch.Generator().manual_seed(0)
    subsets = policy.subsets()
    for _ in range(3):
        permutation = torch.randperm(examples, generator=twin).tolist()
        for start in range(0, examples, size):
            assert next(subsets).tolist() == permutation[start : start + size]


def test_with_replacement_every_subset_is_drawn_from_all_examples() -> None:
    policy = RS2(session=session(20), fraction=0.3, replacement=True)
    twin = torch.Generator().manual_seed(0)
    seen = []
    for subset in itertools.islice(policy.subsets(), 300):
        assert subset.tolist() == torch.randperm(20, generator=twin).tolist()[:6]
        assert len(set(subset.tolist())) == 6
        seen.extend(subset.tolist())
    counts = [seen.count(i) for i in range(20)]  # binomial: 90 on average, sd 7.9
    assert min(counts) > 50
    assert max(counts) < 130
    assert len(set(seen[:18])) < 18  # three rounds without replacement would not repeat one


@pytest.mark.parametrize("replacement", [False, True])
def test_batches_cut_the_stream_of_subsets(replacement: bool) -> None:
    policy = RS2(session=session(), fraction=0.3, replacement=replacement)
    subsets = RS2(session=session(), fraction=0.3, replacement=replacement).subsets()
    stream = [i for subset in itertools.islice(subsets, 20) for i in subset.tolist()]
    batches = take(policy, 15)
    assert batches == [stream[4 * i : 4 * i + 4] for i in range(15)]


def test_every_example_comes_once_in_a_pass_without_replacement() -> None:
    ids = [i for batch in take(RS2(session=session(), fraction=0.3), 10) for i in batch]
    assert sorted(ids[:20]) == sorted(ids[20:]) == list(range(20))
    assert ids[:20] != ids[20:]


def test_a_subset_may_be_smaller_than_a_batch() -> None:
    batches = take(RS2(session=session(batch_size=16), fraction=0.05), 10)
    assert {len(batch) for batch in batches} == {16}


def test_the_batch_size_may_change_between_steps() -> None:
    host = session()
    batches = RS2(session=host, fraction=0.5).batches()
    sizes = []
    for size in (4, 1, 7, 32):
        host.batch_size = size
        sizes.append(len(next(batches).ids))
    assert sizes == [4, 1, 7, 32]


@pytest.mark.parametrize("replacement", [False, True])
def test_examples_held_out_are_never_drawn(replacement: bool) -> None:
    host = session()
    policy = RS2(session=host, fraction=0.5, replacement=replacement)
    host.training_ids = torch.tensor([1, 3, 5, 7, 9])
    assert {i for batch in take(policy, 50) for i in batch} == {1, 3, 5, 7, 9}


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("batch_size", [4, 50])
def test_a_holdout_within_a_round_is_never_drawn_again(replacement: bool, batch_size: int) -> None:
    host = session(batch_size=batch_size)
    batches = RS2(session=host, fraction=0.5, replacement=replacement).batches()
    for left in ([1, 3, 5, 7, 9, 11], [3, 7, 11]):
        for _ in range(2):
            next(batches)
        host.training_ids = torch.tensor(left)
        after = [s.ids.tolist() for s in itertools.islice(batches, 50)]
        assert {len(batch) for batch in after} == {batch_size}
        assert {i for batch in after for i in batch} == set(left)


def test_the_horizon_shrinks_with_the_fraction() -> None:
    for fraction, horizon in ((0.1, 4800), (0.5, 24000), (1.0, 48000), (1e-6, 1)):
        assert RS2(session=session(), fraction=fraction).horizon_examples(48000) == horizon


def test_the_weights_are_equal_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    batches = list(itertools.islice(RS2(session=session()).batches(), 20))
    assert all(selection.weights is None for selection in batches)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_run_seed_decides_the_order() -> None:
    one, same, other = (take(RS2(session=session(seed=s)), 10) for s in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_illegal_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"RS2: fraction must be in \(0, 1\], not"):
        RS2(session=session(), fraction=fraction)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(rs2.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(RS2).parameters
    assert {name: h.convert(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default for name, argument in arguments.items() if name != "session"
    }
    assert (card.kind, card.implementation) == ("data", "rs2:RS2")
    assert list(card.needs) == ["session"]
