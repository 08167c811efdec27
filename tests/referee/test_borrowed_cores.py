"""The referee computes on the trainee's cores in pauses, and goes back."""

import os
import sys

import pytest
import torch

from harness.referee.borrowed_cores import borrowed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pinning is Linux's")


def test_a_thread_computes_on_the_borrowed_cores_and_goes_back() -> None:
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    core = max(before)
    with borrowed([core], threads + 1):
        assert os.sched_getaffinity(0) == {core}
        assert torch.get_num_threads() == threads + 1
    assert os.sched_getaffinity(0) == before
    assert torch.get_num_threads() == threads


def test_it_goes_back_from_a_failed_evaluation_too() -> None:
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), borrowed([max(before)], threads + 1):
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before
    assert torch.get_num_threads() == threads


def test_where_nothing_can_be_pinned_only_the_threads_change() -> None:
    before = os.sched_getaffinity(0)
    with borrowed([], 1):
        assert os.sched_getaffinity(0) == before
