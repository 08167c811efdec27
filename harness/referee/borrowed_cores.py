"""The trainee's cores, which are the referee's to compute on whenever no trainee runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from harness.cores import pinned


@contextmanager
def borrowed(cores: Sequence[int], threads: int) -> Iterator[None]:
    """Move the calling thread to `cores`, with `threads` torch threads, and back at the end."""
    threads_before = torch.get_num_threads()
    with pinned(cores):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads_before)
