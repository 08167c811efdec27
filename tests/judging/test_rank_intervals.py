"""Intervals of ranks: what they hold, how entries are tied, and how often they are right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.judging.rank_intervals import rank_intervals, tied_groups


def replicates_of_means(
    sample: NDArray[np.float64], replicates: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return [replicates, entries] means of resamples of each entry's [n, entries] scores."""
    n, entries = sample.shape
    shares = generator.multinomial(n, np.full(n, 1 / n), size=(entries, replicates)) / n
    return np.einsum("ern,ne->re", shares, sample)


def test_entries_far_apart_have_one_rank_each() -> None:
    generator = np.random.default_rng(0)
    sample = generator.normal(size=(10, 3)) + np.array([0.0, 100.0, 50.0])
    found = rank_intervals(sample.mean(0), replicates_of_means(sample, 500, generator), 10)
    assert (found.low, found.high, found.tied_group) == ([3, 1, 2], [3, 1, 2], [3, 1, 2])


def test_scores_that_no_resampling_moves_are_told_apart_by_their_values() -> None:
    found = rank_intervals([0.5, 0.5, 0.0], np.tile([0.5, 0.5, 0.0], (100, 1)), 5)
    assert (found.low, found.high, found.tied_group) == ([1, 1, 3], [2, 2, 3], [1, 1, 2])


def test_one_entry_is_first() -> None:
    found = rank_intervals([0.5], np.random.default_rng(0).normal(size=(100, 1)), 5)
    assert (found.low, found.high, found.tied_group) == ([1], [1], [1])


def test_a_sample_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="2 or more"):
        rank_intervals([0.5], np.zeros((100, 1)), 1)


@pytest.mark.parametrize(
    ("low", "high", "groups"),
    [
        ([], [], []),
        ([1, 1, 3], [2, 2, 3], [1, 1, 2]),
        ([3, 1, 2], [3, 2, 3], [1, 1, 1]),  # the first and the last are tied by way of the second
        ([4, 1, 2, 3], [4, 1, 3, 3], [3, 1, 2, 2]),
    ],
)
def test_groups_worked_by_hand(low: list[int], high: list[int], groups: list[int]) -> None:
    assert tied_groups(low, high) == groups


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 8), st.integers(2, 12), st.integers(0, 2**32), st.floats(0, 3))
def test_the_rank_observed_lies_in_the_interval_and_groups_are_in_order(
    entries: int, n: int, seed: int, spread: float
) -> None:
    generator = np.random.default_rng(seed)
    sample = generator.normal(size=(n, entries)) + spread * np.arange(entries)
    scores = sample.mean(0)
    found = rank_intervals(scores, replicates_of_means(sample, 100, generator), n)
    ranks = 1 + (scores[None, :] > scores[:, None]).sum(1)
    assert all(
        low <= rank <= high for low, rank, high in zip(found.low, ranks, found.high, strict=True)
    )
    for one in range(entries):
        for other in range(entries):
            if found.tied_group[one] < found.tied_group[other]:
                assert found.high[one] < found.low[other] and scores[one] > scores[other]


def coverage(n: int, means: NDArray[np.float64], sigma: NDArray[np.float64], trials: int) -> float:
    """Return how often the interval of the entry worst served holds its true rank."""
    generator = np.random.default_rng(n)
    ranks = 1 + (means[None, :] > means[:, None]).sum(1)
    held = np.zeros(len(means))
    for _ in range(trials):
        sample = means + sigma * generator.normal(size=(n, len(means)))
        found = rank_intervals(sample.mean(0), replicates_of_means(sample, 400, generator), n)
        held += (np.array(found.low) <= ranks) & (ranks <= np.array(found.high))
    return float(held.min()) / trials


# The hard case: entries that differ by next to nothing, one much noisier than the others.
@pytest.mark.slow
@pytest.mark.parametrize("entries", [2, 5, 12])
@pytest.mark.parametrize("n", [5, 10, 20])
def test_intervals_hold_the_true_rank(n: int, entries: int) -> None:
    close = np.linspace(0, 1e-6, entries)
    assert coverage(n, close, np.ones(entries), 500) >= 0.93
    assert coverage(n, close, np.linspace(0.2, 2, entries), 500) >= 0.93
    assert coverage(n, 0.7 * np.arange(entries), np.ones(entries), 300) >= 0.93


def test_intervals_hold_the_true_rank_of_five_that_hardly_differ() -> None:
    assert coverage(5, np.linspace(0, 1e-6, 5), np.linspace(0.2, 2, 5), 300) >= 0.93
